"""The locks, across real processes."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.throughput import quiet

HOLD = """
import sys
from search.throughput import quiet
with getattr(quiet, sys.argv[1])("cpu", lambda: print("waits", flush=True)):
    print("holds", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


class Holder:
    def __init__(self, kind: str) -> None:
        command = [sys.executable, "-c", HOLD, kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.process.wait(timeout=60)


@pytest.fixture
def holders() -> Iterator[list[Holder]]:
    started: list[Holder] = []
    yield started
    for holder in started:
        holder.process.kill()
        holder.process.wait()


def test_a_measurement_waits_for_trainings_and_new_trainings_wait_for_it(holders: list[Holder]) -> None:
    first, second = Holder("training"), Holder("training")
    holders += [first, second]
    assert (first.says(), second.says()) == ("holds", "holds")  # trainings share a device
    measuring = Holder("measuring")
    holders.append(measuring)
    assert measuring.says() == "waits"
    late = Holder("training")
    holders.append(late)
    assert late.says() == "waits"  # else a measurement might wait for ever
    first.release()
    second.release()
    assert measuring.says() == "holds"
    measuring.release()
    assert late.says() == "holds"


def test_a_killed_holder_leaves_no_lock_behind(holders: list[Holder]) -> None:
    holder = Holder("measuring")
    holders.append(holder)
    assert holder.says() == "holds"
    waited: list[bool] = []
    os.kill(holder.process.pid, signal.SIGKILL)
    with quiet.measuring("cpu", lambda: waited.append(True)):
        pass
    assert len(waited) <= 1  # perhaps it was still dying


def test_locks_are_free_again_after_an_error() -> None:
    for hold in (quiet.measuring, quiet.training):
        with pytest.raises(RuntimeError), hold("cpu"):
            raise RuntimeError
    with quiet.measuring("cpu", lambda: pytest.fail("had to wait")):
        pass
