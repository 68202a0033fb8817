"""A real PostgreSQL server for the tests, from the machine's own programs."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDERS = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *Path("/usr/pgsql").glob("*/bin"))


def postgresql_programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, or None where PostgreSQL is not installed."""
    found = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *map(str, FOLDERS)]))
    return Path(found).resolve().parent if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that can go away and come back."""

    port: int
    start: Callable[[], None]
    stop: Callable[[], None]


@contextmanager
def postgresql(programs: Path, *, fsync: bool = False, connections: int = 100) -> Iterator[Server]:
    """Run a server on loopback. The superuser is ``postgres``, without a password."""
    # PostgreSQL refuses to run as root, and its data must not lie below pytest's folder, which is root's alone.
    owner = "nobody" if os.geteuid() == 0 else None
    folder = tempfile.mkdtemp(prefix="postgresql-")
    if owner:
        shutil.chown(folder, owner)
    data, port = f"{folder}/data", free_port()

    def call(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, "-D", data, *arguments],
            user=owner,
            extra_groups=[] if owner else None,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    try:
        call("initdb", "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8")
        options = (
            f"-h 127.0.0.1 -p {port} -k {folder} -c fsync={'on' if fsync else 'off'} -c max_connections={connections}"
        )

        def start() -> None:
            call("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")

        def stop() -> None:
            call("pg_ctl", "-w", "-m", "immediate", "stop")

        start()
        try:
            yield Server(port, start, stop)
        finally:
            stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
