"""Workers as processes of this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from search.queue import RETRIES, Queue

POLL = 0.5
URL = "STUDY_STORAGE"


def run_workers(
    arguments: list[str], url: str, count: int, queue: Queue, watcher: Any, look: Callable[[], None]
) -> None:
    """Keep `count` processes ``python -m search.worker ARGUMENTS`` at work until the study is over.

    The storage's URL goes by the environment: a command line, and a password in it, is for everyone to see. `look` is
    called again and again, to follow what they finish. One that dies is replaced, a few times each. On
    KeyboardInterrupt they give back what they hold, and are waited for.
    """
    command = [sys.executable, "-m", "search.worker", "--quiet", *arguments]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=os.environ | {URL: url})

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
            queue.give_back()
            look()
    except KeyboardInterrupt:
        for process in alive:
            process.terminate()
        for process in alive:
            process.wait()
        raise
