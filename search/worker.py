"""Claims trials from the storage and evaluates them until none is left."""

import os
import platform
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import optuna
import psutil
import torch
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_modules.data import Data
from search import storage as store
from search.analysis import load
from search.environment import environment
from search.evaluate import evaluate, values
from search.measurements import Measurements, identity, key, short
from search.plan import Job, enqueue, job
from search.seeds import more
from search.study import Study
from search.throughput import Candidate, measure, quiet
from search.throughput.operators import explain
from space import Architecture
from space.errors import InputError

TOGETHER = 8  # networks of a search that are measured beside each other: more would not fit on a small GPU
FINISHED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)


class Watcher(Protocol):
    """What a worker tells while it works."""

    def planned(self, more: int) -> None: ...
    def waiting(self) -> None: ...
    def measuring(self, spent: float, budget: float) -> None: ...
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
        self.measurements = Measurements(opened)

    def run(self, *, fresh: bool = False) -> None:
        """Work until no trial is left. On KeyboardInterrupt the trial at hand is given back before it is raised.

        `fresh`: measure throughput again, whatever has been measured before.
        """
        give_back_orphans(self.opened, self.storage)
        if self.study.kind != "search":
            self.measure_arms(fresh=fresh)
        elif fresh:
            self.measure_again()
        while True:
            while (trial := self._claim()) is not None:
                self._run_trial(trial)
            if not self._add_seeds():
                return

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

    def _add_seeds(self) -> bool:
        """Enqueue what an adaptive study still needs; tell whether that is anything."""
        if isinstance(self.study.seeds, int) or self.study.kind != "ablation":
            return False
        wanted = more(self.study.seeds, load(self.opened.study_name, storage=self.storage))
        enqueue([job(self.study, arm, seed) for arm, seed in wanted], self.opened)
        self.watcher.planned(len(wanted))
        return bool(wanted)

    def _run_trial(self, trial: optuna.Trial) -> None:
        id_ = store.trial_id(self.storage, self.opened, trial.number)
        try:
            one = self._job(trial)
            self.watcher.started(trial.number, f"{one.arm}, seed {one.seed}")
            throughput = self._throughput(one)
            with quiet.training(self.device, self.watcher.waiting):
                record = evaluate(
                    one,
                    data=self.data,
                    recipe=self.study.recipe,
                    throughput=throughput,
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
            paired_with=self.study.base,
        )
        for name, value in one.attrs().items():
            trial.set_user_attr(name, value)
        return one

    def _throughput(self, one: Job) -> dict[str, Any]:
        if self.study.kind != "search":
            candidate, reference = self._arm(one.arm), self._arm(self.study.baseline)
        else:
            candidate, reference = (Candidate(a, one.resolution) for a in (one.architecture, self.study.base))
        name = key(self._identity(candidate, reference))
        found = self.measurements.get(name)
        if found is None:
            self._measure({"candidate": candidate}, reference)
            found = self.measurements.get(name)
        assert found is not None
        if "failure" in found:
            raise MeasurementFailed(found["failure"])
        return short(found, name)

    def measure_arms(self, *, fresh: bool = False) -> None:
        """Measure all arms that lack it together, interleaved with the baseline, before anything trains."""
        arms = {arm: self._arm(arm) for arm in self.study.arms}
        self._measure(arms, arms[self.study.baseline], fresh=fresh)

    def measure_again(self) -> None:
        """Measure all that a search has measured again, a few at a time beside the base."""
        trials = self.opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found = {t.user_attrs["fingerprint"]: t.user_attrs for t in trials}
        candidates = {
            name: Candidate(Architecture.parse(attrs["architecture"]), attrs["resolution"])
            for name, attrs in found.items()
        }
        reference = Candidate(self.study.base, self.study.data.resolution)
        for names in (list(candidates)[n : n + TOGETHER] for n in range(0, len(candidates), TOGETHER)):
            self._measure({name: candidates[name] for name in names}, reference, fresh=True)

    def _arm(self, arm: str) -> Candidate:
        return Candidate(self.study.architecture(arm), self.study.resolution(arm))

    def _identity(self, candidate: Candidate, reference: Candidate) -> dict[str, Any]:
        return identity(candidate, reference, self.study.throughput, self.device)

    def _measure(self, candidates: dict[str, Candidate], reference: Candidate, *, fresh: bool = False) -> None:
        """Measure what the storage lacks, or with `fresh` everything, and keep it there."""
        identities = {name: self._identity(candidate, reference) for name, candidate in candidates.items()}
        lacking = {
            name: candidate
            for name, candidate in candidates.items()
            if fresh or self.measurements.get(key(identities[name])) is None
        }
        if not lacking:
            return
        # The reference is measured beside them in any case; under a name that no arm can have.
        names = [name for name, candidate in lacking.items() if candidate == reference] or [""]
        found = measure(
            {names[0]: reference} | lacking,
            reference=names[0],
            protocol=self.study.throughput,
            device=self.device,
            on_progress=self.watcher.measuring,
            on_wait=self.watcher.waiting,
        )
        for name, operators in self._operators(lacking, found).items():
            found[name]["operators"] = operators
        for name in lacking:
            self.measurements.put(identities[name], found[name])

    def _operators(self, candidates: dict[str, Candidate], found: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return where the time of the networks that could be measured goes."""
        ran = {name: candidate for name, candidate in candidates.items() if "failure" not in found[name]}
        try:
            explained = explain(
                ran,
                modes=[mode for mode in self.study.throughput.modes if mode != "latency"],
                protocol=self.study.throughput,
                device=self.device,
                on_wait=self.watcher.waiting,
            )
        except (RuntimeError, MemoryError) as error:
            # An explanation that cannot be had must not cost the measurement.
            return {name: {"failure": _reason(error)} for name in ran}
        roofline = asdict(explained.roofline)
        return {
            name: {"roofline": roofline, **{mode: one.condensed().to_dict() for mode, one in modes.items()}}
            for name, modes in explained.breakdowns.items()
        }


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
