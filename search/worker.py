"""Claims trials from the storage and evaluates them until none is left."""

import os
import platform
import traceback
from pathlib import Path
from typing import Any, Protocol

import optuna
import psutil
import torch
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_modules.data import Data
from search import storage as store
from search.environment import environment
from search.evaluate import evaluate, values
from search.plan import Job, job
from search.study import Study
from search.throughput import Candidate, measure
from space.errors import InputError

FINISHED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)


class Watcher(Protocol):
    """What a worker tells while it works."""

    def measuring(self, done: int, total: int) -> None: ...
    def started(self, number: int, name: str) -> None: ...
    def epoch(self, row: dict[str, float]) -> None: ...
    def finished(self, trial: FrozenTrial) -> None: ...


class Worker:
    """Evaluates the trials of one study in this process, one after another."""

    def __init__(
        self,
        study: Study,
        opened: optuna.Study,
        storage: RDBStorage,
        *,
        data: Data | None,
        device: str,
        workdir: Path,
        watcher: Watcher,
    ) -> None:
        self.study, self.opened, self.storage = study, opened, storage
        self.data, self.device, self.workdir, self.watcher = data, device, workdir, watcher

    def run(self) -> None:
        """Work until no trial is left. On KeyboardInterrupt the trial at hand is given back before it is raised."""
        give_back_orphans(self.opened, self.storage)
        if self.study.kind != "search":
            self.measure_arms()
        while (trial := self._claim()) is not None:
            self._run_trial(trial)

    def _claim(self) -> optuna.Trial | None:
        """Claim a waiting trial, or let the sampler make one while a search wants more."""
        for waiting in self.opened.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            id_ = store.trial_id(self.storage, self.opened, waiting.number)
            # The name goes first: a worker killed right after the claim is then known to be dead.
            self.storage.set_trial_user_attr(id_, "worker", own_name())
            if self.storage.set_trial_state_values(id_, TrialState.RUNNING):
                return optuna.Trial(self.opened, id_)
        if self.study.kind == "search" and len(self.opened.get_trials(deepcopy=False)) < self.study.trials:
            trial = self.opened.ask()
            trial.set_user_attr("worker", own_name())
            return trial
        return None

    def _run_trial(self, trial: optuna.Trial) -> None:
        id_ = store.trial_id(self.storage, self.opened, trial.number)
        try:
            one = self._job(trial)
            self.watcher.started(trial.number, f"{one.arm}, seed {one.seed}")
            record = evaluate(
                one,
                data=self.data,
                recipe=self.study.recipe,
                throughput=self._throughput(one),
                device=self.device,
                workdir=self.workdir,
                on_epoch=self.watcher.epoch,
            )
            store.set_attrs(self.storage, id_, record | {"environment": environment(self.device)})
            self.opened.tell(trial, values(record))
        except KeyboardInterrupt:
            self.storage.set_trial_state_values(id_, TrialState.WAITING)
            raise
        except Exception as error:
            failure = {"failure": _reason(error), "environment": environment(self.device)}
            if not isinstance(error, InputError):
                failure["traceback"] = traceback.format_exc(limit=20)
            store.set_attrs(self.storage, id_, failure)
            self.opened.tell(trial, state=TrialState.FAIL)
        self.watcher.finished(self.opened.get_trials(deepcopy=False)[trial.number])

    def _job(self, trial: optuna.Trial) -> Job:
        if self.study.kind != "search":
            return job(self.study, trial.user_attrs["arm"], trial.user_attrs["seed"])
        architecture = self.study.space.suggest(trial)
        one = Job(
            arm=f"trial {trial.number}",
            factor="",
            baseline=architecture == self.study.base,
            seed=0,
            architecture=architecture,
            resolution=self.study.data.resolution,
        )
        for key, value in one.attrs().items():
            trial.set_user_attr(key, value)
        return one

    def _throughput(self, one: Job) -> dict[str, Any]:
        if self.study.kind != "search":
            found = self.opened.user_attrs[self._measurements_key()][one.arm]
        else:
            candidates = {
                "base": Candidate(self.study.base, one.resolution),
                "candidate": Candidate(one.architecture, one.resolution),
            }
            found = self._measure(candidates, "base")["candidate"]
        if "failure" in found:
            raise MeasurementFailed(found["failure"])
        return dict(found)

    def measure_arms(self) -> None:
        """Measure all arms together, interleaved, before anything trains: once for each machine."""
        key, study = self._measurements_key(), self.study
        have = self.opened.user_attrs.get(key, {})
        if study.arms.keys() <= have.keys():
            return
        candidates = {arm: Candidate(study.architecture(arm), study.resolution(arm)) for arm in study.arms}
        self.opened.set_user_attr(key, self._measure(candidates, study.baseline))

    def _measurements_key(self) -> str:
        return f"throughput on {platform.node()}, {self.device}"

    def _measure(self, candidates: dict[str, Candidate], reference: str) -> dict[str, dict[str, Any]]:
        return measure(
            candidates,
            reference=reference,
            protocol=self.study.throughput,
            device=self.device,
            on_progress=self.watcher.measuring,
        )


class MeasurementFailed(RuntimeError):
    """A network whose throughput could not be measured."""


def own_name() -> str:
    """Name this process so that another can tell whether it still lives."""
    return f"{platform.node()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def give_back_orphans(opened: optuna.Study, storage: RDBStorage) -> int:
    """Put running trials whose worker on this machine is dead back into the queue; return how many."""
    count = 0
    for trial in opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _alive(trial.user_attrs.get("worker")):
            id_ = store.trial_id(storage, opened, trial.number)
            count += storage.set_trial_state_values(id_, TrialState.WAITING)
    return count


def _alive(worker: str | None) -> bool:
    if worker is None:
        return False
    host, pid, created = worker.rsplit(":", 2)
    if host != platform.node():
        return True  # another machine's: not ours to judge
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) < 0.05
    except psutil.NoSuchProcess:
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return f"out of memory: {_first_line(error)}"
    if isinstance(error, InputError | MeasurementFailed) or type(error).__name__ == "TrainingFailed":
        return _first_line(error)
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
