"""The Optuna storage: the queue of trials and the record of what came of them."""

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from space.errors import InputError


def masked(url: str) -> str:
    """Return the URL with its password hidden; of text that is no URL, what cannot hold a password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return repr(url.rpartition("@")[2])


def open_storage(url: str, *, create: bool = True) -> RDBStorage:
    """Open the storage, and create it where it is not there yet and `create` allows it.

    Raises InputError, in one line and with passwords hidden, where that cannot be done.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
            file = Path(parsed.database)
            if not create and not file.is_file():
                raise InputError(f"storage {masked(url)} does not exist")
            file.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return RDBStorage(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InputError(
            f"--storage {masked(url)}: not a database URL; allowed: sqlite:///FILE or postgresql+psycopg://..."
        ) from error
    except (SQLAlchemyError, OSError, ImportError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise InputError(f"--storage {masked(url)}: cannot be opened: {reason}") from error


def trial_id(storage: RDBStorage, study: optuna.Study, number: int) -> int:
    """Return the storage's own number of a trial."""
    study_id = storage.get_study_id_from_name(study.study_name)
    return storage.get_trial_id_from_study_id_trial_number(study_id, number)


def set_attrs(storage: RDBStorage, id_: int, attrs: dict[str, Any]) -> None:
    """Record facts about a trial that is not finished yet."""
    for key, value in attrs.items():
        storage.set_trial_user_attr(id_, key, value)
