"""Study -> trials: an ablation's arms and seeds up front, or a sampler that chooses as it goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

import studies
from search.study import Study, difference
from space import Architecture, complexity
from space.errors import InputError

# Fields that may grow under the same name: more of the same question, not another one.
GROWS = ("seeds", "trials")
# Fields that decide how results are read, not what they are.
READS = ("margin", "paper")
MAXIMIZE = StudyDirection.MAXIMIZE
PAPER_TABLES = "paper/inceptionnext_results.yaml"


@dataclass(frozen=True)
class Job:
    """One trial to be run: which network, which seed."""

    arm: str
    factor: str
    baseline: bool
    seed: int
    architecture: Architecture
    resolution: int
    paired_with: Architecture | None = None

    def attrs(self) -> dict[str, Any]:
        """Return what is known of the trial before it runs, counts included."""
        counts = complexity(self.architecture, self.resolution)
        return {
            "arm": self.arm,
            "factor": self.factor,
            "baseline": self.baseline,
            "seed": self.seed,
            "resolution": self.resolution,
            "fingerprint": self.architecture.fingerprint,
            "architecture": self.architecture.to_dict(),
            "params": counts.params,
            "macs": counts.macs,
            "activations": counts.activations,
            "bytes": counts.bytes,
        }


def jobs(study: Study) -> list[Job]:
    """Return every (seed, arm) of an ablation or table, seed by seed so that an early stop stays balanced."""
    return [job(study, arm, seed) for seed in range(study.first_seeds) for arm in study.arms]


def job(study: Study, arm: str, seed: int) -> Job:
    """Return the trial of one arm and seed."""
    return Job(
        arm=arm,
        factor=study.arms[arm].factor,
        baseline=arm == study.baseline,
        seed=seed,
        architecture=study.architecture(arm),
        resolution=study.resolution(arm),
        paired_with=study.architecture(study.baseline),
    )


def open_study(study: Study, storage: RDBStorage) -> optuna.Study:
    """Create or rejoin the study in the storage and enqueue the trials that it lacks.

    Raises InputError, the differences named, where the storage holds another definition under this name.
    """
    definition = study.to_dict() | {"paper": paper_rows(study)}
    if study.full_name in {summary.study_name for summary in optuna.get_all_study_summaries(storage)}:
        opened = optuna.load_study(study_name=study.full_name, storage=storage, sampler=sampler(study))
        _check_same(study, opened)
        was = opened.user_attrs.get("definition", {})
        definition |= {field: max(definition[field], was[field]) for field in _grown(definition, was)}
    else:
        opened = optuna.create_study(
            study_name=study.full_name, storage=storage, sampler=sampler(study), directions=directions(study)
        )
    opened.set_user_attr("definition", definition)
    if study.kind == "search":
        _enqueue_base(study, opened)
    else:
        enqueue(jobs(study), opened)
    return opened


def directions(study: Study) -> list[StudyDirection]:
    """Return the objectives' directions: validation accuracy, where something is trained, and throughput."""
    return [MAXIMIZE] if study.kind == "table" else [MAXIMIZE, MAXIMIZE]


def sampler(study: Study) -> BaseSampler:
    """Return the sampler a search asks for, seeded."""
    match study.sampler:
        case "tpe":
            return TPESampler(seed=0, multivariate=False)
        case "nsga2":
            return NSGAIISampler(seed=0, population_size=max(4, min(50, study.trials // 4)))
        case "random":
            return RandomSampler(seed=0)


def paper_rows(study: Study) -> dict[str, Any] | None:
    """Return the published rows that the study's arms name, with their source, or None.

    Raises InputError where a table or row is named that the paper's data lack.
    """
    if study.paper is None:
        return None
    published = yaml.safe_load((Path(studies.__file__).parent / PAPER_TABLES).read_text())
    tables = [name for name, rows in published.items() if isinstance(rows, list)]
    if study.paper not in tables:
        raise InputError(f"paper: no table {study.paper!r}; allowed: {', '.join(tables)}")
    rows = {row.get("variant", row.get("model")): row for row in published[study.paper]}
    named = {arm: spec.paper for arm, spec in study.arms.items() if spec.paper is not None}
    for arm, row in named.items():
        if row not in rows:
            raise InputError(f"arms.{arm}.paper: {study.paper} has no row {row!r}; allowed: {', '.join(rows)}")
    machine = published["machine"]
    return {
        "source": f"{published['paper']}, {study.paper}",
        "machine": f"{machine['device']}, {machine['precision']}, batch {machine['batch_size']}, one seed",
        "rows": {arm: rows[row] for arm, row in named.items()},
    }


def _check_same(study: Study, opened: optuna.Study) -> None:
    before = dict(opened.user_attrs.get("definition", {}))
    after = study.to_dict()
    for field in (*_grown(before, after), *READS):
        before.pop(field, None)
        after.pop(field, None)
    if changed := difference(before, after):
        raise InputError(
            f"study {study.full_name!r} is already in the storage with another definition: "
            f"{'; '.join(changed[:5])}; give this one a name of its own with --name, or another --storage"
        )


def _grown(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the fields that may grow. A rule for adding seeds may not: its error rates hold for one schedule."""
    return [field for field in GROWS if all(isinstance(one.get(field), int) for one in (before, after))]


def enqueue(wanted: list[Job], opened: optuna.Study) -> None:
    """Add the trials that the study lacks."""
    present = {(t.user_attrs.get("arm"), t.user_attrs.get("seed")) for t in opened.get_trials(deepcopy=False)}
    for one in wanted:
        if (one.arm, one.seed) not in present:
            opened.enqueue_trial({}, user_attrs=one.attrs())


def _enqueue_base(study: Study, opened: optuna.Study) -> None:
    """Let a search start from its base, the reference of every throughput ratio, where the space holds it."""
    if opened.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)):
        return
    if (chosen := study.space.choices_of(study.base)) is not None:
        opened.enqueue_trial(chosen)
