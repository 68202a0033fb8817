"""What people get wrong: one line says it, the exit code is 2, and nothing is written anywhere."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from malformed_files import broken_files

from search.cli import STORAGE
from search.plan import open_study
from search.run import main as run
from search.storage import open_storage
from search.study import load_study

HERE = Path(__file__).with_name("malformed")
GENERATED = 60
FINE = "question: Does depth help?\narms: {baseline: {}, deep: {change: {depths.0: 5}}}\n"


@dataclass(frozen=True)
class Case:
    """A command line, the files beside it, and what the line that it earns must hold."""

    name: str
    module: str
    args: list[str]
    told: list[str]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    folder: str | None = None
    usage: bool = False
    storage: bool = True


def hand_written() -> Iterator[Case]:
    for file, make in (("studies", of_study), ("scales", of_scale), ("overrides", of_override), ("urls", of_url)):
        for given in entries(file):
            module, args, files = "run", *make(given)
            rest = {"files": files | given.get("files", {}), "folder": given.get("folder"), "told": given["told"]}
            yield Case(f"{file}: {given['name']}", module, args, storage="storage" not in given, **rest)
    for given in entries("commands"):
        name, module = f"commands: {given.pop('name')}", given.pop("run")
        yield Case(name, module, storage=given.pop("storage", "there") == "there", **given)


def entries(file: str) -> Iterator[dict[str, Any]]:
    """Yield the cases of a file, LONG in them replaced by a number of so many digits."""
    for given in yaml.safe_load((HERE / f"{file}.yaml").read_text()):
        length = given.pop("long", 0)
        yield {key: longer(value, "9" * length) if length else value for key, value in given.items()}


def longer(value: Any, text: str) -> Any:
    return [longer(one, text) for one in value] if isinstance(value, list) else value.replace("LONG", text)


def of_study(given: dict[str, Any]) -> tuple[list[str], dict[str, str | bytes]]:
    return ["--study", "study.yaml"], {"study.yaml": given["bytes"] if "bytes" in given else given["text"]}


def of_scale(given: dict[str, Any]) -> tuple[list[str], dict[str, str | bytes]]:
    return ["--study", "fine.yaml", "--scale", "scale.yaml"], {"fine.yaml": FINE, "scale.yaml": given["text"]}


def of_override(given: dict[str, Any]) -> tuple[list[str], dict[str, str | bytes]]:
    changes = [part for change in given["set"] for part in ("--set", change)]
    return ["--study", given.get("study", "kernel_ablation"), *changes], {}


def of_url(given: dict[str, Any]) -> tuple[list[str], dict[str, str | bytes]]:
    url = ("--tracking-uri", given["tracking"]) if "tracking" in given else ("--storage", given["storage"])
    return ["--study", "kernel_ablation", *url], {}


def generated() -> Iterator[Case]:
    for one in broken_files(GENERATED):
        make = of_study if one.kind == "study" else of_scale
        args, files = make({"text": one.text})
        yield Case(f"generated: {one.name}", "run", args, [f"{one.kind}.yaml", one.told], files)


CASES = [*hand_written(), *generated()]


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a study whose trials wait, and one that another program made."""
    file = tmp_path_factory.mktemp("stored") / "studies.db"
    storage = open_storage(f"sqlite:///{file}")
    open_study(load_study("norm_ablation"), storage)
    optuna.create_study(study_name="foreign", storage=storage)
    storage.engine.dispose()
    return file


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a mistake that goes unnoticed fail the test at once, not train for minutes."""

    def noticed_too_late(*args: Any, **options: Any) -> None:
        raise AssertionError("the mistake was not noticed")

    for place in ("search.worker.Worker.run", "search.worker.Worker.measure", "search.throughput.quiet.measuring"):
        monkeypatch.setattr(place, noticed_too_late)
    monkeypatch.delenv(STORAGE, raising=False)


def test_there_are_many_cases_each_with_a_name_of_its_own() -> None:
    assert len(CASES) >= 100
    assert len({case.name for case in CASES}) == len(CASES)


def test_what_is_generated_is_the_same_each_time() -> None:
    assert broken_files(GENERATED) == broken_files(GENERATED)
    assert broken_files(GENERATED, seed=1) != broken_files(GENERATED)


def test_the_study_beside_a_broken_scale_is_well(write_study: Callable[..., str]) -> None:
    assert load_study(write_study(FINE)).seeds == 3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_told_in_one_line_and_leaves_no_trace(
    case: Case,
    stored: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    for name, content in case.files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if case.folder is not None:
        (tmp_path / case.folder).mkdir()
    args = [one.replace("{folder}", str(tmp_path)) for one in case.args]
    if case.storage and not case.usage:
        args += ["--storage", f"sqlite:///{stored}"]
    before = traces(tmp_path), traces(stored.parent)
    with chdir(tmp_path):
        try:
            code = import_module(f"search.{case.module}").main(args)
        except SystemExit as error:  # argparse's way
            assert case.usage
            code = error.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    lines = err.splitlines()
    assert [line for line in lines if "error: " in line] == lines[-1:]
    assert lines[-1].startswith(f"python -m search.{case.module}: error: " if case.usage else "error: ")
    assert case.usage or len(lines) == 1
    # Outside of the tests, warnings would be further lines; only those for developers are not shown.
    assert [one for one in recwarn if not issubclass(one.category, DeprecationWarning)] == []
    assert len(lines[-1]) < 2100
    for told in case.told:
        assert told in lines[-1]
    assert "Traceback" not in err
    assert ":secret" not in err
    assert "=secret" not in err
    assert (traces(tmp_path), traces(stored.parent)) == before


def test_the_database_of_another_program_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
    database.close()
    before = traces(tmp_path)
    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with chdir(tmp_path):
        assert run(["--study", "kernel_ablation", "--storage", url]) == 2
    assert capsys.readouterr().err == f"error: --storage {url}: is another program's database, perhaps MLflow's\n"
    assert traces(tmp_path) == before


def traces(folder: Path) -> dict[str, str | None]:
    """Return every file and folder in it, with its content's hash."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
