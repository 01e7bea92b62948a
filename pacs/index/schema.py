"""The schema's revisions: bring a database up to date, or refuse one that is not.

Alembic's scripts are in `migrations/` of a checkout and in `pacs/_migrations` of an installed wheel. Several processes may
start at once: a file lock (SQLite) or an advisory lock (PostgreSQL) lets one upgrade while the others wait.

Every process asks whether the database is at the newest revision, and hardly any changes one: the question is answered without
Alembic, whose import and whose reading of all scripts cost half a second of CPU.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from pacs.index.connections import make_engine
from pacs.model.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x6D70_6D67
_ASSIGNED = re.compile(r"^(revision|down_revision)\b[^=\n]*=\s*(\S+)", re.MULTILINE)


@cache
def head() -> str:
    """Return the revision this version of the archive needs."""
    (newest,) = _revisions().keys() - _revisions().values()
    return newest


def upgrade(url: str) -> None:
    """Make or upgrade the tables of a database to `head()`; a second call changes nothing.

    Raises
    ------
    ConfigurationError
        The database is of a newer version than this one, or its URL is not usable.
    Unavailable
        The database cannot be reached.
    """
    with _locked(url) as connection:
        present = _current(connection)
        if present == head():
            return
        _refuse_unknown(present)
        from alembic import command

        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(url: str) -> None:
    """Raise if the tables that exist differ from those that the code expects, with Alembic's own comparison."""
    from alembic import command

    with _locked(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.check(config)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the tables back to an earlier revision; "base" drops them all."""
    from alembic import command

    with _locked(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def revision_check(url: str) -> None:
    """Raise `ConfigurationError` unless the database is at `head()`, `Unavailable` if it cannot be reached."""
    engine = make_engine(url)
    try:
        revision_check_engine(engine)
    finally:
        engine.dispose()


def revision_check_engine(engine: sa.Engine) -> None:
    """Like `revision_check`, over an engine that is open already."""
    database = engine.url.database or ""
    if engine.dialect.name == "sqlite" and not Path(database).exists():
        raise ConfigurationError("there is no database yet; start `pacs serve` once, which prepares it")
    try:
        with engine.connect() as connection:
            present = _current(connection)
    except OperationalError as error:
        raise Unavailable("the database cannot be reached") from error
    if present != head():
        _refuse_unknown(present)
        raise ConfigurationError(
            f"the database is at revision {present or 'none'}, not {head()}; start `pacs serve` once, which upgrades it"
        )


def _refuse_unknown(present: str) -> None:
    if present and present not in _revisions():
        raise ConfigurationError(f"the database is at revision {present}, which is newer than this version of the archive")


def _current(connection: sa.Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        connection.rollback()
        return ""
    revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() or ""
    connection.rollback()
    return str(revision)


@cache
def _revisions() -> dict[str, str]:
    """Return every revision and the one before it, as the scripts say in their first lines."""
    found = {}
    for path in (_scripts() / "versions").glob("*.py"):
        names = dict(_ASSIGNED.findall(path.read_text(encoding="utf-8")))
        found[names["revision"].strip("\"'")] = names["down_revision"].strip("\"'")
    return found


def _scripts() -> Path:
    package = Path(__file__).resolve().parent.parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _config() -> "Config":
    from alembic.config import Config

    scripts = _scripts()
    config = Config(stdout=StringIO())
    # Config is a configparser: "%" in a path would be taken for interpolation.
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _locked(url: str) -> Iterator[sa.Connection]:
    engine = make_engine(url)
    try:
        if engine.dialect.name == "sqlite":
            with _file_locked(Path(engine.url.database or "")), engine.connect() as connection:
                # Kept in the file: readers and a writer then do not block each other. Not possible within a transaction.
                dbapi = connection.connection.dbapi_connection
                assert dbapi is not None
                dbapi.execute("PRAGMA journal_mode=WAL").close()
                yield connection
        else:
            with engine.connect() as connection:
                connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
                connection.commit()
                try:
                    yield connection
                finally:
                    connection.rollback()
                    connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
                    connection.commit()
    except OperationalError as error:
        raise Unavailable("the database cannot be reached") from error
    finally:
        engine.dispose()


@contextmanager
def _file_locked(database: Path) -> Iterator[None]:
    try:
        # Made here, so that nobody else may read it whatever the umask says.
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        lock = os.open(database.with_name(database.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot use the database file {database}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
