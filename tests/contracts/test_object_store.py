"""What every object store promises (`pacs.ports.ObjectStore`); a subclass provides the `store` fixture."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sealing

from pacs.model.errors import IntegrityError, NotFound
from pacs.model.instance import Sealed
from pacs.ports import ObjectStore
from pacs.store.envelope import Sealer
from pacs.store.segments import SegmentStore


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    """A sealer with keys of its own."""
    return Sealer(sealing.ring(tmp_path))


def _sealed(sealer: Sealer, size_bytes: int = 1000) -> Sealed:
    return sealing.seal(sealer, sealing.encoded(frames=(bytes(range(250)) * (size_bytes // 250),)))


class ObjectStoreContract:
    """The promises."""

    def test_get_returns_what_was_put(self, store: ObjectStore, sealer: Sealer) -> None:
        """Every record of a group comes back byte for byte, in the order of the group."""
        group = [_sealed(sealer, size) for size in (250, 100_000, 1000)]

        locations = store.put(group)

        assert [store.get(location) for location in locations] == [b"".join(one.record) for one in group]
        assert [location.size_bytes for location in locations] == [one.size_bytes for one in group]

    def test_a_span_is_read_alone(self, store: ObjectStore, sealer: Sealer) -> None:
        """A span returns exactly those bytes of the record."""
        sealed = _sealed(sealer)
        (location,) = store.put([sealed])

        assert store.get(location, (100, 50)) == b"".join(sealed.record)[100:150]
        assert store.get(location, (0, 0)) == b""

    def test_a_span_never_reaches_into_a_neighbour(self, store: ObjectStore, sealer: Sealer) -> None:
        """A span beyond the end of the record is refused, although more bytes follow."""
        location, _ = store.put([_sealed(sealer), _sealed(sealer)])

        with pytest.raises(IntegrityError):
            store.get(location, (location.size_bytes - 10, 20))

    def test_deleted_is_not_found(self, store: ObjectStore, sealer: Sealer) -> None:
        """What was given up is not found; its neighbours stay; giving up twice is harmless."""
        first, second = store.put([_sealed(sealer), _sealed(sealer)])

        store.delete(first)
        store.delete(first)

        with pytest.raises(NotFound):
            store.get(first)
        assert len(store.get(second)) == second.size_bytes

    def test_nothing_is_found_where_nothing_was_put(self, store: ObjectStore, sealer: Sealer) -> None:
        """A container that does not exist, also one with a path in its name, holds nothing."""
        (location,) = store.put([_sealed(sealer)])

        for container in ("nobody-00000001.seg", "../keys/image.key", ""):
            with pytest.raises(NotFound):
                store.get(replace(location, container=container))
            store.delete(replace(location, container=container))

    def test_an_empty_group_is_no_work(self, store: ObjectStore) -> None:
        """Putting nothing gives no locations."""
        assert store.put([]) == []

    def test_close_keeps_everything(self, store: ObjectStore, sealer: Sealer) -> None:
        """What was put stays readable after the store was closed and is used again."""
        sealed = _sealed(sealer)
        (location,) = store.put([sealed])

        store.close()

        assert store.get(location) == b"".join(sealed.record)


class TestSegmentStore(ObjectStoreContract):
    """Segment files keep the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SegmentStore]:
        """A segment store in an empty folder."""
        store = SegmentStore(tmp_path / "store", writer="test", segment_bytes=1 << 20, floor_bytes=0)
        yield store
        store.close()
