"""How many trials a storage hands out: claims a second, and the share of their time that workers wait for it.

    python -m benchmarks.queue_throughput

Workers are processes of this machine whose trials take no time: each claims one, writes a record such as a real trial
leaves, and tells its end, until none is left. So they do nothing but use the storage, which is the worst case: workers
that train meet there only between trials. SQLite and PostgreSQL, which both bring each claim to the disk, take turns in
each round. All have joined, and done one trial, before the clock starts.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from pytest_postgresql.janitor import DatabaseJanitor

from search import storage as store
from search.queue import Queue
from tests.servers import postgresql, postgresql_programs
from tests.trial_records import record

NAME = "claims-benchmark"
WORKERS = (1, 8, 64)
SHARE = 0.01  # of a worker's time that the storage may take


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=256, help="in each study (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, list[dict[str, float]]] = {}
    with databases() as kinds:
        for turn in range(args.rounds):
            for workers in WORKERS:
                for kind, make in kinds.items():
                    with make() as url:
                        one = measured(url, workers, args.trials)
                    found.setdefault(f"{kind}, {workers} workers", []).append(one)
                    print(
                        f"round {turn + 1}: {kind}, {workers} workers: {one['claims_per_s']:.1f} claims/s", flush=True
                    )
    print(f"\n{'':26s} claims/s [least … most]   waiting   1 % of trials of")
    for name, rounds in found.items():
        rates = [one["claims_per_s"] for one in rounds]
        length = statistics.median(one["seconds_a_claim"] for one in rounds) * (1 - SHARE) / SHARE
        idle = statistics.median(one["waiting_share"] for one in rounds)
        middle = statistics.median(rates)
        print(f"{name:26s} {middle:8.1f} [{min(rates):.1f} … {max(rates):.1f}]  {idle:7.0%}   {length:8.0f} s")
    if args.out is not None:
        args.out.write_text(json.dumps({"trials": args.trials, "rounds": found}, indent=1) + "\n")
    return 0


@contextmanager
def databases() -> Iterator[dict[str, Any]]:
    """Give, by kind, what makes an empty storage."""

    @contextmanager
    def sqlite() -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/studies.db"

    programs = postgresql_programs()
    if programs is None:
        print("PostgreSQL's programs are not installed; SQLite alone is measured", file=sys.stderr)
        yield {"SQLite": sqlite}
        return
    with postgresql(programs, fsync=True, connections=200) as server:

        @contextmanager
        def postgres() -> Iterator[str]:
            name, host = f"claims_{uuid4().hex}", "127.0.0.1"
            with DatabaseJanitor(user="postgres", host=host, port=server.port, dbname=name):
                yield f"postgresql+psycopg://postgres@{host}:{server.port}/{name}"

        yield {"SQLite": sqlite, "PostgreSQL": postgres}


def measured(url: str, workers: int, trials: int) -> dict[str, float]:
    """Return claims a second, seconds that one takes its worker, and the share of them that it waits, of one study."""
    storage = store.open_storage(url)
    study = optuna.create_study(study_name=NAME, storage=storage, directions=["maximize", "maximize"])
    for seed in range(trials + workers):
        study.enqueue_trial({}, user_attrs={"arm": "base", "seed": seed, "baseline": True})
    storage.engine.dispose()
    context = multiprocessing.get_context("fork")
    start, times = context.Barrier(workers), context.Queue()
    processes = [context.Process(target=work, args=(url, start, times)) for _ in range(workers)]
    for process in processes:
        process.start()
    spent = [times.get() for _ in processes]
    for process in processes:
        process.join()
    done = sum(count for count, _, _, _ in spent)
    assert done == trials, spent
    lived = sum(ended - began for _, began, ended, _ in spent)
    return {
        "claims_per_s": trials / (max(ended for _, _, ended, _ in spent) - min(began for _, began, _, _ in spent)),
        "seconds_a_claim": lived / trials,
        "waiting_share": 1 - sum(busy for _, _, _, busy in spent) / lived,
    }


def work(url: str, start: Any, times: Any) -> None:
    """Do one trial to join, then all there are; hand over their number, the time before and after, and the CPU's."""
    storage = store.open_storage(url)
    queue = Queue(optuna.load_study(study_name=NAME, storage=storage), storage, print)
    done = 0
    for trial in iter(queue.claim, None):
        finish(queue, trial)
        if done == 0:
            start.wait()
            began = ended = time.perf_counter()
            cpu = busy = time.process_time()
        else:
            ended, busy = time.perf_counter(), time.process_time()
        done += 1
    times.put((done - 1, began, ended, busy - cpu))


def finish(queue: Queue, trial: optuna.Trial) -> None:
    """Leave what a worker leaves of a trial."""
    left = record("base", trial.user_attrs["seed"], 90.0, 1000.0)
    new = {name: one for name, one in left.items() if name not in ("arm", "seed", "baseline")}
    store.set_attrs(queue.storage, trial._trial_id, new)
    queue.opened.tell(trial, [90.0, 1.0])


if __name__ == "__main__":
    sys.exit(main())
