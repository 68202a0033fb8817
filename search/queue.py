"""The queue: which trials wait, which worker holds one, and what becomes of those whose worker died.

Optuna's storage does most of it. What is added on top of it: every trial that runs has a sign of life, since one
without any is never found to be dead, and none from the future, where a clock was set back; signs of life go on when
the storage was away for a while; a trial that was failed but not yet enqueued again is; and of trials that were
enqueued twice, by two who started at once, one is run.
"""

import copy
import json
import math
import os
import platform
import random
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

import optuna
import psutil
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

RETRIES = 2
LOOK = 5.0  # seconds between looks at whether workers died, while trials wait
warnings.filterwarnings("ignore", category=ExperimentalWarning)  # heartbeats are, since 2021
retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
FINISHED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
UNFINISHED = (TrialState.WAITING, TrialState.RUNNING)


def job_key(trial: FrozenTrial) -> Hashable:
    """Name what a trial is to find out: of a search an architecture, else an arm, and the seed."""
    arm, seed = trial.user_attrs.get("arm"), trial.user_attrs.get("seed")
    if arm is not None and not str(arm).startswith("trial "):
        return arm, seed
    first = trial.system_attrs.get("failed_trial", trial.number)
    return trial.user_attrs.get("fingerprint", first), seed or 0


def first_trials(trials: Iterable[FrozenTrial]) -> dict[str, int]:
    """Return, of each architecture by its fingerprint, the number of its first trial: a search names it by that."""
    found: dict[str, int] = {}
    for trial in trials:
        if "fingerprint" in trial.user_attrs and not is_double(trial):
            found.setdefault(trial.user_attrs["fingerprint"], trial.number)
    return found


def is_lost(trial: FrozenTrial) -> bool:
    """Say whether a trial failed because its worker died, or part of it: who fails by itself says why."""
    return trial.state is TrialState.FAIL and "failure" not in trial.user_attrs


def is_over(trial: FrozenTrial) -> bool:
    """Say whether a trial has ended, and will not be tried again."""
    return trial.state in FINISHED and not (is_lost(trial) and _tries_left(trial))


def is_double(trial: FrozenTrial) -> bool:
    """Say whether a trial was set aside since another one finds out the same."""
    return "double_of" in trial.user_attrs


def counted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return one trial a job: the first that is not lost, or the last that is."""
    found: dict[Hashable, FrozenTrial] = {}
    for trial in trials:
        if is_double(trial):
            continue
        name = job_key(trial)
        if name not in found or is_lost(found[name]):
            found[name] = trial
    return sorted(found.values(), key=lambda trial: trial.number)


class Queue:
    """One worker's hold on a study's trials."""

    def __init__(self, opened: optuna.Study, storage: RDBStorage, tell: Callable[[str], None]) -> None:
        self.opened, self.storage, self.tell = opened, storage, tell
        self._settled: set[int] = set()
        self._shown: set[int] = set()
        self._held: int | None = None
        self._jobs: dict[int, Hashable] = {}
        self._sizes: Counter[Hashable] = Counter()
        self._looked = -math.inf
        self._dice = random.Random()  # not the one that trainings draw from

    def claim(self) -> optuna.Trial | None:
        """Claim a trial that waits, so that nobody else runs it, or return None."""
        if time.monotonic() - self._looked > LOOK:
            self.give_back()
        if (found := self._take()) is None:
            self.give_back()
            found = self._take()
        return found

    def _take(self) -> optuna.Trial | None:
        unfinished = self._unfinished()
        waiting = [(number, id_) for number, id_, state in unfinished if state == TrialState.WAITING.name]
        # As many as work already do not all reach for the first one; who works alone, keeps to the order.
        first = self._dice.randrange(min(len(waiting), len(unfinished) - len(waiting) + 1)) if waiting else 0
        for number, id_ in waiting[first:] + waiting[:first]:
            if (same := self._first_of_job(number)) != number:
                self._set_aside(id_, same)
                continue
            self.storage.record_heartbeat(id_)
            self._held = id_
            try:
                claimed = self.storage.set_trial_state_values(id_, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                continue
            if claimed:
                self.storage.set_trial_user_attr(id_, "worker", own_name())
                return optuna.Trial(self.opened, id_)
        return None

    def _unfinished(self) -> list[tuple[int, int, str]]:
        """Return number, the storage's own number, and state of each trial that is not finished, in their order."""
        query = "SELECT number, trial_id, state FROM trials WHERE study_id = :study AND state IN ('WAITING', 'RUNNING')"
        return [(number, id_, state) for number, id_, state in self._rows(f"{query} ORDER BY number")]

    def _first_of_job(self, number: int) -> int:
        """Return which of the trials that find out the same is to be run."""
        if number not in self._jobs:
            self._jobs = {trial.number: job_key(trial) for trial in self.opened.get_trials(deepcopy=False)}
            self._sizes = Counter(self._jobs.values())
        job = self._jobs[number]
        if self._sizes[job] == 1:
            return number
        return next(t.number for t in counted(self.opened.get_trials(deepcopy=False)) if job_key(t) == job)

    def give_back(self) -> None:
        """Enqueue again what dead workers held: at once where they lived here, else when signs of life stay away."""
        self._looked = time.monotonic()
        for id_, worker in self._running():
            if worker is None and id_ not in self._shown:
                # Its worker may have died before it gave its name, and before any sign of life.
                self._shown.add(id_)
                self.storage.record_heartbeat(id_)
            if died_here(worker):
                with suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_state_values(id_, TrialState.FAIL)
        self._forget_the_future()
        fail_stale_trials(self.opened)
        # Whoever failed a trial may have died before enqueuing it again, so this goes by what is there.
        failed = {n for (n,) in self._rows("SELECT number FROM trials WHERE study_id = :study AND state = 'FAIL'")}
        if failed <= self._settled:
            return
        trials = self.opened.get_trials(deepcopy=False)
        tried = {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}
        for trial in counted(trials):
            if is_lost(trial) and trial.number not in tried and trial.number not in self._settled:
                self._try_again(trial)
        self._settled |= failed

    def _try_again(self, trial: FrozenTrial) -> None:
        again = _tries_left(trial)
        what = "it is tried again" if again else f"given up after {RETRIES + 1} times"
        self.tell(f"trial {trial.number} ({_named(trial)}): {trial.user_attrs.get('lost', 'its worker died')}; {what}")
        if again:
            fresh = copy.deepcopy(trial)
            # Whoever is named as its worker and dead, has it taken away.
            fresh.user_attrs = {name: one for name, one in trial.user_attrs.items() if name not in ("worker", "lost")}
            retry(self.opened, fresh)

    def _running(self) -> list[tuple[int, str | None]]:
        """Return the storage's own number of each trial that runs, and its worker's name."""
        query = """
            SELECT trials.trial_id, value_json FROM trials
            LEFT JOIN trial_user_attributes AS named ON named.trial_id = trials.trial_id AND named.key = 'worker'
            WHERE study_id = :study AND state = 'RUNNING'
        """
        return [(id_, json.loads(name) if name is not None else None) for id_, name in self._rows(query)]

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds in the study. Optuna would read all that is known of each trial, and take long."""
        with self._transaction() as connection:
            return [tuple(row) for row in connection.execute(text(query), {"study": self.opened._study_id})]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Begin a transaction. Raises StorageInternalError, as Optuna does, where the database went away."""
        try:
            with self.storage.engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StorageInternalError("the database cannot be used") from error

    def others_run(self) -> bool:
        """Say whether any trial is unfinished."""
        return bool(self._unfinished())

    def lose(self, trial: optuna.Trial, why: str) -> None:
        """Give up a trial of one's own that failed for no fault of its own: it is tried again."""
        trial.set_user_attr("lost", why)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def let_go(self) -> None:
        """Put what one holds back into the queue, if anything, at whatever point one was interrupted."""
        if self._held is None:
            return
        trial = self.storage.get_trial(self._held)
        if trial.state is TrialState.RUNNING and trial.user_attrs.get("worker") in (None, own_name()):
            self.storage.set_trial_user_attr(self._held, "worker", None)
            self.storage.set_trial_state_values(self._held, TrialState.WAITING)

    def _forget_the_future(self) -> None:
        """Date signs of life from the future, left by a clock that was set back since, to now: else they never age."""
        with self._transaction() as connection:
            late = "SELECT trial_id FROM trial_heartbeats WHERE heartbeat > CURRENT_TIMESTAMP"
            for (id_,) in connection.execute(text(late)).all():
                update = "UPDATE trial_heartbeats SET heartbeat = CURRENT_TIMESTAMP WHERE trial_id = :id"
                connection.execute(text(update), {"id": id_})

    def _set_aside(self, id_: int, same: int) -> None:
        try:
            self.storage.set_trial_user_attr(id_, "double_of", same)
            self.storage.set_trial_user_attr(id_, "failure", f"enqueued twice; see trial {same}")
            self.storage.set_trial_state_values(id_, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return


class SignsOfLife:
    """Lets the storage know, while a trial runs, that its worker lives; `lost` is set when it was given up anyway.

    Goes on where the storage cannot be reached for a while, which Optuna's own thread does not.
    """

    def __init__(self, storage: RDBStorage, id_: int) -> None:
        self.storage, self.id_ = storage, id_
        self.lost, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        interval = self.storage.get_heartbeat_interval()
        while not self._over.wait(interval):
            try:
                if self.storage.get_trial(self.id_).state is not TrialState.RUNNING:
                    self.lost.set()
                    return
                self.storage.record_heartbeat(self.id_)
            except (StorageInternalError, OSError):
                continue


def own_name() -> str:
    """Name this process so that another can tell whether it still lives."""
    return f"{_machine()}:{os.getpid()}:{_born(os.getpid())}"


def died_here(worker: str | None) -> bool:
    """Say whether the process of that name lived on this machine, and is dead."""
    if worker is None:
        return False
    machine, pid, born = worker.rsplit(":", 2)
    if machine != _machine():
        return False  # another machine's: its signs of life tell
    try:
        return _born(int(pid)) != born
    except (OSError, psutil.NoSuchProcess):
        return True


@cache
def _machine() -> str:
    """Name the machine, until it is started anew, and the container: where a process number means one process."""
    if not Path("/proc/self/ns/pid").exists():
        return platform.node()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return f"{platform.node()}/{boot}/{Path('/proc/self/ns/pid').readlink().name[5:-1]}"


def _born(pid: int) -> str:
    """Say when a process began, by a clock that nobody sets. Raises OSError or NoSuchProcess where none lives."""
    if not Path("/proc/self/stat").exists():
        return f"{psutil.Process(pid).create_time():.2f}"
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)  # dead, and not yet taken note of by its parent
    return fields[19]  # ticks since the machine was started


def _tries_left(trial: FrozenTrial) -> bool:
    return len(trial.system_attrs.get("retry_history", [])) < RETRIES


def _named(trial: FrozenTrial) -> str:
    return f"{trial.user_attrs.get('arm', 'not begun')}, seed {trial.user_attrs.get('seed', 0)}"
