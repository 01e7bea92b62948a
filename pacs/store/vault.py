"""The identity vault: what de-identification took away, sealed under the identity key, found by keyed digests (PS3.15 E.1.1).

One row a patient, study, series and instance, and in each only what its parents do not say already. Rows lie in an SQLite
file that does not wait for the disk; an entry is durable because it was appended to this writer's log with one fdatasync, which
runs beside that of the segment (docs/adr/0015). After a power cut the log is replayed. Whoever reads the files without the
key sees how many rows there are and which belong together, no value and no UID. Layout: docs/format.md, section 5.
"""

import contextlib
import fcntl
import hmac
import os
import secrets
import sqlite3
import tempfile
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.errors import ConfigurationError, IntegrityError, OutOfResources, Unavailable
from pacs.model.identity import Found, Taken
from pacs.model.instance import InstanceKey
from pacs.model.query import Level
from pacs.ports import KeyProvider
from pacs.store.keys import derive, sync_folder
from pacs.store.vault_rows import (
    ENTRY_HEAD_BYTES,
    NAME_BYTES,
    Elements,
    Row,
    difference,
    entries,
    entry_of,
    generation_in,
    merged,
    packed,
    plain_row,
    read_row,
    unpacked,
)

LOG_BYTES = 4 << 20
_CONTEXT = b"mini-pacs vault"
_PREFIX_BYTES = 16
_REMEMBERED = 256
_LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
_TABLES = """
CREATE TABLE IF NOT EXISTS vault (one INTEGER PRIMARY KEY, version INTEGER, key_id TEXT, wrapped BLOB);
CREATE TABLE IF NOT EXISTS record (name BLOB PRIMARY KEY, level INTEGER, parent BLOB, sealed BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ix_record_parent ON record (parent);
CREATE TABLE IF NOT EXISTS found (digest BLOB, name BLOB, PRIMARY KEY (digest, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (writer TEXT PRIMARY KEY, generation INTEGER);
"""


@dataclass(slots=True)
class _Known:
    """A row that is in the vault: what holds at its place, parents included, and what it can be found by."""

    held: dict[int, bytes] = field(repr=False)
    names: set[tuple[str, str]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the vault holds of one entity: where it stands, and tag -> original element (b"" for none), parents included."""

    found: Found
    taken: Elements = field(repr=False)


class Vault:
    """The vault in one folder; safe to share between threads, and between processes with writer names of their own."""

    def __init__(self, folder: Path, provider: KeyProvider, writer: str) -> None:
        """Use the vault in `folder`; `create` and `open` are the ways in."""
        self._folder = folder
        self._path = folder / "vault.db"
        self._provider = provider
        self._writer = writer
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._names: dict[tuple[str, ...], bytes] = {}
        self._forgettings = 0
        self._log = -1
        self._position = 0
        self._generation = 0
        self._name_of_log = ""
        self._full_once = False
        self._cipher: AESGCM
        self._digest_key = b""

    @classmethod
    def create(cls, folder: Path, provider: KeyProvider) -> None:
        """Make the vault if it is not there; two processes may do so at once, and one that looks sees all of it or nothing."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as beside:
            vault = cls(Path(beside), provider, "")
            os.close(os.open(vault._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with vault._lock, _sqlite_errors():
                connection = vault._connect()
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("BEGIN IMMEDIATE")
                for statement in filter(str.strip, _TABLES.split(";")):
                    connection.execute(statement)
                wrapped = provider.wrap(secrets.token_bytes(32), _CONTEXT)
                connection.execute("INSERT INTO vault VALUES (1, 1, ?, ?)", (provider.key_id, wrapped))
                connection.execute("COMMIT")
            # Closing brings everything into the one file, which then gets its name at once, unless another was quicker.
            vault.close()
            with contextlib.suppress(FileExistsError):
                os.link(vault._path, folder / "vault.db")
        sync_folder(folder)

    @classmethod
    def open(cls, folder: Path, provider: KeyProvider, writer: str) -> "Vault":
        """Open the vault.

        Parameters
        ----------
        writer : str
            Name of this process among those that write: each has a log of its own.

        Raises
        ------
        ConfigurationError
            The vault is missing, or `provider` does not hold the key it was made with.
        """
        vault = cls(folder, provider, writer)
        if not vault._path.exists():
            raise ConfigurationError(
                f"the identity vault {vault._path} is missing; bring it back from its backup, or say deid.vault = false"
            )
        try:
            row = vault._one("SELECT version, key_id, wrapped FROM vault")
        except Unavailable as error:
            raise ConfigurationError(f"{vault._path} is not an identity vault; bring it back from its backup") from error
        if row is None or row[0] != 1:
            raise ConfigurationError(f"{vault._path} is not an identity vault that this release knows")
        secret = provider.unwrap(row[1], row[2], _CONTEXT)
        vault._cipher = AESGCM(derive(secret, b"mini-pacs vault records"))
        vault._digest_key = derive(secret, b"mini-pacs vault digests")
        return vault

    def recover(self) -> None:
        """Bring in what the logs hold: after a power cut the database may be older than they are."""
        for path in sorted(self._folder.glob("*.log")):
            with self._transaction(), path.open("rb") as file:
                self._replay(file.read(LOG_BYTES), self._generation_of(path.stem))

    # --- writing -------------------------------------------------------------------------------------------------------

    def keep(self, group: Sequence[tuple[InstanceKey, bytes, Taken]]) -> None:
        """Keep what was taken from a group of instances (key, content digest, what was taken); durable on return.

        What is there already stays. Raises `OutOfResources`, `Unavailable`; then nothing of the group counts.
        """
        with self._lock:
            added: list[bytes] = []
            rows: list[Row] = []
            digests: list[tuple[bytes, bytes]] = []
            try:
                with self._transaction() as connection:
                    self._notice_forgetting(connection)
                    for key, digest, taken in group:
                        self._add(connection, key, digest, taken, rows, digests, added)
                    connection.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?)", rows)
                    connection.executemany("INSERT OR IGNORE INTO found VALUES (?, ?)", digests)
                    if rows or digests:
                        self._append(packed(rows, digests))
                if self._log >= 0 and (rows or digests):
                    os.fdatasync(self._log)
            except BaseException:
                # What was remembered in a transaction that did not end well is not in the vault.
                for name in added:
                    self._known.pop(name, None)
                raise

    def has(self, sop_instance_uid: str, digest: bytes) -> bool:
        """Say whether the vault holds the identity of an instance with this content."""
        name = self._instance_name(sop_instance_uid, digest)
        return self._one("SELECT 1 FROM record WHERE name = ?", name) is not None

    def _add(
        self,
        connection: sqlite3.Connection,
        key: InstanceKey,
        digest: bytes,
        taken: Taken,
        rows: list[Row],
        digests: list[tuple[bytes, bytes]],
        added: list[bytes],
    ) -> None:
        instance = self._instance_name(key.sop_instance_uid, digest)
        if connection.execute("SELECT 1 FROM record WHERE name = ?", (instance,)).fetchone() is not None:
            return
        uids = (taken.patient_id, key.study_instance_uid, key.series_instance_uid, key.sop_instance_uid)
        whole: dict[int, bytes] = {}
        for level in _LEVELS:
            whole.update(taken.levels.get(level, {}))
        parent = b""
        inherited: dict[int, bytes] = {}
        for depth, level in enumerate(_LEVELS):
            name = instance if level is Level.IMAGE else self._remembered_name(level, uids[: depth + 1])
            known = None if level is Level.IMAGE else self._known.get(name)
            if known is None:
                mine: Elements = whole if level is Level.IMAGE else taken.levels.get(level, {})
                sealed = None
                if level is not Level.IMAGE:
                    sealed = connection.execute("SELECT sealed FROM record WHERE name = ?", (name,)).fetchone()
                if sealed is not None:
                    # Another process wrote it, and its log may not be on the disk yet: so ours bears it, too.
                    own = self._unsealed(name, sealed[0])[1]
                    rows.append((name, depth, parent, sealed[0]))
                else:
                    own = (
                        difference(inherited, mine)
                        if level is Level.IMAGE
                        else {tag: value for tag, value in mine.items() if inherited.get(tag) != value}
                    )
                    rows.append((name, depth, parent, self._sealed(name, uids[depth], own)))
                known = _Known(merged(inherited, own), set())
                if level is Level.PATIENT:
                    digests.append((self._digest("pseudonym", taken.patient_id), name))
                elif level is not Level.IMAGE:
                    digests.append((self._digest("pseudonym", uids[depth]), name))
                if level is not Level.IMAGE:
                    self._remember(name, known)
                    added.append(name)
            for wanted, kind, value in taken.names:
                if wanted is level and (kind, value) not in known.names:
                    digests.append((self._digest(kind, _normalised(kind, value)), name))
                    known.names.add((kind, value))
                    added.append(name)
            parent, inherited = name, known.held

    def _append(self, payload: bytes) -> None:
        """Append one entry to the log, still without waiting for the disk. The caller holds the write transaction."""
        if self._log < 0:
            self._open_log()
        entry = entry_of(payload, self._generation)
        size = len(entry)
        if self._position + size > LOG_BYTES:
            self._restart_log()
            return
        try:
            written = os.pwrite(self._log, entry, self._position)
        except OSError as error:
            raise OutOfResources("no room for the log of the identity vault") from error
        if written != size:
            raise OutOfResources("no room for the log of the identity vault")
        self._position += size

    def _open_log(self) -> None:
        """Take the first log of our name that no other process holds; its space is there before it is needed."""
        for number in range(1000):
            name = self._writer if not number else f"{self._writer}.{number}"
            try:
                log = os.open(self._folder / f"{name}.log", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise OutOfResources("no room for the log of the identity vault") from error
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(log)
                continue
            try:
                missing = LOG_BYTES - os.fstat(log).st_size
                if missing > 0:
                    # Written, not only reserved: fdatasync of an overwrite need not wait for the file system's journal.
                    os.pwrite(log, bytes(missing), LOG_BYTES - missing)
                    os.fsync(log)
                    sync_folder(self._folder)
            except OSError as error:
                os.close(log)
                raise OutOfResources("no room for the log of the identity vault") from error
            self._log, self._name_of_log = log, name
            self._generation = self._generation_of(name)
            # After a power cut the database may be older than the log of our predecessor.
            self._position = self._replay(os.pread(log, LOG_BYTES, 0), self._generation)
            return
        raise Unavailable("too many processes write the identity vault under one name")

    def _restart_log(self) -> None:
        """Begin the log again; everything so far, this transaction too, is made durable in the database instead.

        A commit that waits for the disk makes all commits before it durable as well: they are in one write-ahead log.
        """
        self._generation += 1
        self._position = 0
        connection = self._connect()
        connection.execute("INSERT OR REPLACE INTO log VALUES (?, ?)", (self._name_of_log, self._generation))
        self._full_once = True

    def _replay(self, content: bytes, generation: int) -> int:
        """Write what a log holds, and return where it ends; the caller is in a write transaction."""
        connection, position = self._connect(), 0
        for payload in entries(content, generation):
            rows, digests = unpacked(payload)
            connection.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?)", rows)
            connection.executemany("INSERT OR IGNORE INTO found VALUES (?, ?)", digests)
            position += ENTRY_HEAD_BYTES + len(payload)
        return position

    def forget(self, study_instance_uid: str) -> int:
        """Remove what was taken from a study, by its pseudonymous UID, and its patient's if nothing else is theirs.

        Returns how many rows went. Rows, write-ahead log and the logs of all writers are overwritten on the disk.
        """
        with self._lock:
            with _sqlite_errors():
                for pragma in ("secure_delete=ON", "synchronous=FULL"):
                    self._connect().execute(f"PRAGMA {pragma}")
            with self._transaction() as connection:
                gone = self._below_study(connection, study_instance_uid)
                rows = [(name,) for name in gone]
                connection.executemany("DELETE FROM found WHERE name = ?", rows)
                connection.executemany("DELETE FROM record WHERE name = ?", rows)
                # Every log begins anew: what it holds so far is in the database, which waits for the disk with this commit.
                for path in self._folder.glob("*.log"):
                    statement = "INSERT OR REPLACE INTO log VALUES (?, ?)"
                    connection.execute(statement, (path.stem, self._generation_of(path.stem) + 1))
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                connection.execute(f"PRAGMA user_version={version + 1}")
            with self._transaction():
                # Nobody appends while we are in a transaction; a log whose writer has not begun anew yet is all obsolete.
                for path in self._folder.glob("*.log"):
                    self._overwrite(path)
            with _sqlite_errors():
                self._connect().execute("PRAGMA synchronous=NORMAL")
                self._connect().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._known.clear()
            return len(gone)

    def _below_study(self, connection: sqlite3.Connection, study_instance_uid: str) -> list[bytes]:
        """Return the names of a study's rows, and of its patient's if it has no other study."""
        wanted = "SELECT name FROM found WHERE digest = ?"
        names = [name for (name,) in connection.execute(wanted, (self._digest("pseudonym", study_instance_uid),))]
        gone: list[bytes] = []
        patients: set[bytes] = set()
        while names:
            name = names.pop()
            gone.append(name)
            row = connection.execute("SELECT level, parent FROM record WHERE name = ?", (name,)).fetchone()
            if row is not None and _LEVELS[row[0]] is Level.STUDY:
                patients.add(row[1])
            names += [child for (child,) in connection.execute("SELECT name FROM record WHERE parent = ?", (name,))]
        for patient in patients:
            children = {child for (child,) in connection.execute("SELECT name FROM record WHERE parent = ?", (patient,))}
            if children <= set(gone):
                gone.append(patient)
        return gone

    def _overwrite(self, path: Path) -> None:
        with path.open("r+b") as file:
            if generation_in(file.read(ENTRY_HEAD_BYTES)) == self._generation_of(path.stem):
                return
            file.seek(0)
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())

    def _notice_forgetting(self, connection: sqlite3.Connection) -> None:
        """Begin anew where somebody has forgotten a study since: parents that we remember may be gone."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == self._forgettings:
            return
        self._forgettings = version
        self._known.clear()
        if self._log >= 0:
            self._generation = self._generation_of(self._name_of_log)
            self._position = 0

    # --- reading -------------------------------------------------------------------------------------------------------

    def of_instance(self, sop_instance_uid: str, digest: bytes) -> Identity | None:
        """Return what was taken from an instance with this content, or None if the vault does not know it."""
        name = self._instance_name(sop_instance_uid, digest)
        row = self._one("SELECT 1 FROM record WHERE name = ?", name)
        return None if row is None else self._identity(name)

    def of_study(self, study_instance_uid: str) -> Identity | None:
        """Return what was taken at the level of a study and its patient, by its pseudonymous UID."""
        return next((one for one in self.under(study_instance_uid) if one.found.level is Level.STUDY), None)

    def under(self, pseudonym: str) -> list[Identity]:
        """Return what the vault holds under a pseudonymous UID or Patient ID."""
        prefix = self._digest("instance", pseudonym)[:_PREFIX_BYTES]
        rows = self._all("SELECT name FROM found WHERE digest = ?", self._digest("pseudonym", pseudonym))
        rows += self._all("SELECT name FROM record WHERE name >= ? AND name < ?", prefix, _after(prefix))
        return [self._identity(name) for (name,) in rows]

    def find(self, kind: str, value: str) -> list[Identity]:
        """Return who or what was known by `value` before.

        Parameters
        ----------
        kind : {"id", "patient", "name", "accession", "uid"}
            "patient" takes the Patient ID and its issuer, joined by a backslash. Names are found whatever their case.
        """
        rows = self._all("SELECT name FROM found WHERE digest = ?", self._digest(kind, _normalised(kind, value)))
        return [self._identity(name) for (name,) in rows]

    def below(self, found: Found) -> Iterator[Identity]:
        """Yield what belongs directly to a patient, study or series."""
        uids = (found.patient_id, found.study_instance_uid, found.series_instance_uid)
        depth = _LEVELS.index(found.level) + 1
        name = self._name(found.level, *uids[:depth])
        for (child,) in self._all("SELECT name FROM record WHERE parent = ?", name):
            yield self._identity(child)

    def count(self) -> int:
        """Return how many rows there are."""
        row = self._one("SELECT count(*) FROM record")
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close files and forget what is remembered."""
        with self._lock:
            self._known.clear()
            self._close_log()
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _identity(self, name: bytes) -> Identity:
        chain: list[tuple[str, dict[int, bytes]]] = []
        while name:
            row = self._one("SELECT parent, sealed FROM record WHERE name = ?", name)
            if row is None:
                raise IntegrityError("the identity vault lacks a row that another one belongs to")
            chain.append(self._unsealed(name, row[1]))
            name = row[0]
        chain.reverse()
        taken: dict[int, bytes] = {}
        for _, own in chain:
            taken = merged(taken, own)
        uids = [pseudonym for pseudonym, _ in chain]
        return Identity(Found(_LEVELS[len(chain) - 1], *uids), taken)

    # --- sealing and naming --------------------------------------------------------------------------------------------

    def _sealed(self, name: bytes, pseudonym: str, own: Elements) -> bytes:
        plain = plain_row(pseudonym, own)
        nonce = secrets.token_bytes(12)
        return nonce + self._cipher.encrypt(nonce, plain, name)

    def _unsealed(self, name: bytes, sealed: bytes) -> tuple[str, dict[int, bytes]]:
        try:
            plain = self._cipher.decrypt(sealed[:12], sealed[12:], name)
        except (InvalidTag, ValueError) as error:
            raise IntegrityError("a row of the identity vault was changed") from error
        return read_row(plain)

    def _digest(self, kind: str, *parts: str) -> bytes:
        message = "\0".join((kind, *parts)).encode("utf-8", "surrogateescape")
        return hmac.digest(self._digest_key, message, "sha256")[:NAME_BYTES]

    def _remembered_name(self, level: Level, uids: tuple[str, ...]) -> bytes:
        name = self._names.get(uids)
        if name is None:
            if len(self._names) >= 4 * _REMEMBERED:
                self._names.clear()
            name = self._names[uids] = self._name(level, *uids)
        return name

    def _name(self, level: Level, *uids: str) -> bytes:
        return self._digest(f"record {level}", *uids)

    def _instance_name(self, sop_instance_uid: str, digest: bytes) -> bytes:
        """Name an instance so that all contents under one UID stand together."""
        return self._digest("instance", sop_instance_uid)[:_PREFIX_BYTES] + digest[: NAME_BYTES - _PREFIX_BYTES]

    def _remember(self, name: bytes, known: _Known) -> None:
        self._known[name] = known
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _close_log(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _generation_of(self, log: str) -> int:
        row = self._connect().execute("SELECT generation FROM log WHERE writer = ?", (log,)).fetchone()
        return int(row[0]) if row else 0

    # --- SQLite --------------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        # SQLite connections must not be carried over a fork.
        if self._connection is None or self._process != os.getpid():
            connection = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous=NORMAL")
            self._connection, self._process = connection, os.getpid()
        return self._connection

    def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock, _sqlite_errors():
            row: tuple[Any, ...] | None = self._connect().execute(statement, values).fetchone()
            return row

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, _sqlite_errors():
            return self._connect().execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _sqlite_errors():
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                if self._full_once:
                    # SQLite does not let go of a PRAGMA within a transaction: this one commits, the next one waits.
                    connection.execute("COMMIT")
                    connection.execute("PRAGMA synchronous=FULL")
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("UPDATE log SET generation = generation WHERE writer = ?", (self._name_of_log,))
                    connection.execute("COMMIT")
                    connection.execute("PRAGMA synchronous=NORMAL")
                    self._full_once = False
                else:
                    connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                # Where the log stands is found anew: what was begun or replayed in this transaction is not in the database.
                self._full_once = False
                self._close_log()
                raise


def _normalised(kind: str, value: str) -> str:
    """Return a value as it is looked for: NFC, no padding; names without case and trailing separators."""
    text = unicodedata.normalize("NFC", value).strip(" \0")
    if kind == "name":
        return text.casefold().split("=")[0].rstrip("^ ")
    return "\\".join(part.strip(" ") for part in text.split("\\")) if kind == "patient" else text


def _after(prefix: bytes) -> bytes:
    """Return what sorts behind everything that begins with `prefix`."""
    return prefix + b"\xff" * NAME_BYTES


@contextmanager
def _sqlite_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC"):
            raise OutOfResources("no room for the identity vault") from error
        raise Unavailable(f"the identity vault cannot be used now ({error.sqlite_errorname})") from error
