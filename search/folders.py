"""Folders that a mistake leaves no trace of."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder; where what follows fails, remove what was made for it and is empty still."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except Exception:
        with suppress(OSError):
            for one in missing:
                one.rmdir()
        raise
