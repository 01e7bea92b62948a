"""What every object store promises (`pacs.ports.ObjectStore`); a subclass provides the `store` fixture."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sealing
from buckets import Azure
from services import S3

from pacs.model.errors import ConfigurationError, IntegrityError, NotFound
from pacs.model.instance import Buffer, Location, Sealed
from pacs.ports import ObjectStore
from pacs.store import sending
from pacs.store.bucket import open_bucket
from pacs.store.envelope import Sealer
from pacs.store.ledger import Ledger
from pacs.store.segments import SegmentStore
from pacs.store.tiers import TieredStore


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

    def test_a_record_alone_comes_back(self, store: ObjectStore, sealer: Sealer) -> None:
        """A record that is made while it is written comes back like any other, between those of groups."""
        first, sealed, last = (_sealed(sealer, size) for size in (1000, 200_000, 500))
        content = b"".join(sealed.record)
        (before,) = store.put([first])

        location = store.put_alone(replace(sealed, record=(content[at : at + 4096] for at in range(0, len(content), 4096))))

        (after,) = store.put([last])
        assert store.get(location) == content and store.get(location, (100, 50)) == content[100:150]
        assert [store.get(one) for one in (before, after)] == [b"".join(first.record), b"".join(last.record)]
        store.delete(location)
        with pytest.raises(NotFound):
            store.get(location)

    def test_a_record_that_cannot_be_made_leaves_nothing(self, store: ObjectStore, sealer: Sealer) -> None:
        """Where making it fails half-way there is no container more than before, and the next one finds its place."""
        sealed = _sealed(sealer, 200_000)
        content = b"".join(sealed.record)

        def broken() -> Iterator[bytes]:
            yield content[:100_000]
            raise IntegrityError("half-way")

        before = store.containers()
        with pytest.raises(IntegrityError):
            store.put_alone(replace(sealed, record=broken()))

        assert store.containers() == before
        assert store.get(store.put_alone(sealed)) == content

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

    def test_a_record_is_found_by_walking(self, store: ObjectStore, sealer: Sealer) -> None:
        """A walk and a survey see what was put, and no more what was given up; from a place on, only what follows."""
        first, second, third = store.put([_sealed(sealer, size) for size in (5000, 250, 1000)])
        store.delete(second)

        walked = {location: record for name in store.containers() for location, record in store.records(name)}
        pieces = [piece for name in store.containers() for piece in store.survey(name)]

        assert walked == {one: store.get(one) for one in (first, third)}
        assert [(one.kind, one.location) for one in pieces if one.location.container == second.container] == [
            ("record", first),
            ("given up", second),
            ("record", third),
        ]
        after = second.offset + second.size_bytes
        assert [location for location, _ in store.records(third.container, after)] == [third]
        assert third.container in {one.container for one in store.segments()}
        with pytest.raises(NotFound):
            list(store.survey("nobody-00000001.seg"))

    def test_a_copy_is_the_record(self, store: ObjectStore, sealer: Sealer) -> None:
        """Copies, and what is brought from elsewhere, are the same bytes at another place; half a record is not taken."""
        (location,) = store.put([_sealed(sealer)])
        record = store.get(location)

        (copy,), (brought,) = store.copy([location]), store.bring([record])

        assert len({location, copy, brought}) == 3
        assert store.get(copy) == store.get(brought) == record
        with pytest.raises(IntegrityError):
            store.bring([record[:-1]])

    def test_an_emptied_container_is_dropped(self, store: ObjectStore, sealer: Sealer) -> None:
        """Nothing of it is found any more; one that may still be written is not dropped."""
        put = [location for _ in range(40) for location in store.put([_sealed(sealer, 50_000)])]
        emptied = next(one.container for one in store.segments() if not one.newest)
        newest = next(one.container for one in store.segments() if one.newest)

        store.retire(emptied)
        store.drop(emptied)
        store.drop(emptied)

        assert emptied not in store.containers()
        for location in put:
            if location.container == emptied:
                with pytest.raises(NotFound):
                    store.get(location)
            else:
                assert len(store.get(location)) == location.size_bytes
        with pytest.raises(ConfigurationError):
            store.drop(newest)

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


class Sending(TieredStore):
    """Sends everything at once and keeps nothing here: every read is a read of the bucket."""

    def put(self, group: Sequence[Sealed]) -> list[Location]:
        """Write, then send."""
        return self._sent(super().put(group))

    def bring(self, records: Sequence[Buffer]) -> list[Location]:
        """Write, then send."""
        return self._sent(super().bring(records))

    def _sent(self, put: list[Location]) -> list[Location]:
        self.local.turn_over(0.0)
        for container in sending.waiting(self):
            assert sending.send(self, container)
        sending.make_room(self, keep_bytes=1, free_bytes=0)
        assert not any(self.local.holds(location.container) for location in put)
        return put


class TieredContract(ObjectStoreContract):
    """Segments in a bucket keep the contract; a subclass provides the fixture `url`, an empty prefix."""

    @pytest.fixture
    def store(self, tmp_path: Path, url: str) -> Iterator[TieredStore]:
        """A store in an empty folder and an empty prefix, which is empty again afterwards."""
        ledger = Ledger(tmp_path / "store")
        local = SegmentStore(
            tmp_path / "store", writer="test", segment_bytes=1 << 20, floor_bytes=0, last_number=ledger.last_number
        )
        bucket = open_bucket(url, allow_http=True)
        store = Sending(local, bucket, ledger, owner="test", turn_over_s=3600)
        store.begin()
        yield store
        store.close()
        for name in bucket.list():
            bucket.delete(name)


class TestInS3(TieredContract):
    """In a bucket of an S3 server."""

    @pytest.fixture
    def url(self, s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
        """An empty prefix."""
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        return s3.new_prefix()


class TestInAzure(TieredContract):
    """In a container of an Azure Blob server."""

    @pytest.fixture
    def url(self, azure: Azure, monkeypatch: pytest.MonkeyPatch) -> str:
        """An empty prefix."""
        for name, value in azure.environment.items():
            monkeypatch.setenv(name, value)
        return azure.new_prefix()


class TestInNamed(TieredContract):
    """In the bucket that PACS_TEST_BUCKET_URL names."""

    @pytest.fixture
    def url(self, named_bucket: str) -> str:
        """An empty prefix."""
        return named_bucket
