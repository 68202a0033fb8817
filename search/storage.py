"""The Optuna storage: the queue of trials and the record of what came of them."""

import logging
import re
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Connection, Dialect, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SAWarning, SQLAlchemyError

from search.folders import made
from space.errors import InputError, first_line, nearest, without_passwords

GRACE = 60  # seconds without a sign of life after which a worker on another machine counts as dead
TOGETHER = 20  # attempts to open a storage that others are making
PATIENCE = 600  # seconds for which a database that was there before is waited for
AWAY = "the storage cannot be reached; trying for %d s: %s"
UNOPENED = (SQLAlchemyError, SAWarning, StorageInternalError)
log = logging.getLogger(__name__)
Result = TypeVar("Result")


def masked(url: str) -> str:
    """Return the URL with its password hidden; of text that is no URL, what cannot hold a password."""
    parts = split(url)
    if parts is None:
        return repr(url.rpartition("@")[2].partition(":")[0])
    return without_passwords(url if parts.password is None else parts.render_as_string(hide_password=True))


def split(url: str) -> URL | None:
    """Return the parts of a URL, or None where it is none. What Python says of a wrong one may quote its password."""
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return None
    return None if "@" in (parts.host or "") else parts  # the end of a password in which @ is not written as %40


def open_storage(url: str, *, create: bool = True, write: bool = True, grace: int = GRACE) -> RDBStorage:
    """Open the storage, and create it where it is not there yet and `create` allows it.

    One that is only read, `write` false, keeps nobody else waiting. A worker without a sign of life for `grace` seconds
    counts as dead. A server that goes away later is waited for.
    Raises InputError, in one line and with passwords hidden, where the storage cannot be opened.
    """
    wrong = f"--storage {masked(url)}: not a database URL; allowed: sqlite:///FILE or postgresql+psycopg://..."
    if (parsed := split(url)) is None:
        raise InputError(f"{wrong} (in a password, @ is written %40, / %2F)")
    try:
        sqlite = parsed.get_dialect().name == "sqlite"
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise InputError(wrong) from error
    folder: AbstractContextManager[None] = nullcontext()
    if sqlite and parsed.database and parsed.database != ":memory:":
        file = Path(parsed.database)
        if not create and not file.is_file():
            raise InputError(f"storage {masked(url)} does not exist")
        folder = made(file.parent)
    options = {"connect_args": {"timeout": PATIENCE}} if sqlite else {"pool_pre_ping": True}
    beats = {"heartbeat_interval": max(1, grace // 4), "grace_period": grace}
    try:
        with folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are, since 2021
            warnings.simplefilter("error", SAWarning)  # an option that the driver does not know
            if sqlite:
                _check_own(parsed)
            storage = _opened(url, **beats, engine_kwargs=options, skip_table_creation=not create)
    except InputError:
        raise
    except (*UNOPENED, OSError, ImportError, RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error.__cause__ or error)
        raise InputError(f"--storage {masked(url)}: cannot be opened: {reason}") from error
    if sqlite and write:
        _one_writer(storage.engine)
    elif not sqlite:
        event.listen(storage.engine, "do_connect", _patiently)
    return storage


def _check_own(url: URL) -> None:
    """Refuse the database of another program that counts its versions as Optuna does, such as MLflow."""
    engine = create_engine(url)
    tables = inspect(engine).get_table_names()
    engine.dispose()
    if "alembic_version" in tables and "studies" not in tables:
        raise InputError(f"--storage {masked(str(url))}: is another program's database, perhaps MLflow's")


def _opened(url: str, **options: Any) -> RDBStorage:
    """Open a storage; again where others make the same tables at the same moment.

    Who finds a table or row made meanwhile knows that another got further, so this ends.
    """
    for left in reversed(range(TOGETHER)):
        try:
            return RDBStorage(url, **options)
        except SQLAlchemyError as error:
            if not left or not re.search("exist|unique", str(error), re.IGNORECASE):
                raise
            time.sleep(0.1)
    raise AssertionError


def _one_writer(engine: Engine) -> None:
    """Let a transaction on SQLite have the database from its start.

    SQLite locks no rows: without this, two workers can both read that a trial waits, and both claim it.
    """

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # else the driver begins transactions of its own

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    engine.dispose()


def _patiently(dialect: Dialect, record: Any, args: Any, options: Any) -> Any:
    """Connect to a server that was there before, again and again for as long as PATIENCE allows."""
    wait, end = 0.5, time.monotonic() + PATIENCE
    while True:
        try:
            return dialect.connect(*args, **options)
        except dialect.loaded_dbapi.Error as error:
            if time.monotonic() + wait > end:
                raise
            if wait == 0.5:
                log.warning(AWAY, PATIENCE, first_line(error))
            time.sleep(wait)
            wait = min(2 * wait, 10)


def patiently(write: Callable[[], Result], tell: Callable[[str], None]) -> Result:
    """Write to the storage, again where the server went away in the middle."""
    end, told = time.monotonic() + PATIENCE, False
    while True:
        try:
            return write()
        except StorageInternalError as error:
            if time.monotonic() > end:
                raise
            if not told:
                tell(AWAY % (PATIENCE, str(error.__cause__).splitlines()[0]))
            told = True
            time.sleep(1)


def find_study(study: str, storage: BaseStorage) -> optuna.Study:
    """Return the study of that name, with or without its scale. Raises InputError where there is none, or several."""
    names = optuna.get_all_study_names(storage)
    matches = [name for name in names if name == study] or [n for n in names if n.rsplit("-", 1)[0] == study]
    if len(matches) != 1:
        there = f"there are {', '.join(matches or names)}" if names else "the storage has none"
        problem = "is not clear" if matches else f"is not in the storage{nearest(study, names)}"
        raise InputError(f"study {study!r} {problem}; {there}")
    return optuna.load_study(study_name=matches[0], storage=storage)


def definition(study: optuna.Study) -> dict[str, Any]:
    """Return what search.run keeps of a study. Raises InputError for a study of another program's."""
    if "definition" not in study.user_attrs:
        raise InputError(f"study {study.study_name!r} is in the storage, but search.run did not make it")
    return dict(study.user_attrs["definition"])


def trial_id(storage: RDBStorage, study: optuna.Study, number: int) -> int:
    """Return the storage's own number of a trial."""
    study_id = storage.get_study_id_from_name(study.study_name)
    return storage.get_trial_id_from_study_id_trial_number(study_id, number)


def set_attrs(storage: RDBStorage, id_: int, attrs: dict[str, Any]) -> None:
    """Record facts about a trial that is not finished yet."""
    for key, value in attrs.items():
        storage.set_trial_user_attr(id_, key, value)
