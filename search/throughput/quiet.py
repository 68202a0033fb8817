"""Quiet: one measurement at a time on a device, and none beside a training, across all processes of a machine."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from space.errors import InputError

FOLDER = "inceptionnext-workbench-locks"


@contextmanager
def measuring(device: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Have the device alone: waits until trainings and measurements on it are over. `on_wait` is called if so.

    The kernel frees the locks of a process that dies, however it dies.
    """
    # The gate keeps new trainings from starting while a measurement waits; else it might wait for ever.
    with _locked(device, "gate", fcntl.LOCK_EX, on_wait), _locked(device, "device", fcntl.LOCK_EX, on_wait):
        yield


@contextmanager
def turn(device: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Take turns in deciding what is to be measured: whoever waits here may find it measured by then."""
    with _locked(device, "turn", fcntl.LOCK_EX, on_wait):
        yield


@contextmanager
def training(device: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Share the device with other trainings: waits until no measurement runs on it or waits for it."""
    with _locked(device, "gate", fcntl.LOCK_SH, on_wait):
        held = _locked(device, "device", fcntl.LOCK_SH, on_wait)
        held.__enter__()
    try:
        yield
    finally:
        held.__exit__(None, None, None)


@contextmanager
def _locked(device: str, what: str, kind: int, on_wait: Callable[[], None] | None) -> Iterator[None]:
    folder = Path(tempfile.gettempdir()) / FOLDER
    try:
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o1777)  # other people's processes disturb a measurement as well as one's own
        handle = os.open(folder / f"{_unit(device)}.{what}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(
            f"{folder}: no lock can be made there: {error.strerror}; set TMPDIR to another folder"
        ) from error
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)


def _unit(device: str) -> str:
    """Return a name that all processes have for a device, whatever its number is in theirs."""
    if torch.device(device).type == "cuda":
        return f"gpu-{torch.cuda.get_device_properties(device).uuid}"
    return "cpu"
