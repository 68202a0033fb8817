"""A study whose workers are killed at random, again and again: is anything lost, or counted twice?

    python -m benchmarks.soak
    python -m benchmarks.soak --kills 1000

Each victim gets SIGKILL at a random moment after it began: while it opens the storage, measures, trains, writes a
checkpoint or a record. It is a worker, or a search.run with its copy and report; sometimes all at once are victims. At
the end the study is completed in peace, and its record is looked through.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState

from search.analysis import load
from search.plan import open_study
from search.queue import RETRIES, is_double, is_lost, job_key
from search.storage import open_storage
from search.study import load_study
from tests.at_work import MINIATURE
from tests.faults import Command, command

NAME = "norm_ablation"
CHANGES = [*MINIATURE, "recipe.epochs=3"]
WORKERS = 2
LONGEST = 4.0  # seconds that a victim has
RUNS, ALL = 0.2, 0.1  # shares of search.run among the victims, and of kills that hit all


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="1 to 1,000 (default: %(default)s)")
    parser.add_argument("--storage", help="the URL of an empty database (default: SQLite)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not 1 <= args.kills <= 1000:
        parser.error("--kills: 1 to 1,000")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "runs").mkdir()
        return soak(Path(folder), args.storage or f"sqlite:///{folder}/runs/studies.db", args.kills, args.seed)


def soak(folder: Path, url: str, kills: int, seed: int) -> int:
    """Kill so many times, complete the study, and print the tally; return 0 where its record is whole."""
    dice, began = random.Random(seed), time.monotonic()
    seeds = max(20, 6 * kills // 10)  # more than get done meanwhile
    open_study(load_study(NAME, "laptop", [f"seeds={seeds}", *CHANGES]), open_storage(url))
    run = ["--study", NAME, "--scale", "laptop", "--seeds", str(seeds), "--storage", url, "--quiet"]
    run += [part for change in CHANGES for part in ("--set", change)]

    def begin() -> tuple[float, Command]:
        dies = time.monotonic() + dice.uniform(0, LONGEST)
        if dice.random() < RUNS:
            return dies, command(folder, *run)
        return dies, command(folder, "--study", NAME, "--storage", url, module="search.worker")

    killed: Counter[str] = Counter()
    alive = [begin() for _ in range(WORKERS)]
    while sum(killed.values()) < kills:
        time.sleep(max(0.0, min(dies for dies, _ in alive) - time.monotonic()))
        everybody = dice.random() < ALL
        victims = [one for one in alive if everybody or one[0] <= time.monotonic()]
        for one in victims:
            one[1].process.kill()
            killed["ended before" if one[1].end() >= 0 else "killed"] += 1
            alive.remove(one)
        alive += [begin() for _ in victims]
    for _, last in alive:
        last.process.kill()
        last.end()
    done_before = len(trials(url, TrialState.COMPLETE))
    last = command(folder, *run)
    last.process.join()
    code = last.process.exitcode or 0
    told = [one.read_text() for one in folder.glob("*.log")]
    return tally(url, 2 * seeds, code, done_before, killed, [*told, last.told], time.monotonic() - began)


def trials(url: str, state: TrialState) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=f"{NAME}-laptop", storage=url)
    return study.get_trials(deepcopy=False, states=(state,))


def tally(
    url: str, wanted: int, code: int, done_before: int, killed: Counter[str], told: list[str], seconds: float
) -> int:
    """Look through the record."""
    frame = load(NAME, storage=url)
    complete, failed = trials(url, TrialState.COMPLETE), trials(url, TrialState.FAIL)
    doubles, tried = (list(filter(kind, failed)) for kind in (is_double, is_lost))
    jobs = Counter(map(job_key, complete))
    given_up = int((frame["state"] == "FAIL").sum())
    checks = {
        "every trial is there once": len(frame) == wanted and not frame.duplicated(["arm", "seed"]).any(),
        "none was completed twice": max(jobs.values()) == 1,
        "each is complete, or was tried as often as is allowed": len(complete) + given_up == wanted,
        "each that is complete has its whole record": bool(
            frame.loc[frame.state == "COMPLETE", "test_accuracy"].notna().all()
        ),
        "none failed by itself": len(doubles) + len(tried) == len(failed),
        "nobody ended by a traceback": not any("Traceback" in text for text in told),
        "the last command ended well": code == 0,
    }
    print(f"kills                {killed['killed']}, and {killed['ended before']} who had ended before")
    print(f"trials               {wanted} wanted; {done_before} complete when the killing stopped, {len(complete)} now")
    print(f"tried again          {len(tried) - given_up} times; {given_up} given up after {RETRIES + 1} tries")
    print(f"doubles set aside    {len(doubles)}, of trials that two wanted to try again")
    print(f"time                 {seconds:.0f} s")
    for text, holds in checks.items():
        print(f"{'yes' if holds else 'NO':4s} {text}")
    if code != 0:
        print(f"it ended by {code} and told: {told[-1]}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
