"""Studies that run in processes of their own, to be killed where it hurts."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search.analysis import load
from search.queue import job_key
from search.storage import find_study, open_storage
from space.errors import InputError

ROOT = Path(__file__).parents[1]
PATIENCE = 240.0
LONG = ("--set", "recipe.epochs=60")  # so that a worker is met at work
# Overrides that bring a study at laptop scale down to fractions of a second a trial.
MINIATURE = [
    "recipe.epochs=1",
    "recipe.warmup_epochs=0",
    "recipe.batch_size=32",
    "data.train_size=64",
    "data.val_size=32",
    "data.test_size=32",
    "throughput.min_rounds=2",
    "throughput.max_rounds=2",
    "throughput.batch_size=4",
    "throughput.block_seconds=0.001",
    "throughput.warmup_seconds=0",
]
Begin = Callable[..., subprocess.Popen[str]]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def heed_interrupts() -> None:
    """Undo, in a process about to begin, that shells start background jobs, which tests may be, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for something that a running process brings about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "it ended first"
        assert time.monotonic() < end, "it never came about"


class Holders:
    """Tells which processes hold trials of a study that is, or will be, in a storage."""

    def __init__(self, url: str, study: str = "kernel_ablation") -> None:
        self.url, self.study = url, study
        self._storage: RDBStorage | None = None  # one, since each keeps a connection

    def __call__(self) -> list[int]:
        try:
            self._storage = self._storage or open_storage(self.url, create=False, write=False)
            trials = find_study(self.study, self._storage).get_trials(deepcopy=False)
        except InputError:  # not there yet
            return []
        held = [trial.user_attrs.get("worker") for trial in trials if trial.state is TrialState.RUNNING]
        return [int(name.rsplit(":", 2)[1]) for name in held if name is not None]


def each_once(url: str, count: int, study: str = "kernel_ablation") -> None:
    """Check that every trial of a study is complete, once, and that nothing was done beside its repetition."""
    frame = load(study, storage=url)
    assert frame["state"].tolist() == ["COMPLETE"] * count
    assert not frame.duplicated(["arm", "seed"]).any()
    trials = optuna.load_study(study_name=f"{study}-laptop", storage=url).get_trials()
    done = [job_key(trial) for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(done) == len(set(done)) == count
