"""How the index talks to its database: transactions, retries, and the few places where SQLite and PostgreSQL differ.

SQLite writes begin IMMEDIATE, so that reading and then writing in one transaction cannot lose to another process; PostgreSQL
serialises per study by advisory locks. Errors of the database leave as ours, without a statement's values.
"""

import hashlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pacs.index.compiled import Compiled, Values
from pacs.model.errors import ConfigurationError, OutOfResources, Unavailable
from pacs.ports import Clock

T = TypeVar("T")
Row = sa.Row[*tuple[Any, ...]]
"""A row of any columns."""
_TRIES = 6
_BUSY_S = 10.0
_LOOK_AGAIN_S = 0.0003
_FEED_LOCK = 0x6D70_6663


class Connections:
    """An engine with its clock. `write` and `read` are transactions; `retrying` repeats one that lost a race."""

    def __init__(self, url: str, clock: Clock = time.time) -> None:
        self.clock = clock
        self.engine = make_engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._writer = self.engine.execution_options(pacs_write=True)
        self._replayed = make_engine(url, waits=False).execution_options(pacs_write=True) if self.is_sqlite else self._writer
        self._statements: dict[str, Any] = {}
        self._lookers: list[sqlite3.Connection] = []

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and sees one state of the database on SQLite."""
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes; durable when the block has ended."""
        with _translated(), self._writer.begin() as connection:
            yield connection

    def retrying(self, work: Callable[[sa.Connection], T], *, replayed: bool = False) -> T:
        """Run `work` in a write transaction; again where another one came first (a row of the same UID, a deadlock).

        With `replayed`, SQLite does not wait for the disk: a power cut may undo the last of these transactions, so `work` must
        write only what the next start writes again. Any other transaction makes those before it durable with itself.
        """
        writer = self._replayed if replayed else self._writer
        for attempt in range(1, _TRIES + 1):
            try:
                with writer.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not (isinstance(error, IntegrityError) or _sqlstate(error) in ("40001", "40P01")):
                    raise _as_ours(error) from error
                if attempt == _TRIES:
                    raise Unavailable("the index was too busy; try again") from error
                time.sleep(0.005 * 2**attempt)
            except PoolTimeout as error:
                raise Unavailable("no connection to the index was free in time") from error
        raise AssertionError("unreachable")

    def insert(self, table: sa.Table) -> Any:
        """Return the dialect's INSERT, which knows ON CONFLICT (Any: the two share no type that does)."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def insert_new(self, connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Insert one row unless one of its keys is there already; tells whether it was new."""
        # Not by rowcount, which drivers do not report for INSERT alike.
        statement = self.insert(table).on_conflict_do_nothing().returning(*table.primary_key.columns)
        return connection.execute(statement, dict(row)).first() is not None

    def one_of(self, column: sa.ColumnElement[Any], values: Collection[str]) -> sa.ColumnElement[bool]:
        """Return `column IN values` as one parameter, however many values there are."""
        if len(values) == 1:
            return column == next(iter(values))
        if self.is_sqlite:
            each = sa.func.json_each(sa.literal(orjson.dumps(list(values)).decode(), sa.Text)).table_valued("value")
            return column.in_(sa.select(each.c.value))
        return column == sa.any_(sa.literal(list(values), postgresql.ARRAY(sa.Text)))

    def prepared(self, name: str, build: Callable[["Connections"], T]) -> T:
        """Return the statement `name`, built once: building one anew costs as much as running it on SQLite."""
        try:
            return self._statements[name]  # type: ignore[no-any-return]
        except KeyError:
            return self._statements.setdefault(name, build(self))  # type: ignore[no-any-return]

    def run(
        self,
        connection: sa.Connection,
        name: str,
        build: Callable[["Connections"], Any],
        parameters: Values | Sequence[Values],
    ) -> list[Any]:
        """Run a statement of the way in, within a transaction, and return its rows.

        On SQLite it goes to the driver as it was compiled once: SQLAlchemy's way there costs ten times what SQLite does.
        """
        if not self.is_sqlite:
            result = connection.execute(self.prepared(name, build), parameters)
            return list(result) if result.returns_rows else []
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        return self._compiled(name, build, parameters).run(driver, parameters)

    def look_up(self, name: str, build: Callable[["Connections"], Any], parameters: Values) -> Any:
        """Return the first row of a prepared statement, None if there is none, in a transaction of its own."""
        if not self.is_sqlite:
            with self.read() as connection:
                return connection.execute(self.prepared(name, build), parameters).first()
        with _translated():
            try:
                driver = self._lookers.pop()
            except IndexError:
                driver = sqlite3.connect(self.engine.url.database or "", check_same_thread=False)
                _connected(driver, None)
            try:
                rows = self._compiled(name, build, parameters).run(driver, parameters)
            finally:
                self._lookers.append(driver)
        return rows[0] if rows else None

    def _compiled(self, name: str, build: Callable[["Connections"], Any], parameters: Values | Sequence[Values]) -> Compiled:
        try:
            return self._statements[f"{name} compiled"]  # type: ignore[no-any-return]
        except KeyError:
            given = parameters if isinstance(parameters, Mapping) else parameters[0]
            compiled = Compiled(self.prepared(name, build), self.engine.dialect, given)
            return self._statements.setdefault(f"{name} compiled", compiled)  # type: ignore[no-any-return]

    def any_of(self, column: sa.ColumnElement[Any], parameter: str) -> sa.ColumnElement[bool]:
        """Return `column IN values` for a prepared statement; the values are bound later, as `many` makes them."""
        if self.is_sqlite:
            each = sa.func.json_each(sa.bindparam(parameter, type_=sa.Text)).table_valued("value")
            return column.in_(sa.select(each.c.value))
        return column == sa.any_(sa.bindparam(parameter, type_=postgresql.ARRAY(sa.Text)))

    def many(self, values: Collection[str]) -> Any:
        """Return values as the one parameter that `any_of` takes."""
        return orjson.dumps(list(values)).decode() if self.is_sqlite else list(values)

    def lock_studies(self, connection: sa.Connection, study_instance_uids: Collection[str]) -> None:
        """Wait until no other transaction adds to these studies. SQLite has one writer at a time anyway."""
        if self.is_sqlite or not study_instance_uids:
            return
        # Everyone takes them in the same order, so that two groups cannot wait for each other.
        keys = sorted(
            int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=8).digest(), "big", signed=True)
            for uid in set(study_instance_uids)
        )
        connection.execute(
            sa.text("SELECT count(pg_advisory_xact_lock(k)) FROM unnest(CAST(:keys AS bigint[])) AS k"), {"keys": keys}
        )

    def lock_feed(self, connection: sa.Connection) -> None:
        """Make event ids commit in their order, so that who reads the feed by its last id misses nothing."""
        if not self.is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FEED_LOCK})

    def for_update(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Lock the rows read; SQLite needs no such thing."""
        return statement if self.is_sqlite else statement.with_for_update()

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()
        self._replayed.dispose()
        while self._lookers:
            self._lookers.pop().close()


def make_engine(url: str, *, waits: bool = True) -> sa.Engine:
    """Return an engine with our connection settings. Raises `ConfigurationError` for a URL of another kind.

    SQLite: without `waits`, a commit does not wait for the disk.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ConfigurationError("database.url: not a database URL") from error
    options: dict[str, Any] = {"hide_parameters": True, "json_serializer": _dumps, "json_deserializer": orjson.loads}
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("database.url: SQLite must be a file, sqlite:///path")
        engine = sa.create_engine(parsed, pool_size=8, max_overflow=56, **options)
        sa.event.listen(engine, "connect", _connected if waits else _connected_without_wait)
        sa.event.listen(engine, "begin", _begun)
        return engine
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError("database.url: only sqlite:/// and postgresql+psycopg:// are understood")
    try:
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_size=8, max_overflow=24, pool_pre_ping=True, **options
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError("PostgreSQL needs psycopg: pip install 'mini-pacs[postgres]'") from error


def _dumps(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value).decode()


def _connected(connection: sqlite3.Connection, _: object) -> None:
    # Transactions are ours to begin: the driver would begin them late, and DEFERRED (see `_begun`).
    connection.isolation_level = None
    for pragma in (f"busy_timeout={_BUSY_S * 1000:.0f}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _connected_without_wait(connection: sqlite3.Connection, record: object) -> None:
    _connected(connection, record)
    for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=4000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begun(connection: sa.Connection) -> None:
    # Busy_timeout does not help a reader that turns writer while another writes: it fails at once. Begin as a writer.
    write = connection.get_execution_options().get("pacs_write")
    if not write:
        connection.exec_driver_sql("BEGIN")
        return
    # SQLite's own waiting looks again after 1, 2, 5, 10 ms and more; transactions here take less than the first of them.
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    deadline = time.monotonic() + _BUSY_S
    driver.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise OperationalError("BEGIN IMMEDIATE", None, error) from error
            time.sleep(_LOOK_AGAIN_S)
    finally:
        driver.execute(f"PRAGMA busy_timeout={_BUSY_S * 1000:.0f}")


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _as_ours(error: DBAPIError) -> Exception:
    text = str(error.orig).lower()
    if ("full" in text and "disk" in text) or _sqlstate(error) in ("53100", "53200"):
        return OutOfResources("the index has no room left")
    if _sqlstate(error) in ("42P01", "42703") or "no such table" in text or "no such column" in text:
        return ConfigurationError("the database is not of this version; start `pacs serve` once, which upgrades it")
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return Unavailable("the index cannot be reached or is busy")
    return error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("no connection to the index was free in time") from error
    except DBAPIError as error:
        ours = _as_ours(error)
        if ours is error:
            raise
        raise ours from error
