"""Claims, signs of life and repetitions, on real storages, with faults that are injected for real."""

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from claimers import NAME, claim_all, claim_and_die, forks, open_new, queue
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import text
from trial_records import record

from search.analysis import load
from search.queue import RETRIES, Queue, SignsOfLife, counted, died_here, own_name
from search.storage import open_storage

both = pytest.mark.parametrize("storage_url", ["sqlite", "postgresql"], indirect=True)


def planned(url: str, seeds: int, times: int = 1) -> tuple[optuna.Study, RDBStorage]:
    """Return a study with a waiting trial a seed, each enqueued so many times."""
    storage = open_storage(url)
    study = optuna.create_study(study_name=NAME, storage=storage, directions=["maximize", "maximize"])
    study.set_user_attr("definition", {"kind": "ablation", "baseline": "base"})
    for _ in range(times):
        for seed in range(seeds):
            study.enqueue_trial({}, user_attrs={"arm": "base", "seed": seed, "baseline": True})
    return study, storage


def finish(held: Queue, trial: optuna.Trial, accuracy: float = 90.0) -> None:
    attrs = record("base", trial.user_attrs["seed"], accuracy, 1000.0)
    for name, value in attrs.items():
        trial.set_user_attr(name, value)
    held.opened.tell(trial, [accuracy, 1.0])


@both
def test_who_make_a_storage_at_once_share_it(storage_url: str) -> None:
    context = forks()
    together, out = context.Barrier(6), context.Queue()
    workers = [context.Process(target=open_new, args=(storage_url, together, out)) for _ in range(6)]
    for worker in workers:
        worker.start()
    assert [out.get(timeout=120) for _ in workers] == [""] * 6
    for worker in workers:
        worker.join()


@both
def test_no_trial_is_claimed_twice(storage_url: str) -> None:
    planned(storage_url, 40)
    context = forks()
    out = context.Queue()
    workers = [context.Process(target=claim_all, args=(storage_url, out)) for _ in range(4)]
    for worker in workers:
        worker.start()
    claims = [out.get(timeout=120) for _ in range(40)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert out.empty()
    assert Counter(number for _, number in claims) == Counter(range(40))
    assert len({pid for pid, _ in claims}) > 1


def die_holding_one(url: str) -> None:
    context = forks()
    worker = context.Process(target=claim_and_die, args=(url,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL


@both
def test_what_a_killed_worker_held_is_tried_again_a_few_times(storage_url: str) -> None:
    study, _ = planned(storage_url, 1)
    for attempt in range(RETRIES + 1):
        die_holding_one(storage_url)
        own, told = queue(storage_url)
        own.give_back()
        words = "it is tried again" if attempt < RETRIES else f"given up after {RETRIES + 1} times"
        assert told == [f"trial {attempt} (base, seed 0): its worker died; {words}"]
    own.give_back()
    assert len(told) == 1
    assert own.claim() is None
    frame = load(NAME, storage=storage_url)
    assert frame["state"].tolist() == ["FAIL"]
    assert frame["failure"].tolist() == [f"its worker died, {RETRIES + 1} times in a row"]
    assert len(study.get_trials()) == RETRIES + 1


@both
def test_a_repetition_takes_the_place_of_what_was_lost(storage_url: str) -> None:
    planned(storage_url, 2)
    die_holding_one(storage_url)
    own, _ = queue(storage_url)
    while (trial := own.claim()) is not None:
        finish(own, trial)
    frame = load(NAME, storage=storage_url)
    assert frame["state"].tolist() == ["COMPLETE"] * 2
    assert sorted(frame["seed"]) == [0, 1]
    assert frame["failure"].isna().all()


@both
def test_a_worker_elsewhere_is_dead_when_its_signs_of_life_stay_away(storage_url: str) -> None:
    study, storage = planned(storage_url, 1)
    held = Queue(study, storage, print)
    trial = held.claim()
    assert trial is not None
    trial.set_user_attr("worker", "another-machine:1:1.0")
    own, told = queue(storage_url)
    own.give_back()
    assert told == []  # it has shown itself a moment ago
    with storage.engine.begin() as connection:
        connection.execute(text("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'"))
    own.give_back()
    assert told == ["trial 0 (base, seed 0): its worker died; it is tried again"]
    # It was not dead after all: what it brings now is not taken.
    with pytest.raises(UpdateFinishedTrialError):
        trial.set_user_attr("test_accuracy", 1.0)
    again = own.claim()
    assert again is not None
    finish(own, again, 91.0)
    assert load(NAME, storage=storage_url)["test_accuracy"].tolist() == [91.0]


@both
def test_a_clock_that_was_set_back_hides_no_dead_worker(storage_url: str) -> None:
    """What the worker left lies an hour ahead of now: that is what a clock leaves which jumps back an hour."""
    study, storage = planned(storage_url, 1)
    trial = Queue(study, storage, print).claim()
    assert trial is not None
    trial.set_user_attr("worker", "another-machine:1:1.0")
    ahead = "datetime('now', '+1 hour')" if storage_url.startswith("sqlite") else "now() + interval '1 hour'"
    with storage.engine.begin() as connection:
        connection.execute(text(f"UPDATE trial_heartbeats SET heartbeat = {ahead}"))
    own, told = queue(storage_url, grace=1)
    end = time.monotonic() + 60
    while not told and time.monotonic() < end:
        own.give_back()
    assert told == ["trial 0 (base, seed 0): its worker died; it is tried again"]


def test_a_worker_that_died_before_its_first_sign_of_life_is_found(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study, _ = planned(url, 0)
    study.ask()  # and then its worker's end
    own, told = queue(url, grace=1)
    end = time.monotonic() + 60
    while not told and time.monotonic() < end:
        own.give_back()
    assert told == ["trial 0 (not begun, seed 0): its worker died; it is tried again"]


def test_a_process_is_known_from_another_of_the_same_number_and_from_a_dead_one() -> None:
    machine, pid, born = own_name().rsplit(":", 2)
    assert not died_here(own_name())
    assert died_here(f"{machine}:{pid}:{int(born) + 1}")
    assert not died_here(f"elsewhere:{pid}:{int(born) + 1}")
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie as long as nobody waits for it
    assert died_here(f"{machine}:{child.pid}:{born}")
    child.wait()
    assert died_here(f"{machine}:{child.pid}:{born}")


def test_a_worker_that_was_given_up_learns_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study, _ = planned(url, 1)
    storage = open_storage(url, grace=4)  # a sign of life a second
    held = Queue(study, storage, print)
    trial = held.claim()
    assert trial is not None
    with SignsOfLife(storage, trial._trial_id) as signs:
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        assert signs.lost.wait(timeout=30)


def test_a_worker_that_dies_between_giving_up_and_enqueuing_loses_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study, storage = planned(url, 1)
    claimed = Queue(study, storage, print).claim()
    assert claimed is not None
    storage.set_trial_state_values(claimed._trial_id, TrialState.FAIL)  # and then its worker's end
    own, _ = queue(url)
    again = own.claim()
    assert again is not None
    assert again.number == 1
    assert again.user_attrs["worker"] == own_name()


@both
def test_what_was_enqueued_twice_is_run_once(storage_url: str) -> None:
    study, _ = planned(storage_url, 3, times=2)
    own, _ = queue(storage_url)
    while (trial := own.claim()) is not None:
        finish(own, trial)
    assert [trial.number for trial in counted(study.get_trials())] == [0, 1, 2]
    frame = load(NAME, storage=storage_url)
    assert frame["state"].tolist() == ["COMPLETE"] * 3


def test_an_interrupted_worker_leaves_no_name_behind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study, storage = planned(url, 1)
    own = Queue(study, storage, print)
    trial = own.claim()
    assert trial is not None
    own.let_go()
    (waiting,) = study.get_trials()
    assert waiting.state is TrialState.WAITING
    assert waiting.user_attrs["worker"] is None
