"""What really has two implementations, and no more: object store, bucket, scratch, key provider, queue, clock."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pacs.model.bulk import Buffer, Bulk
from pacs.model.instance import Location, Sealed
from pacs.model.upkeep import Piece, Segment


class ObjectStore(Protocol):
    """Keeps sealed records; `tests/contracts/` holds every adapter to this."""

    def put(self, group: Sequence[Sealed]) -> list[Location]:
        """Write a group; every record is durable on return. Raises `OutOfResources`, and then nothing of the group counts."""

    def put_alone(self, sealed: Sealed) -> Location:
        """Write one record that is too large for a group, piece by piece, while others put; durable on return.

        Raises `OutOfResources`; then nothing of it counts.
        """

    def get(self, location: Location, span: tuple[int, int] | None = None) -> bytes:
        """Return the record, or `span` = (offset, length) within it. Raises `NotFound`."""

    def delete(self, location: Location) -> None:
        """Give the record's bytes up; deleting twice is harmless."""

    def containers(self, *, local: bool = False) -> list[str]:
        """Return every segment, in a stable order; with `local`, those only in which records may lie that have no row yet."""

    def records(self, container: str, from_offset: int = 0) -> Iterator[tuple[Location, bytes]]:
        """Walk the complete records of a container from `from_offset` on; stops where a torn or empty tail begins."""

    def copy(self, locations: Sequence[Location]) -> list[Location]:
        """Write copies of records, durable on return. Raises `IntegrityError` if one is not whole; then nothing is written."""

    def bring(self, records: Sequence[Buffer]) -> list[Location]:
        """Write records that come from another copy, durable on return. Raises `IntegrityError` if one is not whole."""

    def bring_alone(self, read: Callable[[int, int], Buffer], size_bytes: int) -> Location:
        """Write a large record that `read(offset, count)` gives; durable on return. Raises `IntegrityError` if not whole."""

    def mend(self, location: Location, record: Buffer) -> None:
        """Write a record over its damaged self. Raises `NotFound` where there is nothing to write to."""

    def segments(self) -> list[Segment]:
        """Return what there is to say of each container without reading it."""

    def survey(self, container: str) -> Iterator[Piece]:
        """Name every stretch of a container that is not zero: records, those given up, and damage. Raises `NotFound`."""

    def trim(self, container: str, from_offset: int) -> None:
        """Turn torn bytes behind the last record into zeros, if nobody writes there; `from_offset` as in `records`."""

    def retire(self, container: str) -> None:
        """Note that nothing of a container is needed from now on, in its `changed_at`."""

    def drop(self, container: str) -> None:
        """Remove a container of which nothing is needed. Raises `ConfigurationError` for one that may be written still."""

    def close(self) -> None:
        """Release files; what was put stays."""


class Bucket(Protocol):
    """Keeps named objects outside the home, whole and for good; `tests/contracts/` holds every adapter to this.

    Every method raises `Unavailable` while the other side does not answer or does not let us in.
    """

    def create(self, name: str, content: bytes | Path) -> None:
        """Keep an object, or a file's content, durable on return. Raises `FileExistsError` where there is one of that name."""

    def replace(self, name: str, content: bytes) -> None:
        """Keep a small object, in the place of the one of that name if there is one; readers see the one or the other."""

    def read(self, name: str, span: tuple[int, int] | None = None) -> bytes:
        """Return an object, or `span` = (offset, length) of it; less where it ends before. Raises `NotFound`."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield an object's content, piece by piece. Raises `NotFound`."""

    def list(self, prefix: str = "") -> dict[str, int]:
        """Return name and size of every object below the folder `prefix`."""

    def delete(self, name: str) -> None:
        """Remove an object; deleting twice is harmless."""


class ScratchFile(Bulk, Protocol):
    """Bytes of a large object on its way, encrypted, without a name; gone with the process."""

    def append(self, data: Buffer) -> None:
        """Append bytes. Raises `OutOfResources`."""

    def close(self) -> None:
        """Give the room back; closing twice is harmless."""


class Scratch(Protocol):
    """Where what is too large for memory lies while it is worked on."""

    def new(self) -> ScratchFile:
        """Return an empty file. Raises `OutOfResources` or `Unavailable`."""


class KeyProvider(Protocol):
    """Holds a key-encryption key and never lets it out: it wraps and unwraps data keys.

    While the key is rotated it holds two; `tests/contracts/` holds every provider to this.
    """

    @property
    def key_id(self) -> str:
        """Name of the current key-encryption key; says nothing about the key."""

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Wrap a data key; `context` is bound to it."""

    def wrap_named(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """Wrap a data key; returns the name of the key-encryption key that was used, and the wrapped key."""

    def use(self, key_id: str) -> None:
        """Wrap with the key of this name from now on. Raises `ConfigurationError` if it is not held."""

    def refresh(self) -> None:
        """Take in what a rotation has changed meanwhile."""

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap a data key. Raises `ConfigurationError` if `key_id` is not ours or the bytes were changed."""

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes bound to this key and `purpose` (HKDF-SHA-256)."""


class Queue(Protocol):
    """Rings a worker's bell: it carries a job id and nothing else; losing a message costs time, not work."""

    def ring(self, job_id: str, queue: str) -> None:
        """Tell some worker that `job_id` is due. Raises `Unavailable` where the broker is away."""


class Clock(Protocol):
    """Seconds since the epoch, UTC."""

    def __call__(self) -> float: ...
