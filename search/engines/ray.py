"""Workers as actors on a Ray cluster: Ray places them and starts them again, the storage knows what is to be done."""

import logging
import os
import platform
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.storages import RDBStorage
from rich.console import Console

from search.engines import Run, follow
from search.measurements import Measurements
from search.progress import LineProgress, Watcher
from search.queue import UNFINISHED, Queue
from search.storage import masked, open_storage
from search.study import Study
from search.worker import be_quiet, join
from space.errors import InputError, first_line

try:
    import ray
except ImportError as error:
    raise InputError("--engine ray needs Ray: pip install 'inceptionnext-workbench[ray]'") from error

POLL = 0.5
RESTARTS = 10  # of a worker whose node or process dies; the trial it held has a limit of its own
CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Share:
    """What a worker has of a node."""

    gpus: float
    cpus: int

    def __str__(self) -> str:
        return f"{self.gpus:g} GPUs and {self.cpus} CPUs"


class Bell:
    """Rings for all who wait: a worker that is to stop cannot be reached by a call, as it is busy with one."""

    def __init__(self) -> None:
        import asyncio

        self._rung = asyncio.Event()

    async def wait(self) -> None:
        await self._rung.wait()

    async def ring(self) -> None:
        self._rung.set()


class RayWorker:
    """One worker of a study on a node of the cluster."""

    def run(
        self,
        name: str,
        url: str,
        out: str,
        *,
        device: str,
        share: Share,
        grace: int,
        outdated: dict[str, int],
        bell: Any,
    ) -> str:
        """Work until nothing is left; return what is wrong, or nothing. The bell's ring is Ctrl-C."""
        # Ray keeps Ctrl-C from its processes.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        threading.Thread(target=_interrupted_by, args=(bell,), daemon=True).start()
        be_quiet()
        watcher = LineProgress(Console(stderr=True), 0, 0, quiet=True)
        try:
            storage = open_storage(url, create=False, grace=grace)
            worker = join(name, storage, Path(out), watcher, device=device, threads=share.cpus, outdated=outdated)
            worker.run()
        except InputError as error:
            return f"on {platform.node()}: {first_line(error)}"
        except KeyboardInterrupt:
            watcher.told("interrupted; the trial at hand was given back")
        return ""


def _interrupted_by(bell: Any) -> None:
    try:
        ray.get(bell.wait.remote())
    except ray.exceptions.RayError:
        return  # whoever could ring is gone, and with him all that is Ray's here
    os.kill(os.getpid(), signal.SIGINT)


def prepare(
    study: Study,
    url: str,
    out: Path,
    *,
    address: str | None,
    count: int | None,
    gpus: float | None,
    cpus: int,
    grace: int,
    fresh: bool = False,
) -> Run:
    """Join the Ray cluster at `address`, or start one on this machine, and return what has `count` actors work on it.

    Each has its share of a node: `cpus`, and `gpus`, 0 to 1, since a trial trains on one; None: one where the study may
    use it and there is any. Without a count, as many as the cluster holds now and the study has trials for.
    Raises InputError where no cluster answers, where no node has such a share, and for SQLite and several machines.
    """
    kind = study.device.partition(":")[0]
    if gpus is not None and (kind == "cuda") != (gpus > 0) and kind != "auto":
        raise InputError(f"--gpus-per-trial {gpus:g}: the study's device is {study.device!r}; change one of them")
    _connect(address)
    try:
        share, room = _room(kind, gpus, cpus, url)
    except InputError:
        ray.shutdown()
        raise

    def run(opened: optuna.Study, storage: RDBStorage, watcher: Watcher) -> None:
        bell: Any = ray.remote(num_cpus=0)(Bell).remote()
        made = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS)
        workers = count or min(room, max(1, _wanted(study, opened)))
        if workers > room:
            watcher.told(f"{workers} workers asked for, {room} have room now; the others wait for nodes")
        about = {
            **{"device": "cuda" if share.gpus else "cpu", "share": share, "grace": grace, "bell": bell},
            "outdated": Measurements(opened).counts() if fresh else {},
        }
        folder = str(out.absolute())
        actors: list[Any] = [made(RayWorker).remote() for _ in range(workers)]
        working = {actor.run.remote(opened.study_name, url, folder, **about): actor for actor in actors}
        try:
            _follow(working, Queue(opened, storage, watcher.told), watcher)
        except (KeyboardInterrupt, InputError):
            ray.get(bell.ring.remote())
            ray.wait(list(working), num_returns=len(working), timeout=grace)
            raise
        finally:
            ray.shutdown()

    return run


def _connect(address: str | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address not in ("local", "auto"):
        _check_answers(address)
    dashboard = False if address == "local" else None
    try:
        ray.init(address=address, include_dashboard=dashboard, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray cluster can be joined: {first_line(error)}") from error


def _room(kind: str, gpus: float | None, cpus: int, url: str) -> tuple[Share, int]:
    """Return a worker's share of a node, and how many such shares the cluster has now."""
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if gpus is None:
        gpus = float(kind == "cuda" or (kind == "auto" and any(_has(node["Resources"])[0] for node in nodes)))
    share = Share(gpus, cpus)
    room = sum(_fits(node["Resources"], share) for node in nodes)
    if room == 0:
        had = ", ".join(str(Share(*_has(node["Resources"]))) for node in nodes)
        raise InputError(
            f"--gpus-per-trial {gpus:g} --cpus-per-trial {cpus}: no node of the Ray cluster has that; they have {had}"
        )
    machines = {node["NodeManagerHostname"] for node in nodes} | {platform.node()}
    if url.startswith("sqlite") and len(machines) > 1:
        raise InputError(
            f"--storage {masked(url)}: SQLite serves one machine, and the cluster has {len(machines)}: "
            f"{', '.join(sorted(machines))}; allowed: postgresql+psycopg://..."
        )
    return share, room


def _check_answers(address: str) -> None:
    """Ask whether anybody is there: Ray itself takes minutes to find that nobody is, and ends the process."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if parts.scheme not in ("", "ray") or not parts.hostname or not parts.port:
            raise ValueError(address)
    except ValueError:
        raise InputError(f"--address {address!r}: allowed: HOST:PORT, ray://HOST:PORT, auto, local") from None
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(f"--address {address}: nobody answers there: {error.strerror or error}") from error


def _has(resources: dict[str, float]) -> tuple[float, int]:
    return resources.get("GPU", 0.0), int(resources.get("CPU", 0))


def _fits(resources: dict[str, float], share: Share) -> int:
    """Return how many such shares a node holds. A GPU is shared whole: 0.4 of one fits twice, not five times in two."""
    gpus, cpus = _has(resources)
    by_gpu = int(gpus) * int(1 / share.gpus + 1e-9) if share.gpus else cpus
    return min(by_gpu, cpus // share.cpus)


def _wanted(study: Study, opened: optuna.Study) -> int:
    """Return how many workers have something to do at the start."""
    if study.kind == "search":
        return study.trials
    return len(opened.get_trials(deepcopy=False, states=UNFINISHED))


def _follow(working: dict[Any, Any], queue: Queue, watcher: Watcher) -> None:
    """Follow what the workers finish until all have ended. Raises InputError for what is wrong where one runs."""
    look = follow(queue, watcher)
    while working:
        ended, _ = ray.wait(list(working), timeout=POLL)
        for one in ended:
            working.pop(one)
            try:
                wrong = ray.get(one)
            except ray.exceptions.RayError as error:
                watcher.told(f"a worker ended for good: {first_line(error)}")
                continue
            if wrong:
                raise InputError(wrong)
        look()
        if ended and not queue.others_run():
            return  # those that still wait for room are not needed any more
