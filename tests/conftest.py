"""What several rooms' tests share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import pytest
import torch
import yaml
from at_work import MINIATURE, Begin, environment, heed_interrupts
from pytest_postgresql.janitor import DatabaseJanitor
from servers import postgresql, postgresql_programs

from search.run import main
from search.study import LIBRARY

# One thread is faster for networks this small, and leaves the other core to a second process.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def miniature() -> list[str]:
    """Overrides for load_study that make a study tiny."""
    return list(MINIATURE)


@pytest.fixture
def begin(miniature: list[str], tmp_path: Path) -> Iterator[Begin]:
    """Begin a command in a process of its own, a miniature study's unless told; what still runs is killed."""
    started = []

    def build(module: str, *args: str, small: bool = True) -> subprocess.Popen[str]:
        overrides = [part for change in miniature for part in ("--set", change)] if small else []
        command = [sys.executable, "-m", module, *overrides, *args]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            preexec_fn=heed_interrupts,
        )
        started.append(process)
        return process

    yield build
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def empty_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without anything in it, which takes seconds to make."""
    from mlflow import MlflowClient  # now that nothing is sent anywhere

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def runs(tmp_path: Path, empty_copy: Path) -> None:
    """A folder for results in which MLflow's store is made already."""
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_copy, tmp_path / "runs/mlflow.db")


@pytest.fixture
def run_here(
    miniature: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a study in miniature in this process; return the exit code and what was told."""

    def call(study: str, *args: str) -> tuple[int, str]:
        changes = [part for change in miniature for part in ("--set", change)]
        with chdir(tmp_path):
            code = main(["--study", study, *changes, "--quiet", *args])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., str]:
    """Write a study file: kernel_ablation's definition with some fields replaced, or raw text."""

    def write(text: str | None = None, /, **fields: Any) -> str:
        path = tmp_path / "my_study.yaml"
        if text is None:
            definition = yaml.safe_load((LIBRARY / "kernel_ablation.yaml").read_text())
            text = yaml.safe_dump(definition | fields, sort_keys=False)
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of PostgreSQL's server programs."""
    found = postgresql_programs()
    if found is None:
        pytest.skip("PostgreSQL's programs are not installed (`make test` tries to)")
    return found


@pytest.fixture(scope="session")
def postgresql_port(programs: Path) -> Iterator[int]:
    """The port of a PostgreSQL server that all tests share."""
    with postgresql(programs) as server:
        yield server.port


@pytest.fixture
def postgresql_url(postgresql_port: int) -> Iterator[str]:
    """A new, empty database."""
    name, host = f"test_{uuid4().hex}", "127.0.0.1"
    with DatabaseJanitor(user="postgres", host=host, port=postgresql_port, dbname=name):
        yield f"postgresql+psycopg://postgres@{host}:{postgresql_port}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new storage of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'storage.db'}"
    return str(request.getfixturevalue("postgresql_url"))
