"""The schema's revisions: bring a database up to date, or refuse one that is not.

Alembic's scripts are in `migrations/` of a checkout and in `pacs/_migrations` of an installed wheel. Several processes may
start at once: a file lock (SQLite) or an advisory lock (PostgreSQL) lets one upgrade while the others wait.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import StringIO
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from pacs.index.connections import make_engine
from pacs.model.errors import ConfigurationError, Unavailable

_LOCK = 0x6D70_6D67


@cache
def head() -> str:
    """Return the revision this version of the archive needs."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


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
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(url: str) -> None:
    """Raise if the tables that exist differ from those that the code expects, with Alembic's own comparison."""
    with _locked(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.check(config)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the tables back to an earlier revision; "base" drops them all."""
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
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if present and present not in known:
        raise ConfigurationError(f"the database is at revision {present}, which is newer than this version of the archive")


def _current(connection: sa.Connection) -> str:
    revision = MigrationContext.configure(connection).get_current_revision() or ""
    connection.rollback()
    return revision


def _config() -> Config:
    package = Path(__file__).resolve().parent.parent
    installed = package / "_migrations"
    scripts = installed if installed.is_dir() else package.parent / "migrations"
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
