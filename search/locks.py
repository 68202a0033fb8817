"""Locks between the processes of a machine. The kernel frees those of a process that dies, however it dies."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from space.errors import InputError

FOLDER = "inceptionnext-workbench-locks"


@contextmanager
def locked(name: str, *, shared: bool = False, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of a name, alone or shared with others that share it. `on_wait` is called if it must be waited for.

    Raises InputError where no lock can be made.
    """
    folder = Path(tempfile.gettempdir()) / FOLDER
    try:
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o1777)  # other people's processes disturb a measurement as well as one's own
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(
            f"{folder}: no lock can be made there: {error.strerror}; set TMPDIR to another folder"
        ) from error
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
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


def named(*parts: str) -> str:
    """Return the name of a lock for what the parts tell."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
