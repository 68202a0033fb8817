"""What is not trained, or not to the end, and why: constraints, a bound that cannot be beaten, and rungs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.measurements import speed_of
from search.plan import Job
from search.strategy import ParetoPruner
from search.strategy.constraints import COUNTED, REFERENCE
from search.strategy.predictors import FEWEST, MOST, Knowledge, counts, encode
from search.study import Study
from search.throughput import Candidate
from search.throughput.steps import peak_memory
from space.complexity import Complexity

INFEASIBLE, SKIPPED, PRUNED = "infeasible", "skipped", "pruned"
Row = dict[str, float]


class Stopped(Exception):
    """A candidate that is given up: why, after how many epochs, and what there is to say of it."""

    def __init__(self, why: str, epoch: int, text: str) -> None:
        super().__init__(text)
        self.why, self.epoch, self.text = why, epoch, text

    def record(self) -> dict[str, Any]:
        """Return what the trial keeps of it."""
        return {"why": self.why, "epoch": self.epoch, "text": self.text}


class Gate:
    """Decides of a trial of a search, at each point where more is known of it. Each method raises Stopped.

    Further seeds, and the base, to which all others are compared, are trained to the end.
    """

    def __init__(self, study: Study, opened: optuna.Study) -> None:
        self.study, self.opened = study, opened
        self._knowledge: Knowledge | None = None
        rungs = study.pruning
        self.pruner = (
            ParetoPruner(first=rungs.first, reduction=rungs.reduction, warm_up=rungs.warm_up) if rungs else None
        )

    def before_measuring(self, trial: optuna.Trial, job: Job) -> None:
        """Check what is counted."""
        attrs = job.attrs()
        self._check_limits(trial, job, {name: float(attrs[name]) for name in COUNTED}, measured=False)

    def before_training(self, trial: optuna.Trial, job: Job, throughput: Mapping[str, Any]) -> None:
        """Check what was measured, and whether any plausible accuracy would do."""
        self._check_limits(trial, job, self._measured(job, throughput), measured=True)
        rungs = self.study.pruning
        if rungs is not None and rungs.confidence is not None and self._may_stop(job):
            self._check_bound(trial, speed_of(throughput), rungs.confidence)

    def after_epoch(self, trial: optuna.Trial, job: Job, rows: Sequence[Row], throughput: Mapping[str, Any]) -> None:
        """Compare the trial with the others at a rung: the best accuracy so far, and throughput."""
        epoch = int(rows[-1]["epoch"])
        if self.pruner is None or job.seed > 0 or epoch >= self.study.recipe.total_epochs:
            return
        if "audited" in trial.user_attrs:
            return
        reached = max(row["val_accuracy"] for row in rows)
        stops = self.pruner.report(trial, epoch, [reached, speed_of(throughput)])
        if stops and self._may_stop(job):
            text = f"{reached:.2f} % after {epoch} epoch{'s' if epoch > 1 else ''}: not among the best at this rung"
            self._stop(trial, PRUNED, epoch, text)

    def _may_stop(self, job: Job) -> bool:
        return job.seed == 0 and not job.baseline

    def _check_limits(self, trial: optuna.Trial, job: Job, known: Mapping[str, float], *, measured: bool) -> None:
        limits = [limit for limit in self.study.limits if (limit.metric not in COUNTED) is measured]
        broken = []
        for limit in limits:
            violation = limit.violation(known)
            if limit.metric not in _frozen(trial).constraints:  # as it is where the trial is tried again
                trial.set_constraint(limit.metric, violation)
            if violation > 0:
                broken.append(limit.told(known))
        if broken and not job.baseline:
            raise Stopped(INFEASIBLE, 0, "; ".join(broken))

    def _measured(self, job: Job, throughput: Mapping[str, Any]) -> dict[str, float]:
        known: dict[str, float] = {}
        for mode in ("train", "infer", "latency"):
            found = throughput.get(mode) or {}
            for end, value in (("", found.get("images_per_s")), (f" {REFERENCE}", found.get("ratio"))):
                if value:
                    name = mode if mode == "latency" else f"{mode}_throughput"
                    known[name + end] = 1 / value if mode == "latency" else value
        if any(limit.metric == "memory" for limit in self.study.limits):
            candidate = Candidate(job.architecture, job.resolution)
            memory = (throughput.get("train") or {}).get("memory_bytes")
            known["memory"] = float(memory or peak_memory(candidate, "train", self.study.throughput))
        return known

    def _check_bound(self, trial: optuna.Trial, speed: float, confidence: float) -> None:
        trials = self.opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        done = [one for one in trials if one.user_attrs.get("seed") == 0][-MOST:]
        if len(done) < FEWEST:
            return
        rows = np.array([self._encoded(one) for one in done])
        self._knowledge = Knowledge(rows, np.array([one.values for one in done]), self._knowledge)
        beaten = self._knowledge.cannot_reach(self._encoded(_frozen(trial)), speed, confidence)
        if beaten is not None:
            bound, to_beat = beaten
            text = (
                f"{speed:.3f} times the base's throughput: at most {bound:.2f} % is plausible ({confidence:.0%}), "
                f"and a faster one has {to_beat:.2f} %"
            )
            self._stop(trial, SKIPPED, 0, text)

    def _encoded(self, trial: FrozenTrial) -> Any:
        return encode(self.study.space, trial.params, counts(trial.user_attrs))

    def _stop(self, trial: optuna.Trial, why: str, epoch: int, text: str) -> None:
        stopped = Stopped(why, epoch, text)
        rungs = self.study.pruning
        if rungs is not None and _chance(self.study.full_name, str(trial.user_attrs["fingerprint"])) < rungs.audit:
            trial.set_user_attr("audited", stopped.record())
            return
        raise stopped


def breaks_counts(study: Study, counted: Complexity) -> bool:
    """Say whether an architecture breaks a constraint on what is counted."""
    return any(
        limit.violation({limit.metric: float(getattr(counted, limit.metric))}) > 0
        for limit in study.limits
        if limit.metric in COUNTED
    )


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    return trial.storage.get_trial(trial._trial_id)


def _chance(*about: str) -> float:
    """Return a number from 0 to 1 that is always the same for the same, whoever asks: a resumed trial decides alike."""
    return int.from_bytes(hashlib.sha256("\n".join(about).encode()).digest()[:8], "big") / 2**64
