"""Commands in processes of their own, and the faults that befall them there.

The processes are copies of one that has imported everything, so they begin at once.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE = 240.0


@dataclass(frozen=True)
class Command:
    """A command at work."""

    process: ForkServerProcess
    log: Path

    def end(self) -> int:
        """Wait for its end; return its exit code, negative for a signal's number."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, self.told
        return self.process.exitcode

    @property
    def told(self) -> str:
        return self.log.read_text()


def command(folder: Path, *argv: str, module: str = "search.run", fault: str = "") -> Command:
    """Begin ``python -m module argv`` in a folder, with a fault that comes when its time is there."""
    context = multiprocessing.get_context("forkserver")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    context.set_forkserver_preload(
        ["faults", "search.analysis", "search.tracking", "search.worker", "search.engines.here"]
    )
    log = folder / f"{len(list(folder.glob('*.log')))}.log"
    log.touch()
    process = context.Process(target=_main, args=(folder, module, argv, fault, log))
    process.start()
    return Command(process, log)


def _main(folder: Path, module: str, argv: tuple[str, ...], fault: str, log: Path) -> None:
    from importlib import import_module

    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)  # locks of its own: nobody else's work is waited for
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if fault:
        globals()[fault]()
    multiprocessing.set_start_method("fork", force=True)  # as it is for a command that a person gives
    sys.exit(import_module(module).main(list(argv)))


def die(*args: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at(owner: Any, name: str, call: int, act: Callable[..., object]) -> None:
    """Let `act` happen before the so-manieth call of a function."""
    original, calls = getattr(owner, name), 0

    def replaced(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            act()
        return original(*args, **options)

    setattr(owner, name, replaced)


def _after_statements(count: int, matches: Callable[[str], bool]) -> None:
    """Die after so many statements to any database that match."""
    from sqlalchemy import Engine, event

    seen = 0

    def executed(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        nonlocal seen
        seen += matches(statement)
        if seen == count:
            die()

    event.listen(Engine, "after_cursor_execute", executed)


def dies_building() -> None:
    from search import evaluate

    _at(evaluate, "build_paired", 2, die)


def dies_measuring() -> None:
    from search import worker

    measure = worker.measure
    worker.measure = lambda *args, **options: measure(*args, **options | {"on_progress": die})


def dies_training() -> None:
    from lightning_modules.classifier import Classifier

    _at(Classifier, "training_step", 3, die)


def dies_checkpointing() -> None:
    """Dies when the file is written, before it has its name."""
    from lightning_modules import checkpoint, fit

    keeper = fit.Keeper
    fit.Keeper = lambda path, every: keeper(path, 0)  # type: ignore[assignment,misc]
    _at(checkpoint.os, "fsync", 1, die)


def dies_telling() -> None:
    """Dies when the record is written, before the trial's state is."""
    import optuna

    _at(optuna.Study, "tell", 2, die)


def dies_copying() -> None:
    from search.tracking import MlflowClient

    _at(MlflowClient, "log_batch", 2, die)


def dies_making_the_copy() -> None:
    """Dies in the midst of the changes by which MLflow brings its tables up to date."""
    _after_statements(5, lambda statement: "CREATE TABLE _alembic_tmp_" in statement)


def dies_reporting() -> None:
    from search.analysis import report

    _at(report, "_page", 1, die)


def dies_writing() -> None:
    """Dies within a transaction of the storage, once something has been written in it."""
    written = ("INSERT INTO trial_user_attributes", "UPDATE trials")
    _after_statements(40, lambda statement: statement.startswith(written))


def runs_out_of_memory() -> None:
    import torch

    from lightning_modules.classifier import Classifier

    _at(Classifier, "training_step", 1, lambda: torch.empty(2**60, dtype=torch.uint8))


def loses_a_loader() -> None:
    import psutil

    from lightning_modules.classifier import Classifier

    def kill() -> None:
        for process in psutil.Process().children():
            process.kill()

    _at(Classifier, "training_step", 2, kill)
