"""Studies as files: to move one, with its records and measurements, from one storage to another."""

import gzip
import hashlib
import json
import zlib
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.storage import find_study, open_storage
from space.errors import InputError, first_line

VERSION = 1
MALFORMED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


def export_study(name: str, storage: RDBStorage, file: Path) -> int:
    """Write a study to `file`, JSON packed by gzip, whole or not at all; return its number of trials.

    Raises InputError for a study that is not there, and for a file that cannot be written.
    """
    opened = find_study(name, storage)
    body = {
        "study": opened.study_name,
        "directions": [direction.name for direction in opened.directions],
        "user_attrs": opened.user_attrs,
        "trials": [_packed(trial) for trial in opened.get_trials(deepcopy=False)],
    }
    text = json.dumps(body, sort_keys=True)
    packed = json.dumps({"version": VERSION, "sha256": _digest(text), "body": body})
    part = Path(f"{file}.part")
    try:
        part.write_bytes(gzip.compress(packed.encode(), mtime=0))
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InputError(f"--export {file}: cannot be written: {error.strerror}") from error
    return len(body["trials"])


def import_study(file: Path, storage: RDBStorage | str) -> str:
    """Add the study in `file` to the storage; return its name. Trials that ran when it was written wait again.

    The URL of a storage is opened when the file has been found whole.

    Raises InputError for a file that is damaged or of another version, and where the storage has a study of that name.
    """
    try:
        packed = json.loads(gzip.decompress(file.read_bytes()))
        version, body = packed["version"], packed["body"]
    except (OSError, EOFError, zlib.error, *MALFORMED) as error:
        raise InputError(f"--import {file}: not a study that was exported: {first_line(error)}") from error
    if version != VERSION:
        raise InputError(f"--import {file}: has version {version}; this workbench reads {VERSION}")
    if packed.get("sha256") != _digest(json.dumps(body, sort_keys=True)):
        raise InputError(f"--import {file}: is damaged: its checksum does not match")
    try:
        name, user_attrs = str(body["study"]), dict(body["user_attrs"])
        directions = [StudyDirection[one] for one in body["directions"]]
        trials = [_unpacked(trial) for trial in body["trials"]]
    except MALFORMED as error:
        raise InputError(f"--import {file}: does not hold a whole study: {first_line(error)}") from error
    if isinstance(storage, str):
        storage = open_storage(storage)
    if name in optuna.get_all_study_names(storage):
        raise InputError(f"--import {file}: the storage has a study {name!r} already; import into another --storage")
    opened = optuna.create_study(study_name=name, storage=storage, directions=directions)
    opened.add_trials(trials)
    for key, value in user_attrs.items():
        opened.set_user_attr(key, value)
    return name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _packed(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "distributions": {name: distribution_to_json(one) for name, one in trial.distributions.items()},
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "started": trial.datetime_start.isoformat() if trial.datetime_start else None,
        "completed": trial.datetime_complete.isoformat() if trial.datetime_complete else None,
    }


def _unpacked(packed: dict[str, Any]) -> FrozenTrial:
    state = TrialState[packed["state"]]
    attrs = packed["user_attrs"]
    if state is TrialState.RUNNING:
        state, attrs = TrialState.WAITING, {name: one for name, one in attrs.items() if name != "worker"}
    started, completed = (
        datetime.fromisoformat(packed[key]) if packed[key] and state is not TrialState.WAITING else None
        for key in ("started", "completed")
    )
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=packed["values"],
        datetime_start=started,
        datetime_complete=completed,
        params=packed["params"],
        distributions={name: json_to_distribution(one) for name, one in packed["distributions"].items()},
        user_attrs=attrs,
        system_attrs=packed["system_attrs"],
        intermediate_values={},
    )
