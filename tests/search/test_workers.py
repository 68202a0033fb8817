"""Several workers on one study, in processes of their own, killed where it hurts."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from servers import postgresql

from search.analysis import load
from search.plan import open_study
from search.queue import job_key
from search.storage import find_study, open_storage
from search.study import load_study
from space.errors import InputError

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
LONG = ("--set", "recipe.epochs=150")  # so that a worker is met at work


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a running process brings about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "it ended first"
        assert time.monotonic() < end, "it never came about"


@pytest.fixture
def begin(miniature: list[str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started = []

    def build(module: str, *args: str, small: bool = True) -> subprocess.Popen[str]:
        overrides = [part for change in miniature for part in ("--set", change)] if small else []
        command = [sys.executable, "-m", module, *overrides, *args]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        started.append(process)
        return process

    yield build
    for process in started:
        process.kill()
        process.wait()


def each_once(url: str, count: int) -> None:
    """Check that every trial of a study is complete, once, and that nothing ran beside its repetition."""
    frame = load("kernel_ablation", storage=url)
    assert frame["state"].tolist() == ["COMPLETE"] * count
    assert not frame.duplicated(["arm", "seed"]).any()
    trials = optuna.load_study(study_name="kernel_ablation-laptop", storage=url).get_trials()
    done = [job_key(trial) for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(done) == len(set(done)) == count


@pytest.mark.parametrize("storage_url", ["sqlite", "postgresql"], indirect=True)
def test_a_killed_worker_is_replaced_and_nothing_is_lost(
    begin: Callable[..., subprocess.Popen[str]], storage_url: str
) -> None:
    study = begin(
        "search.run", "--study", "kernel_ablation", "--seeds", "1", "--workers", "2", "--storage", storage_url, *LONG
    )
    storages: list[RDBStorage] = []

    def running() -> list[int]:
        try:
            storages[:] = storages or [open_storage(storage_url, create=False, write=False)]
            trials = find_study("kernel_ablation", storages[0]).get_trials(deepcopy=False)
        except InputError:  # not there yet
            return []
        held = [t.user_attrs.get("worker") for t in trials if t.state is TrialState.RUNNING]
        return [int(name.rsplit(":", 2)[1]) for name in held if name is not None]

    met: list[int] = []

    def at_work() -> bool:
        met[:] = running()
        return bool(met)

    until(at_work, study)
    psutil.Process(met[0]).kill()
    _, told = study.communicate(timeout=PATIENCE)
    assert study.returncode == 0, told
    assert "ended by signal 9; another takes its place" in told
    each_once(storage_url, 7)


def test_a_database_that_goes_away_is_waited_for(begin: Callable[..., subprocess.Popen[str]], programs: Path) -> None:
    with postgresql(programs) as server:
        url = f"postgresql+psycopg://postgres@127.0.0.1:{server.port}/postgres"
        study = begin("search.run", "--study", "kernel_ablation", "--seeds", "1", "--storage", url)
        assert study.stderr is not None
        told = ""
        for line in study.stderr:
            told += line
            if line.startswith("2/7"):
                server.stop()
            if "the storage cannot be reached; trying for" in line:
                server.start()
                break
        told += study.stderr.read()
        assert study.wait(timeout=PATIENCE) == 0, told
        assert "Traceback" not in told
        each_once(url, 7)


def test_a_worker_joins_by_name(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path, miniature: list[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    open_study(load_study("kernel_ablation", overrides=["seeds=1", *miniature]), open_storage(url))
    joined = [begin("search.worker", "--study", "kernel_ablation", "--storage", url, small=False) for _ in range(2)]
    for worker in joined:
        _, told = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, told
    each_once(url, 7)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--study", "x"], "--storage URL, or STUDY_STORAGE in the environment, is needed"),
        (["--study", "x", "--storage", "sqlite:///absent.db"], "does not exist"),
        (["--study", "x", "--storage", "nonsense"], "not a database URL"),
        (["--study", "x", "--storage", "postgresql+psycopg://me:secret@127.0.0.1:1/db"], "cannot be opened"),
    ],
)
def test_a_mistake_of_a_worker_is_one_line(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.worker import main

    monkeypatch.delenv("STUDY_STORAGE", raising=False)
    assert main(args) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "secret" not in error
    assert len(error.strip().splitlines()) == 1
