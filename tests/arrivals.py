"""Arrivals for tests of the index: as if a data set had been cleaned, encoded, sealed and put, without doing so."""

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

import services

from pacs.index import schema, tables
from pacs.index.connections import make_engine
from pacs.index.database import Index
from pacs.model.instance import Arrival, Encoded, IndexEntry, InstanceKey, Location, Origin, Sealed

CT = "1.2.840.10008.5.1.4.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SYNTAX = "1.2.840.10008.1.2.4.201"
_offsets = itertools.count(0, 1000)
Placed = tuple[Arrival, Location]


class Clock:
    """A clock that tests set."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(kind: str, folder: Path, clock: Clock | None = None) -> Iterator[tuple[Index, str]]:
    """Open an index over a new database of a kind, "sqlite" or "postgresql"; yield it with its URL."""
    with _migrated(kind, folder) as url:
        index = Index.open(url, clock=clock or Clock())
        try:
            yield index, url
        finally:
            index.close()


@contextmanager
def _migrated(kind: str, folder: Path) -> Iterator[str]:
    """Yield an empty database that was migrated once in this test process: migrating each would take most of the time."""
    if kind == "sqlite":
        path = folder / "index.db"
        path.write_bytes(_sqlite_template())
        yield f"sqlite:///{path}"
        return
    url = _postgres()
    engine = make_engine(url)
    with engine.begin() as connection:
        for table in reversed(tables.metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()
    yield url


@cache
def _postgres() -> str:
    url = services.new_postgres_database()
    schema.upgrade(url)
    return url


@cache
def _sqlite_template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        schema.upgrade(f"sqlite:///{folder}/index.db")
        return (Path(folder) / "index.db").read_bytes()


def placed(
    instance: int = 1,
    *,
    study: str = "1.1",
    series: str = "1.1.1",
    sop: str | None = None,
    content: str = "",
    sop_class_uid: str = CT,
    origin: Origin = Origin.STORAGE_SCU,
    association: str = "",
    container: str = "a.seg",
    attributes: dict[str, str] | None = None,
    **more: str,
) -> Placed:
    """Return an instance with its place in a store; `more` are attributes by keyword, `content` makes it differ."""
    key = InstanceKey(study, series, sop or f"{series}.{instance}")
    values = {
        "PatientID": "P1",
        "PatientName": "Doe^John",
        "StudyDate": "20240229",
        "StudyTime": "101500",
        "Modality": "CT",
        "SeriesNumber": "1",
        "InstanceNumber": str(instance),
        **(attributes or {}),
        **more,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "SOPInstanceUID": key.sop_instance_uid,
        "SOPClassUID": sop_class_uid,
    }
    encoded = Encoded(
        key=key,
        sop_class_uid=sop_class_uid,
        header=b"",
        frames=(),
        transfer_syntax_uid=SYNTAX,
        attributes={keyword: value for keyword, value in values.items() if value is not None},
        digest=hashlib.sha256(f"{key}{content}".encode()).digest(),
    )
    sealed = Sealed(uuid4(), 7, key, (b"",), 900)
    arrival = Arrival(encoded, sealed, origin, "MODALITY", association, "research")
    return arrival, Location(container, next(_offsets), 900)


def a_series(n: int, **options: str) -> list[Placed]:
    """Return the instances of one series."""
    return [placed(number, **options) for number in range(1, n + 1)]  # type: ignore[arg-type]  # strings of attributes


def entry(one: Placed) -> IndexEntry:
    """Return what the record of an instance says of itself."""
    encoded = one[0].encoded
    return IndexEntry(
        object_id=one[0].sealed.object_id,
        study_key_id=one[0].sealed.study_key_id,
        key=encoded.key,
        sop_class_uid=encoded.sop_class_uid,
        transfer_syntax_uid=encoded.transfer_syntax_uid,
        digest=encoded.digest,
        number_of_frames=encoded.number_of_frames,
        origin=one[0].origin,
        policy=one[0].policy,
        attributes=encoded.attributes,
    )
