"""Claims trials from the storage and evaluates them until none is left: python -m search.worker."""

import argparse
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
import torch
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from rich.console import Console

from lightning_modules.checkpoint import remove
from lightning_modules.data import Data
from lightning_modules.fit import LoaderDied
from search import cli
from search import storage as store
from search.analysis import load
from search.candidates import Candidates
from search.defaults import DEFAULT_OUT
from search.environment import environment
from search.evaluate import evaluate, values
from search.gate import Gate, Stopped
from search.measurements import Measurements, identity, key, short
from search.plan import Job, defined, enqueue, enqueue_seeds, job
from search.progress import LineProgress, Watcher
from search.queue import Queue, SignsOfLife, counted, first_trials, is_over, own_name
from search.seeds import at_front, more
from search.study import Study
from search.throughput import Candidate, measure, quiet
from search.throughput.operators import explain
from space import Architecture
from space.errors import InputError, first_line

TOGETHER = 8  # networks of a search that are measured beside each other: more would not fit on a small GPU
EPILOG = f"""examples:
  python -m search.worker --study kernel_ablation-laptop --storage sqlite:////shared/runs/studies.db
  python -m search.worker --study kernel_ablation-cifar --storage postgresql+psycopg://me@server/studies --device cuda:1

Any number of workers, on any number of machines, may join; each works until nothing is left to do. search.run, run
again, writes the report of what all of them did.
{cli.EXIT_CODES}
"""
POLL = 1.0  # seconds between looks at what other workers do


class Worker:
    """Evaluates the trials of one study in this process, one after another, beside any number of others.

    `threads`: how many of the CPU's it trains with; torch's own number where None. `outdated`: how often what is to be
    measured again was measured when that was asked for, by its key. `seed`: a search's sampler's, None for any.
    """

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
        threads: int | None = None,
        outdated: Mapping[str, int] = MappingProxyType({}),
        seed: int | None = 0,
    ) -> None:
        self.study, self.opened, self.storage = study, opened, storage
        self.data, self.device, self.workdir, self.watcher = data, device, workdir, watcher
        self.threads, self.outdated = threads, outdated
        self.measurements = Measurements(opened)
        self.queue = Queue(opened, storage, watcher.told)
        self.gate = Gate(study, opened)
        self.candidates = Candidates(study, opened, watcher.told, seed=seed) if study.kind == "search" else None

    def run(self) -> None:
        """Work until no trial is left, here or elsewhere. On KeyboardInterrupt the trial at hand goes back first."""
        try:
            self._work()
        except KeyboardInterrupt:
            self.queue.let_go()
            raise

    def _work(self) -> None:
        self.queue.give_back()
        self.measure()
        waited = False
        while True:
            while (trial := store.patiently(self._claim, self.watcher.told)) is not None:
                self._run_trial(trial)
            if store.patiently(self.queue.others_run, self.watcher.told):
                if not waited:
                    self.watcher.told("nothing waits; staying until the trials of other workers are over")
                waited = True
                time.sleep(POLL)
            elif not store.patiently(self._add_seeds, self.watcher.told):
                return

    def measure(self) -> None:
        """Measure what can be measured before anything trains, and lacks it or is outdated."""
        if self.study.kind != "search":
            arms = {arm: self._arm(arm) for arm in self.study.arms}
            self._measure(arms, arms[self.study.baseline])
        elif self.outdated:
            self._measure_again()

    def _claim(self) -> optuna.Trial | None:
        """Claim a waiting trial, of a search the next candidate where none waits."""
        while (claimed := self.queue.claim()) is None:
            seed = self.candidates.enqueue_next() if self.candidates is not None else None
            if seed is None:
                return None
            self.watcher.planned(seed > 0)  # further seeds come on top
        return claimed

    def _add_seeds(self) -> bool:
        """Enqueue the seeds that an adaptive study, or the front of a search, still needs; tell whether any."""
        if self.study.kind == "search":
            wanted = at_front(self.study.first_seeds, load(self.opened.study_name, storage=self.storage))
            enqueue_seeds(wanted, self.opened)
        elif self.study.kind == "ablation" and not isinstance(self.study.seeds, int):
            wanted = more(self.study.seeds, load(self.opened.study_name, storage=self.storage))
            enqueue([job(self.study, arm, seed) for arm, seed in wanted], self.opened)
        else:
            return False
        self.watcher.planned(len(wanted))
        return bool(wanted)

    def _run_trial(self, trial: optuna.Trial) -> None:
        with SignsOfLife(self.storage, trial._trial_id) as signs:
            try:
                self._evaluate(trial, signs)
            except UpdateFinishedTrialError:
                self.watcher.told(f"trial {trial.number} was given to another worker meanwhile; this result is dropped")
                return
        told = store.patiently(lambda: self.storage.get_trial(trial._trial_id), self.watcher.told)
        if is_over(told):
            self.watcher.finished(told)

    def _evaluate(self, trial: optuna.Trial, signs: SignsOfLife) -> None:
        known: dict[str, Any] = {"environment": environment(self.device)}

        def on_epoch(rows: list[dict[str, float]]) -> None:
            if signs.lost.is_set():
                raise UpdateFinishedTrialError
            self.watcher.epoch(rows[-1])
            known["curves"] = rows
            store.patiently(lambda: self.gate.after_epoch(trial, one, rows, throughput), self.watcher.told)

        try:
            one = self._job(trial)
            self.watcher.started(trial.number, f"{one.arm}, seed {one.seed}")
            began = time.perf_counter()
            self.gate.before_measuring(trial, one)
            throughput = known["throughput"] = self._throughput(one)
            told = self.watcher.told
            store.patiently(lambda: self.gate.before_training(trial, one, throughput), told)
            began = time.perf_counter()
            with quiet.training(self.device, self.watcher.waiting), _threads(self.threads):
                record = evaluate(
                    one,
                    data=self.data,
                    recipe=self.study.recipe,
                    throughput=throughput,
                    device=self.device,
                    workdir=self.workdir,
                    on_epoch=on_epoch,
                    checkpoint=self._checkpoint(one),
                )
            self._tell(trial, known | record, TrialState.COMPLETE, values(record))
        except Stopped as stopped:
            seconds = time.perf_counter() - began
            known |= {"stopped": stopped.record(), "seconds": {"train": seconds, "total": seconds}}
            remove(self._checkpoint(one))
            self._tell(trial, known, TrialState.PRUNED)
        except LoaderDied as error:
            why = str(error)
            store.patiently(lambda: self.queue.lose(trial, why), self.watcher.told)
        except (UpdateFinishedTrialError, StorageInternalError):
            raise
        except Exception as error:
            failure = {"failure": _reason(error), "environment": known["environment"]}
            if not isinstance(error, InputError):
                failure["traceback"] = traceback.format_exc(limit=20)
            self._tell(trial, failure, TrialState.FAIL)

    def _checkpoint(self, one: Job) -> Path:
        """Name the file from which the training goes on after its end: by all that its bits depend on."""
        paired = one.paired_with.fingerprint if one.paired_with is not None else ""
        about = {
            **{"architecture": one.architecture.fingerprint, "paired with": paired, "seed": one.seed},
            **{name: getattr(self.study, name).model_dump(mode="json") for name in ("data", "recipe")},
            **{"torch": torch.__version__, "device": torch.device(self.device).type, "threads": self.threads},
        }
        return self.workdir / f"{key(about)}.ckpt"

    def _tell(
        self, trial: optuna.Trial, record: dict[str, Any], state: TrialState, scores: list[float] | None = None
    ) -> None:
        """Write a trial's record, then its state: whoever sees it finished sees the record whole."""

        def write() -> None:
            now = self.storage.get_trial(trial._trial_id)
            if now.state is state and now.user_attrs.get("worker") == own_name():
                return  # the answer to the last attempt was lost, not the attempt
            store.set_attrs(self.storage, trial._trial_id, record)
            self.opened.tell(trial, scores, state=state)

        store.patiently(write, self.watcher.told)

    def _job(self, trial: optuna.Trial) -> Job:
        if self.study.kind != "search":
            if trial.user_attrs["arm"] not in self.study.arms:
                self.study = defined(self.opened)  # it was added since
            return job(self.study, trial.user_attrs["arm"], trial.user_attrs["seed"])
        architecture = self.study.space.suggest(trial)
        first = first_trials(self.opened.get_trials(deepcopy=False))
        one = Job(
            arm=f"trial {first.get(architecture.fingerprint, trial.number)}",
            factor="",
            baseline=architecture == self.study.base,
            seed=trial.user_attrs.get("seed", 0),
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

    def _measure_again(self) -> None:
        """Measure what a search has measured on this machine again, a few at a time beside the base."""
        trials = self.opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found = {t.user_attrs["fingerprint"]: t.user_attrs for t in trials}
        reference = Candidate(self.study.base, self.study.data.resolution)
        candidates = {
            name: Candidate(Architecture.parse(attrs["architecture"]), attrs["resolution"])
            for name, attrs in found.items()
        }
        here = [n for n, one in candidates.items() if key(self._identity(one, reference)) in self.outdated]
        for names in (here[n : n + TOGETHER] for n in range(0, len(here), TOGETHER)):
            self._measure({name: candidates[name] for name in names}, reference)

    def _arm(self, arm: str) -> Candidate:
        return Candidate(self.study.architecture(arm), self.study.resolution(arm))

    def _identity(self, candidate: Candidate, reference: Candidate) -> dict[str, Any]:
        return identity(candidate, reference, self.study.throughput, self.device)

    def _measure(self, candidates: dict[str, Candidate], reference: Candidate) -> None:
        """Measure what the storage lacks or is outdated; one worker of a machine after another."""
        with quiet.turn(self.device, self.watcher.waiting):
            self._measure_lacking(candidates, reference)

    def _measure_lacking(self, candidates: dict[str, Candidate], reference: Candidate) -> None:
        identities = {name: self._identity(candidate, reference) for name, candidate in candidates.items()}
        counts = self.measurements.counts()
        keys = {name: key(one) for name, one in identities.items()}
        lacking = {
            name: candidate
            for name, candidate in candidates.items()
            if counts.get(keys[name], 0) <= self.outdated.get(keys[name], 0)
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


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _reason(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return f"out of memory: {first_line(error)}"
    if isinstance(error, InputError | MeasurementFailed) or type(error).__name__ == "TrainingFailed":
        return first_line(error)
    return f"{type(error).__name__}: {first_line(error)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Join a study; return the exit code."""
    args = _parser().parse_args(argv)
    return cli.answer(lambda: _join(args), "interrupted; the trial at hand was given back")


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("search.worker", "Join a study that search.run has begun, from any machine.", EPILOG)
    add = parser.add_argument
    add("--study", required=True, metavar="NAME", help="its name in the storage, e.g. kernel_ablation-laptop")
    add(
        "--storage",
        metavar="URL",
        default=os.environ.get(cli.STORAGE),
        help=f"Optuna storage (default: ${cli.STORAGE})",
    )
    add("--out", metavar="DIR", default=DEFAULT_OUT, help="where work in progress is kept (default: %(default)s)")
    add("--device", help="cpu, cuda, cuda:1, … (default: the study's)")
    add("--threads", type=cli.positive, metavar="N", help="CPU threads to train with (default: torch's)")
    cli.add_grace(parser)
    add("--quiet", action="store_true", help="say nothing of trials, only what goes wrong")
    return parser


def _join(args: argparse.Namespace) -> int:
    be_quiet()
    if args.storage is None:
        raise InputError(f"--storage URL, or {cli.STORAGE} in the environment, is needed")
    storage = store.open_storage(args.storage, create=False, grace=args.grace)
    trials = counted(store.find_study(args.study, storage).get_trials(deepcopy=False))
    done = sum(map(is_over, trials))
    with LineProgress(Console(stderr=True), len(trials), done, quiet=args.quiet) as watcher:
        join(args.study, storage, Path(args.out), watcher, device=args.device, threads=args.threads).run()
    return 0


def be_quiet() -> None:
    """Let libraries say nothing while trials run, and let a scheduler's SIGTERM be an interruption."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # Ctrl-C in the middle of a query leaves a cursor that cannot be closed, and is told there with a traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def join(
    name: str,
    storage: RDBStorage,
    out: Path,
    watcher: Watcher,
    *,
    device: str | None = None,
    threads: int | None = None,
    outdated: Mapping[str, int] = MappingProxyType({}),
) -> Worker:
    """Return a worker for a study that is in the storage. Raises InputError where it is not."""
    opened = store.find_study(name, storage)
    study = defined(opened)
    return Worker(
        study,
        opened,
        storage,
        data=study.load_data(),
        device=study.find_device(device),
        workdir=out / opened.study_name / "work",
        watcher=watcher,
        threads=threads,
        outdated=outdated,
        seed=None,  # workers that share one would propose the same networks
    )


if __name__ == "__main__":
    sys.exit(main())
