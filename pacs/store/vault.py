"""The identity vault: what de-identification took away, sealed under the identity key, found by keyed digests (PS3.15 E.1.1).

One row a patient, study, series and instance, and in each only what its parents do not say already. Rows lie in an SQLite
file that does not wait for the disk (`vault_file.py`); an entry is durable because it was appended to this writer's log with
one fdatasync (`journal.py`), which runs beside that of the segment (docs/adr/0015). After a power cut the log is replayed.
Whoever reads the files without the key sees how many rows there are and which belong together, no value and no UID
(`vault_seals.py`). Layout: docs/format.md, section 5.
"""

import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from pacs.model.errors import ConfigurationError, IntegrityError, Unavailable
from pacs.model.identity import Found, Taken
from pacs.model.instance import InstanceKey
from pacs.model.query import Level
from pacs.ports import KeyProvider
from pacs.store import journal
from pacs.store.journal import Journal
from pacs.store.vault_file import VaultFile
from pacs.store.vault_rows import Elements, Row, difference, merged, packed, unpacked
from pacs.store.vault_seals import Seals, after

_CONTEXT = b"mini-pacs vault"
_REMEMBERED = 256
_LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)


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

    def __init__(self, folder: Path, file: VaultFile, seals: Seals, writer: str) -> None:
        """Use the vault in `folder`; `create` and `open` are the ways in."""
        self._folder = folder
        self._file = file
        self._seals = seals
        self._journal = Journal(folder, writer)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._forgettings = 0

    @classmethod
    def create(cls, folder: Path, provider: KeyProvider) -> None:
        """Make the vault if it is not there; two processes may do so at once, and one that looks sees all of it or nothing."""
        VaultFile.create(folder, *provider.wrap_named(secrets.token_bytes(32), _CONTEXT))

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
        file = VaultFile(folder)
        if not file.path.exists():
            raise ConfigurationError(
                f"the identity vault {file.path} is missing; bring it back from its backup, or say deid.vault = false"
            )
        try:
            row = file.one("SELECT version, key_id, wrapped FROM vault")
        except Unavailable as error:
            raise ConfigurationError(f"{file.path} is not an identity vault; bring it back from its backup") from error
        if row is None or row[0] != 1:
            raise ConfigurationError(f"{file.path} is not an identity vault that this release knows")
        return cls(folder, file, Seals(provider.unwrap(row[1], row[2], _CONTEXT)), writer)

    @property
    def wrapped_with(self) -> str:
        """Name of the key that wraps the vault's secret."""
        row = self._file.one("SELECT key_id FROM vault")
        return str(row[0]) if row else ""

    @classmethod
    def rewrap(cls, folder: Path, provider: KeyProvider) -> bool:
        """Wrap the vault's secret with the key that `provider` wraps with, if another does; returns whether it was.

        Not a row is touched. Raises as `open`.
        """
        vault = cls.open(folder, provider, "")
        try:
            with vault._file.overwriting(), vault._transaction() as connection:
                key_id, wrapped = connection.execute("SELECT key_id, wrapped FROM vault").fetchone()
                if key_id == provider.key_id:
                    return False
                anew = provider.wrap_named(provider.unwrap(key_id, wrapped, _CONTEXT), _CONTEXT)
                connection.execute("UPDATE vault SET key_id = ?, wrapped = ?", anew)
                return True
        finally:
            vault.close()

    def recover(self) -> None:
        """Bring in what the logs hold: after a power cut the database may be older than they are."""
        for path in journal.logs(self._folder):
            with self._transaction():
                self._replay(journal.payloads(path, self._file.generation_of(path.stem)))

    # --- writing -------------------------------------------------------------------------------------------------------

    def keep(self, group: Sequence[tuple[InstanceKey, bytes, Taken]]) -> None:
        """Keep what was taken from a group of instances (key, content digest, what was taken); durable on return.

        What is there already stays. Raises `OutOfResources`, `Unavailable`; then nothing of the group counts.
        """
        with self._file.lock:
            added: list[bytes] = []
            rows: list[Row] = []
            digests: list[tuple[bytes, bytes]] = []
            full = False
            try:
                with self._transaction() as connection:
                    self._notice_forgetting(connection)
                    for key, digest, taken in group:
                        self._add(connection, key, digest, taken, rows, digests, added)
                    self._file.write(rows, digests)
                    if rows or digests:
                        full = not self._append(packed(rows, digests))
                if full:
                    # The log begins again; everything so far, this transaction too, is made durable in the database instead.
                    self._file.settle(self._journal.name)
                elif rows or digests:
                    self._journal.sync()
            except BaseException:
                # What was remembered in a transaction that did not end well is not in the vault.
                for name in added:
                    self._known.pop(name, None)
                self._journal.close()
                raise

    def has(self, sop_instance_uid: str, digest: bytes) -> bool:
        """Say whether the vault holds the identity of an instance with this content."""
        name = self._seals.instance_name(sop_instance_uid, digest)
        return self._file.one("SELECT 1 FROM record WHERE name = ?", name) is not None

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
        instance = self._seals.instance_name(key.sop_instance_uid, digest)
        if connection.execute("SELECT 1 FROM record WHERE name = ?", (instance,)).fetchone() is not None:
            return
        uids = (taken.patient_id, key.study_instance_uid, key.series_instance_uid, key.sop_instance_uid)
        whole: dict[int, bytes] = {}
        for level in _LEVELS:
            whole.update(taken.levels.get(level, {}))
        parent = b""
        inherited: dict[int, bytes] = {}
        for depth, level in enumerate(_LEVELS):
            name = instance if level is Level.IMAGE else self._seals.name(level, *uids[: depth + 1])
            known = None if level is Level.IMAGE else self._known.get(name)
            if known is None:
                mine: Elements = whole if level is Level.IMAGE else taken.levels.get(level, {})
                sealed = None
                if level is not Level.IMAGE:
                    sealed = connection.execute("SELECT sealed FROM record WHERE name = ?", (name,)).fetchone()
                if sealed is not None:
                    # Another process wrote it, and its log may not be on the disk yet: so ours bears it, too.
                    own = self._seals.open(name, sealed[0])[1]
                    rows.append((name, depth, parent, sealed[0]))
                else:
                    own = (
                        difference(inherited, mine)
                        if level is Level.IMAGE
                        else {tag: value for tag, value in mine.items() if inherited.get(tag) != value}
                    )
                    rows.append((name, depth, parent, self._seals.seal(name, uids[depth], own)))
                known = _Known(merged(inherited, own), set())
                if level is Level.PATIENT:
                    digests.append((self._seals.digest("pseudonym", taken.patient_id), name))
                elif level is not Level.IMAGE:
                    digests.append((self._seals.digest("pseudonym", uids[depth]), name))
                if level is not Level.IMAGE:
                    self._remember(name, known)
                    added.append(name)
            for wanted, kind, value in taken.names:
                if wanted is level and (kind, value) not in known.names:
                    digests.append((self._seals.called(kind, value), name))
                    known.names.add((kind, value))
                    added.append(name)
            parent, inherited = name, known.held

    def _append(self, payload: bytes) -> bool:
        """Append to the log, which is brought in first if it was not ours yet; false where it is full and began again."""
        if not self._journal.is_open:
            self._replay(self._journal.open(self._file.generation_of))
        if self._journal.append(payload):
            return True
        self._journal.begin_anew(self._journal.generation + 1)
        self._file.begin_log(self._journal.name, self._journal.generation)
        return False

    def _replay(self, payloads: Sequence[bytes]) -> None:
        """Write what a log holds; the caller is in a write transaction."""
        for payload in payloads:
            self._file.write(*unpacked(payload))

    def forget(self, study_instance_uid: str) -> int:
        """Remove what was taken from a study, by its pseudonymous UID, and its patient's if nothing else is theirs.

        Returns how many rows went. Rows, write-ahead log and the logs of all writers are overwritten on the disk.
        """
        with self._file.overwriting():
            with self._transaction() as connection:
                gone = self._below_study(connection, study_instance_uid)
                rows = [(name,) for name in gone]
                connection.executemany("DELETE FROM found WHERE name = ?", rows)
                connection.executemany("DELETE FROM record WHERE name = ?", rows)
                # Every log begins anew: what it holds so far is in the database, which waits for the disk with this commit.
                for path in journal.logs(self._folder):
                    self._file.begin_log(path.stem, self._file.generation_of(path.stem) + 1)
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                connection.execute(f"PRAGMA user_version={version + 1}")
            with self._transaction():
                # Nobody appends while we are in a transaction; a log whose writer has not begun anew yet is all obsolete.
                for path in journal.logs(self._folder):
                    journal.overwrite(path, self._file.generation_of(path.stem))
        self._known.clear()
        return len(gone)

    def _below_study(self, connection: sqlite3.Connection, study_instance_uid: str) -> list[bytes]:
        """Return the names of a study's rows, and of its patient's if it has no other study."""
        wanted = "SELECT name FROM found WHERE digest = ?"
        names = [name for (name,) in connection.execute(wanted, (self._seals.digest("pseudonym", study_instance_uid),))]
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

    def _notice_forgetting(self, connection: sqlite3.Connection) -> None:
        """Begin anew where somebody has forgotten a study since: parents that we remember may be gone."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == self._forgettings:
            return
        self._forgettings = version
        self._known.clear()
        if self._journal.is_open:
            self._journal.begin_anew(self._file.generation_of(self._journal.name))

    # --- reading -------------------------------------------------------------------------------------------------------

    def of_instance(self, sop_instance_uid: str, digest: bytes) -> Identity | None:
        """Return what was taken from an instance with this content, or None if the vault does not know it."""
        name = self._seals.instance_name(sop_instance_uid, digest)
        row = self._file.one("SELECT 1 FROM record WHERE name = ?", name)
        return None if row is None else self._identity(name)

    def of_study(self, study_instance_uid: str) -> Identity | None:
        """Return what was taken at the level of a study and its patient, by its pseudonymous UID."""
        return next((one for one in self.under(study_instance_uid) if one.found.level is Level.STUDY), None)

    def under(self, pseudonym: str) -> list[Identity]:
        """Return what the vault holds under a pseudonymous UID or Patient ID."""
        prefix = self._seals.prefix(pseudonym)
        rows = self._file.all("SELECT name FROM found WHERE digest = ?", self._seals.digest("pseudonym", pseudonym))
        rows += self._file.all("SELECT name FROM record WHERE name >= ? AND name < ?", prefix, after(prefix))
        return [self._identity(name) for (name,) in rows]

    def find(self, kind: str, value: str) -> list[Identity]:
        """Return who or what was known by `value` before.

        Parameters
        ----------
        kind : {"id", "patient", "name", "accession", "uid"}
            "patient" takes the Patient ID and its issuer, joined by a backslash. Names are found whatever their case.
        """
        rows = self._file.all("SELECT name FROM found WHERE digest = ?", self._seals.called(kind, value))
        return [self._identity(name) for (name,) in rows]

    def below(self, found: Found) -> Iterator[Identity]:
        """Yield what belongs directly to a patient, study or series."""
        uids = (found.patient_id, found.study_instance_uid, found.series_instance_uid)
        depth = _LEVELS.index(found.level) + 1
        name = self._seals.name(found.level, *uids[:depth])
        for (child,) in self._file.all("SELECT name FROM record WHERE parent = ?", name):
            yield self._identity(child)

    def count(self) -> int:
        """Return how many rows there are."""
        row = self._file.one("SELECT count(*) FROM record")
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close files and forget what is remembered."""
        with self._file.lock:
            self._known.clear()
            self._journal.close()
            self._file.close()

    def _identity(self, name: bytes) -> Identity:
        chain: list[tuple[str, dict[int, bytes]]] = []
        while name:
            row = self._file.one("SELECT parent, sealed FROM record WHERE name = ?", name)
            if row is None:
                raise IntegrityError("the identity vault lacks a row that another one belongs to")
            chain.append(self._seals.open(name, row[1]))
            name = row[0]
        chain.reverse()
        taken: dict[int, bytes] = {}
        for _, own in chain:
            taken = merged(taken, own)
        uids = [pseudonym for pseudonym, _ in chain]
        return Identity(Found(_LEVELS[len(chain) - 1], *uids), taken)

    def _remember(self, name: bytes, known: _Known) -> None:
        self._known[name] = known
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Hold a write transaction; where the log stands after one that failed is found anew: what it replayed is not there."""
        return self._file.transaction(self._journal.close)
