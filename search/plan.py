"""Study -> trials: an ablation's arms and seeds up front, or a sampler that chooses as it goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

import studies
from search import storage as store
from search.measurements import PREFIX
from search.queue import first_trials, job_key
from search.study import Study, difference, heeded
from space import Architecture, complexity
from space.errors import InputError, nearest, within
from space.presets import PRESETS, preset

# Fields that may grow under the same name, as arms may be added: more of the same question, not another one.
COUNTS = ("seeds", "trials")
FORKED = "forked_from"
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
    rows = paper_rows(study)
    begin_with = started_from(study, storage) if study.kind == "search" else []
    opened = optuna.create_study(
        study_name=study.full_name,
        storage=storage,
        directions=directions(study),
        load_if_exists=True,
    )
    definition = study.to_dict()
    if was := opened.user_attrs.get("definition"):  # else it was made this moment, here or by somebody else
        _check_same(study, was)
        definition |= {field: max(definition[field], was[field]) for field in _counts(definition, was)}
    definition["paper"] = rows
    opened.set_user_attr("definition", definition)
    if study.kind == "search":
        _enqueue_start(study, begin_with, opened)
    else:
        enqueue(jobs(study), opened)
    return opened


def defined(opened: optuna.Study) -> Study:
    """Return the study as the storage defines it now: arms may have been added. Raises InputError for a bad record."""
    return Study.recorded(store.definition(opened) | {"paper": None}, f"study {opened.study_name!r} in the storage")


def fork_study(study: Study, name: str, storage: RDBStorage) -> optuna.Study:
    """Open `study` as a fork of the one that the storage has as `name`: with all of its trials that still hold.

    That is where network, data, recipe, protocol, and what they are paired with and measured beside, are the same.
    Raises InputError where there is none to be forked, or another study has the fork's name.
    """
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise InputError(f"--fork {study.name}: there is no study {name!r} to be forked{nearest(name, names)}")
    old = optuna.load_study(study_name=name, storage=storage)
    if study.full_name in names:
        opened = optuna.load_study(study_name=study.full_name, storage=storage)
        if opened.user_attrs.get(FORKED) != name:
            raise InputError(f"--fork {study.name}: the storage has a study {study.full_name!r} already")
    else:
        opened = optuna.create_study(study_name=study.full_name, storage=storage, directions=directions(study))
    opened.set_user_attr(FORKED, name)
    for key, value in old.user_attrs.items():
        if key.startswith(PREFIX) and key not in opened.user_attrs:
            opened.set_user_attr(key, value)
    here = {job_key(trial) for trial in opened.get_trials(deepcopy=False)}
    opened.add_trials([trial for trial in _holding(study, old) if job_key(trial) not in here])
    return open_study(study, storage)


def _holding(study: Study, old: optuna.Study) -> list[FrozenTrial]:
    """Return copies of the finished trials of another study that are trials of this one as well."""
    before, after = old.user_attrs["definition"], study.to_dict()
    if any(before[field] != after[field] for field in ("kind", "base", "data", "recipe", "throughput", "device")):
        return []
    if study.kind == "search":
        attrs: dict[Any, dict[str, Any]] = {}
        if any(before.get(field) != after[field] for field in ("dimensions", "max_params", "max_macs")):
            return []
    else:
        reference = defined(old)
        if reference.architecture(reference.baseline) != study.architecture(study.baseline):
            return []
        attrs = {arm: job(study, arm, 0).attrs() for arm in study.arms}
    found = []
    for trial in old.get_trials(states=(TrialState.COMPLETE,)):
        own = trial.user_attrs
        now = own if study.kind == "search" else attrs.get(own["arm"])
        if now is not None and all(own[field] == now[field] for field in ("fingerprint", "resolution")):
            trial.user_attrs = own | {**now, "seed": own["seed"], FORKED: f"{old.study_name}, trial {trial.number}"}
            found.append(trial)
    return found


def directions(study: Study) -> list[StudyDirection]:
    """Return the objectives' directions: validation accuracy, where something is trained, and throughput."""
    return [MAXIMIZE] if study.kind == "table" else [MAXIMIZE, MAXIMIZE]


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


def _check_same(study: Study, was: Mapping[str, Any]) -> None:
    was, after = heeded(was), heeded(study.to_dict())
    # A field that came later stood then as it does where nobody names it.
    before = {field: info.get_default() for field, info in Study.model_fields.items()} | was
    before = {field: before[field] for field in after | was}
    for field in (*_counts(before, after), *_enlarged(before, after), *READS):
        before.pop(field, None)
        after.pop(field, None)
    if changed := difference(before, after):
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise InputError(
            f"study {study.full_name!r} is already in the storage with another definition: "
            f"{'; '.join(changed[:5])}{more}; --fork NEW_NAME asks it under another name and keeps what still holds"
        )


def _counts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the counts that may grow. A rule for adding seeds may not: its error rates hold for one schedule."""
    return [field for field in COUNTS if all(isinstance(one.get(field), int) for one in (before, after))]


def _enlarged(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the fields to which arms were added, with none changed or taken away, where seeds follow no rule."""
    old, new = before.get("arms", {}), after["arms"]
    same_factors = list(before.get("factors", {})) == list(after["factors"])
    grown = isinstance(after["seeds"], int) and same_factors and all(new.get(arm) == old[arm] for arm in old)
    return ["arms", "factors"] if grown else []


def enqueue(wanted: list[Job], opened: optuna.Study) -> None:
    """Add the trials that the study lacks."""
    present = {(t.user_attrs.get("arm"), t.user_attrs.get("seed")) for t in opened.get_trials(deepcopy=False)}
    for one in wanted:
        if (one.arm, one.seed) not in present:
            opened.enqueue_trial({}, user_attrs=one.attrs())


def enqueue_seeds(wanted: list[tuple[str, int]], opened: optuna.Study) -> None:
    """Add further seeds of a search's architectures, each named by its fingerprint."""
    trials = opened.get_trials(deepcopy=False)
    present, first = {job_key(trial) for trial in trials}, first_trials(trials)
    for fingerprint, seed in wanted:
        if (fingerprint, seed) not in present:
            attrs = {"fingerprint": fingerprint, "seed": seed}
            opened.enqueue_trial(trials[first[fingerprint]].params, user_attrs=attrs)


def started_from(study: Study, storage: RDBStorage) -> list[Architecture]:
    """Return the architectures that a search begins with: its base, the reference of every throughput, then `start`.

    Of a study that is named there, the arms that it does not show to hurt.
    Raises InputError for an entry that names nothing, or nothing that the space holds.
    """
    found = [study.base]
    for index, entry in enumerate(study.start):
        where = f"start.{index}"
        if isinstance(entry, dict):
            with within(where):
                own = [study.space.architecture((study.space.choices_of(study.base) or {}) | entry)]
        elif entry in PRESETS:
            own = [preset(entry)]
        else:
            with within(f"{where}: {entry!r} is no preset, and as a study's name"):
                own = _unharmed(entry, storage)
        held = [architecture for architecture in own if study.space.contains(architecture)]
        if not held:
            raise InputError(f"{where}: the space holds no architecture of {entry!r}")
        found += held
    return found


def _unharmed(name: str, storage: RDBStorage) -> list[Architecture]:
    from search.analysis import effects, load  # which draw: not for everyone who plans

    frame = load(name, storage=storage)
    table = effects(frame)
    kept = table[table["verdict"] != "hurts"]["arm"] if "verdict" in table.columns else table["arm"]
    rows = frame[frame["arm"].isin(kept)].drop_duplicates("arm")
    return [Architecture.parse(fields, f"study {name!r}") for fields in rows["architecture"] if fields]


def _enqueue_start(study: Study, begin_with: list[Architecture], opened: optuna.Study) -> None:
    """Enqueue what a search begins with, as far as the space holds it."""
    present = {trial.user_attrs.get("fingerprint") for trial in opened.get_trials(deepcopy=False)}
    for architecture in begin_with:
        if architecture.fingerprint not in present and (chosen := study.space.choices_of(architecture)) is not None:
            opened.enqueue_trial(chosen, user_attrs={"fingerprint": architecture.fingerprint, "seed": 0})
            present.add(architecture.fingerprint)
