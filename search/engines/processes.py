"""Workers as processes of this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from search import cli
from search.engines import Run, follow
from search.measurements import Measurements
from search.progress import Watcher
from search.queue import RETRIES, Queue
from search.study import Study
from search.worker import Worker

POLL = 0.5


def prepare(study: Study, url: str, out: Path, *, count: int, grace: int, fresh: bool = False) -> Run:
    """Return what keeps `count` processes ``python -m search.worker`` at work until the study is over.

    Throughput is measured before they begin, all of it again where `fresh`. One that dies is replaced, a few times
    each. On KeyboardInterrupt they give back what they hold, and are waited for.
    Raises InputError for data or a device that is not there.
    """
    data, device = study.load_data(), study.find_device()

    def run(opened: optuna.Study, storage: RDBStorage, watcher: Watcher) -> None:
        Worker(
            *(study, opened, storage),
            data=data,
            device=device,
            workdir=out,
            watcher=watcher,
            outdated=Measurements(opened).counts() if fresh else {},
        ).measure()
        threads = max(1, (os.cpu_count() or 1) // count)
        arguments = [
            *("--study", opened.study_name, "--out", str(out), "--device", device),
            *("--threads", str(threads), "--grace", str(grace)),
        ]
        _keep(arguments, url, count, Queue(opened, storage, watcher.told), watcher)

    return run


def _keep(arguments: list[str], url: str, count: int, queue: Queue, watcher: Watcher) -> None:
    """Keep so many processes at work, and follow what they finish."""
    command = [sys.executable, "-m", "search.worker", "--quiet", *arguments]
    look = follow(queue, watcher)

    def start() -> subprocess.Popen[bytes]:
        # The URL goes by the environment: a command line, and a password in it, is for everyone to see.
        return subprocess.Popen(command, env=os.environ | {cli.STORAGE: url})

    alive = [start() for _ in range(count)]
    spare = RETRIES * count
    try:
        while alive:
            time.sleep(POLL)
            ended = [process for process in alive if process.poll() is not None]
            for process in ended:
                alive.remove(process)
                if process.returncode == 0 or not queue.others_run():
                    continue
                told = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
                watcher.told(f"worker {process.pid} ended by {told}" + ("; another takes its place" if spare else ""))
                if spare:
                    spare -= 1
                    alive.append(start())
            look()
    except KeyboardInterrupt:
        for process in alive:
            process.terminate()
        for process in alive:
            process.wait()
        raise
