"""Workers that do nothing but claim."""

import multiprocessing
import os
import signal
from typing import Any

import optuna

from search.queue import Queue
from search.storage import GRACE, open_storage
from space.errors import InputError

NAME = "mine-laptop"


def forks() -> multiprocessing.context.ForkContext:
    """Return where to make processes: copies of this one, which need not import everything anew."""
    return multiprocessing.get_context("fork")


def queue(url: str, grace: int = GRACE) -> tuple[Queue, list[str]]:
    """Return the queue of another worker, and what it tells."""
    told: list[str] = []
    storage = open_storage(url, grace=grace)
    return Queue(optuna.load_study(study_name=NAME, storage=storage), storage, told.append), told


def open_new(url: str, together: Any, out: Any) -> None:
    """Open a storage that is not made yet at the same moment as others; put what goes wrong into `out`."""
    together.wait()
    try:
        open_storage(url).engine.dispose()
        out.put("")
    except InputError as error:
        out.put(str(error))


def claim_all(url: str, out: Any) -> None:
    own, _ = queue(url)
    while (trial := own.claim()) is not None:
        out.put((os.getpid(), trial.number))
        own.opened.tell(trial, [1.0, 1.0])


def claim_and_die(url: str) -> None:
    own, _ = queue(url)
    assert own.claim() is not None
    os.kill(os.getpid(), signal.SIGKILL)
