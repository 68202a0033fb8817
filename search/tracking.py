"""MLflow: a copy of the study to browse. The only file that imports mlflow; the truth stays in the storage."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

# Before mlflow is imported: nothing is sent anywhere.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import optuna
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from search.locks import locked, named
from search.measurements import newest, of_trial
from search.queue import counted, is_over
from search.storage import masked, split
from space.errors import InputError, first_line

TRIAL, PARENT, NOTE = "trial", "mlflow.parentRunId", "mlflow.note.content"
PARAM_LENGTH = 6000
FEW = 10  # trials whose runs are asked for one by one
ALL_TRIALS = 'tags.arm LIKE "%"'  # MLflow folds child runs away until a search names them
FAILED = (MlflowException, SQLAlchemyError, OSError)  # what a store raises that goes away in the middle
SQLITE = b"SQLite format 3\0"  # how its files begin
PORTS = {"http": 80, "https": 443, "postgresql": 5432}


class Unreachable(InputError):
    """Nobody answers where the store should be."""


class Copy:
    """A study's copy in MLflow, which must not cost the study: what fails is told once, and left to search.sync."""

    def __init__(
        self, uri: str, *, study: optuna.Study, definition: Mapping[str, Any], out: Path, tell: Callable[[str], None]
    ) -> None:
        self.uri, self.study, self.definition, self.out, self.tell = uri, study, definition, out, tell
        self.tracker: Tracker | None = None
        self.told = False

    def connect(self) -> None:
        """Reach the store. Raises InputError for one that answers, or could, and cannot be used."""
        try:
            self._reached()
        except Unreachable as error:
            self._tell(error)

    def do(self, act: Callable[["Tracker"], object]) -> None:
        """Let the tracker do something, if it can be reached."""
        try:
            act(self._reached())
        except (InputError, *FAILED) as error:
            self._tell(error)

    def _reached(self) -> "Tracker":
        check_reachable(self.uri)
        if self.tracker is None:
            self.tracker = Tracker(self.uri, study=self.study, definition=self.definition, out=self.out)
        return self.tracker

    def _tell(self, error: Exception) -> None:
        if not self.told:
            later = f"python -m search.sync --study {self.study.study_name}, with this --out, --storage, --tracking-uri"
            self.tell(f"no copy in MLflow for now: {first_line(error)}; the study goes on. Later: {later}")
        self.told = True


class Tracker:
    """Copies one study: one MLflow experiment, in it one parent run and a child run a trial.

    Raises InputError, in one line and with passwords hidden, where the store cannot be reached.
    """

    def __init__(self, uri: str, *, study: optuna.Study, definition: Mapping[str, Any], out: Path) -> None:
        self.study, self.definition = study, dict(definition)
        self._copied: set[int] = set()  # trials of which this process knows that the store has them
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        check_reachable(uri)
        self._lock = named(uri, study.study_name)  # of two that copy at once, each would copy everything
        try:
            with locked(self._lock):
                _make(uri)
                self.client = MlflowClient(tracking_uri=uri)
                self.experiment_id = self._experiment(uri, out)
                self.parent_run_id = self._parent()
        except (*FAILED, ImportError, ValueError) as error:
            raise InputError(f"--tracking-uri {masked(uri)}: cannot be used: {first_line(error)}") from error

    def sync(self, *, again: bool = False) -> int:
        """Copy every finished trial that the store lacks; return how many. Calling it again copies nothing.

        `again`: copy the scores of those it has as well, after throughput was measured anew.
        """
        over = [trial for trial in counted(self.study.get_trials(deepcopy=False)) if is_over(trial)]
        lacking = [trial for trial in over if again or trial.number not in self._copied]
        if not lacking:
            return 0
        measured = newest(self.study.user_attrs)
        copied = 0
        with locked(self._lock):
            present = {run.data.tags[TRIAL]: run for run in self._copies(lacking)}
            for trial in lacking:
                run = present.get(str(trial.number))
                if run is None or run.info.status == "RUNNING":  # a copy that was cut off is completed
                    self._copy(trial, run, measured)
                    copied += 1
                elif again:
                    self._log_scores(run.info.run_id, trial, measured)
                self._copied.add(trial.number)
        return copied

    def log_answer(self, text: str) -> None:
        """Let the study's run say what is known so far."""
        self.client.set_tag(self.parent_run_id, NOTE, f"{self._description()}\n\n{text}")

    def log_report(self, paths: Mapping[str, Path]) -> None:
        """Put the report, tables and figures on the parent run, and say there how the study stands."""
        for name, path in paths.items():
            folder = "figures" if path.suffix == ".png" else "tables" if path.suffix in (".csv", ".md") else None
            if name == "report" or folder is not None:
                self.client.log_artifact(self.parent_run_id, str(path), folder)
        states = [trial.state for trial in counted(self.study.get_trials(deepcopy=False))]
        counts = [
            RunTag(f"trials {state.name.lower()}", str(states.count(state)))
            for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING)
        ]
        self.client.log_batch(self.parent_run_id, tags=counts)
        self.client.set_terminated(self.parent_run_id, "FINISHED")

    def _experiment(self, uri: str, out: Path) -> str:
        name = self.study.study_name
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        # A server keeps artifacts where it was told to; a bare database has no such place.
        location = None if uri.startswith("http") else (out / "artifacts" / name).absolute().as_uri()
        created = self.client.create_experiment(name, artifact_location=location)
        self.client.set_experiment_tag(created, NOTE, self._description())
        # Opens the pages for training runs rather than those for language models.
        self.client.set_experiment_tag(created, "mlflow.experimentKind", "custom_model_development")
        return str(created)

    def _parent(self) -> str:
        found = self.client.search_runs([self.experiment_id], f"tags.{TRIAL} = 'all'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {TRIAL: "all", NOTE: self._description(), "kind": self.definition.get("kind", "")}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{self.study.study_name} (study)")
        run_id = str(run.info.run_id)
        params = {"question": self.definition.get("question", "")}
        for section in ("scale", "seeds", "sampler", "data", "recipe", "throughput"):
            params |= _flat(section, self.definition.get(section))
        self.client.log_batch(run_id, params=_params(params))
        text = yaml.safe_dump(self.definition, sort_keys=False, allow_unicode=True)
        self.client.log_text(run_id, text, "definition.yaml")
        return run_id

    def _description(self) -> str:
        tip = f"To list the trials side by side, search for `{ALL_TRIALS}`, and sort or chart by any metric."
        return f"{self.definition.get('question', '')}\n\nScale: {self.definition.get('scale', '')}. {tip}"

    def _copies(self, trials: Sequence[FrozenTrial]) -> Iterator[Run]:
        """Yield the runs that there are of these trials, of many those of all."""
        own = f"tags.`{PARENT}` = '{self.parent_run_id}'"
        one_by_one = [f"{own} AND tags.`{TRIAL}` = '{trial.number}'" for trial in trials]
        for which in one_by_one if len(trials) <= FEW else [own]:
            token = None
            while token is None or token:
                page = self.client.search_runs(
                    [self.experiment_id],
                    which,
                    run_view_type=ViewType.ACTIVE_ONLY,
                    max_results=1000,
                    page_token=token,
                )
                yield from page
                token = page.token or ""

    def _log_scores(self, run_id: str, trial: FrozenTrial, measured: Mapping[str, dict[str, Any]]) -> None:
        throughput = of_trial(trial, measured)
        at = _millis(trial.datetime_complete or datetime.now())
        metrics = [Metric(name, value, at, 0) for name, value in _final(trial.user_attrs, throughput).items()]
        # "no" replaces what was said before a new measurement.
        tags = [RunTag("disturbed", "; ".join(throughput.get("flags") or []) or "no")]
        self.client.log_batch(run_id, metrics=metrics, tags=tags)

    def _copy(self, trial: FrozenTrial, run: Run | None, measured: Mapping[str, dict[str, Any]]) -> None:
        attrs = trial.user_attrs
        ablation = self.definition.get("kind") != "search"
        name = f"{attrs.get('arm')} · seed {attrs.get('seed')}" if ablation else f"trial {trial.number}"
        started, ended = (
            _millis(moment or datetime.now()) for moment in (trial.datetime_start, trial.datetime_complete)
        )
        if run is None:
            tags = {TRIAL: str(trial.number), PARENT: self.parent_run_id}
            run = self.client.create_run(self.experiment_id, start_time=started, tags=tags, run_name=name)
        run_id = run.info.run_id
        self._log_scores(run_id, trial, measured)
        metrics = [
            Metric(key, float(value), ended, int(row["epoch"]))
            for row in attrs.get("curves", [])
            for key, value in row.items()
            if key != "epoch"
        ]
        for start in range(0, len(metrics), 900):
            self.client.log_batch(run_id, metrics=metrics[start : start + 900])
        self.client.log_batch(run_id, params=_params(_settings(trial)), tags=_tags(trial, self.definition))
        if attrs.get("architecture"):
            text = yaml.safe_dump(attrs["architecture"], sort_keys=False, default_flow_style=None)
            self.client.log_text(run_id, text, "architecture.yaml")
        status = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}.get(trial.state, "FAILED")
        self.client.set_terminated(run_id, status, end_time=ended)


def _final(attrs: Mapping[str, Any], speeds: Mapping[str, Any]) -> dict[str, float]:
    """Return a trial's scores under names that explain themselves in the list of runs."""
    train, infer = speeds.get("train") or {}, speeds.get("infer") or {}
    found = {
        "test_accuracy_percent": attrs.get("test_accuracy"),
        "val_accuracy_percent": attrs.get("val_accuracy"),
        "train_images_per_s": train.get("images_per_s"),
        "train_ratio_to_baseline": train.get("ratio"),
        "infer_images_per_s": infer.get("images_per_s"),
        "infer_ratio_to_baseline": infer.get("ratio"),
        "params_M": attrs["params"] / 1e6 if "params" in attrs else None,
        "MACs_G": attrs["macs"] / 1e9 if "macs" in attrs else None,
        "best_epoch": attrs.get("best_epoch"),
        "trial_seconds": (attrs.get("seconds") or {}).get("total"),
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def _settings(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a trial was: its arm and the architecture, a value that all stages share said once."""
    attrs = trial.user_attrs
    settings = {name: attrs.get(name) for name in ("arm", "factor", "seed", "resolution")} | dict(trial.params)
    for field, value in (attrs.get("architecture") or {}).items():
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            settings |= _flat(field.removesuffix("s"), value[0])
        else:
            settings |= _flat(field, value)
    return settings


def _tags(trial: FrozenTrial, definition: Mapping[str, Any]) -> list[RunTag]:
    attrs, stopped = trial.user_attrs, trial.user_attrs.get("stopped") or {}
    tags = {
        "study": definition.get("name"),
        "scale": definition.get("scale"),
        "arm": attrs.get("arm"),
        "seed": attrs.get("seed"),
        "baseline": attrs.get("baseline"),
        "fingerprint": attrs.get("fingerprint"),
        "failure": attrs.get("failure"),
        "stopped": stopped.get("why"),
        NOTE: attrs.get("failure") or stopped.get("text"),
        **(attrs.get("environment") or {}),
    }
    return [RunTag(key, str(value)) for key, value in tags.items() if value is not None]


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {name: item for key, inner in value.items() for name, item in _flat(f"{prefix}.{key}", inner).items()}
    return {prefix: value}


def _params(values: Mapping[str, Any]) -> list[Param]:
    shown = {name: value for name, value in values.items() if value is not None}
    return [Param(name, str(value)[:PARAM_LENGTH]) for name, value in list(shown.items())[:100]]


def check_reachable(uri: str) -> None:
    """Knock at a server before MLflow does, which tries for minutes; make a database file's folder.

    Raises Unreachable, in one line and with passwords hidden, where nobody answers, InputError for what is no store.
    """
    parts = split(uri)
    scheme = "" if parts is None else parts.get_backend_name()
    if parts is not None and (scheme == "postgresql" or (scheme in PORTS and parts.host)):
        try:
            socket.create_connection((parts.host or "localhost", parts.port or PORTS[scheme]), timeout=5).close()
        except (OSError, ValueError) as error:
            raise Unreachable(f"--tracking-uri {masked(uri)}: nobody answers: {first_line(error)}") from error
    elif scheme == "sqlite" and uri.startswith("sqlite:///") and (file := uri.removeprefix("sqlite:///")):
        _check_database(Path(file), uri)
    else:
        raise InputError(
            f"--tracking-uri {masked(uri)}: not a store that works here; "
            "allowed: sqlite:///FILE, postgresql+psycopg://..., http(s)://..."
        )


def _make(uri: str) -> None:
    """Make a SQLite store that is not there yet, whole or not at all: MLflow cannot use one that it made in part."""
    file = Path(uri.removeprefix("sqlite:///")).absolute()  # MLflow keeps what it opened by its name
    if not uri.startswith("sqlite:///") or (file.exists() and file.stat().st_size):
        return
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{part}").search_experiments(max_results=1)
    part.replace(file)


def _check_database(file: Path, uri: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--tracking-uri {uri}: {file.parent} cannot be created: {error.strerror}") from error
    if file.exists():
        try:
            with file.open("rb") as content:
                start = content.read(len(SQLITE))
        except OSError as error:
            raise InputError(f"--tracking-uri {uri}: cannot be read: {error.strerror}") from error
        if start not in (SQLITE, b""):
            raise InputError(f"--tracking-uri {uri}: is not a database")


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
