"""What every bucket promises (`pacs.ports.Bucket`), on a folder and on servers; and what is refused before it is used."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import Azure
from services import S3

from pacs.model.errors import ConfigurationError, NotFound, Unavailable
from pacs.ports import Bucket
from pacs.store.bucket import FolderBucket, claim, digest_of, open_bucket


class BucketContract:
    """The promises."""

    def test_what_was_created_is_read(self, bucket: Bucket, tmp_path: Path) -> None:
        """Bytes and files come back whole, in spans and in pieces; a span that reaches beyond the end gives what there is."""
        content = bytes(range(256)) * 20_000
        (tmp_path / "file").write_bytes(content)

        bucket.create("a/one", content)
        bucket.create("a/two", tmp_path / "file")
        bucket.create("a/none", b"")

        for name in ("a/one", "a/two"):
            assert bucket.read(name) == b"".join(bucket.blocks(name)) == content
            assert bucket.read(name, (255, 3)) == b"\xff\x00\x01"
            assert bucket.read(name, (len(content) - 1, 2)) == b"\xff"
        assert bucket.read("a/none") == b""
        assert digest_of(bucket, "a/one") == digest_of(bucket, "a/two")

    def test_create_never_replaces(self, bucket: Bucket) -> None:
        """A second object of the same name is refused, and the first one stays; only `replace` replaces."""
        bucket.create("a", b"first")

        with pytest.raises(FileExistsError):
            bucket.create("a", b"second")
        assert bucket.read("a") == b"first"

        bucket.replace("a", b"third")
        bucket.replace("b", b"new")
        assert (bucket.read("a"), bucket.read("b")) == (b"third", b"new")

    def test_a_large_span_is_read_whole(self, bucket: Bucket) -> None:
        """What is more than one request brings is put together."""
        content = bytes(range(251)) * 80_000
        bucket.create("large", content)

        assert bucket.read("large", (7, 18_000_000)) == content[7:18_000_007]

    def test_a_list_names_what_lies_below_a_folder(self, bucket: Bucket) -> None:
        """Names with sizes, of one folder or of all."""
        for name in ("a/one", "a/two", "b/three", "four"):
            bucket.create(name, name.encode())

        assert bucket.list("a") == {"a/one": 5, "a/two": 5}
        assert set(bucket.list()) == {"a/one", "a/two", "b/three", "four"}
        assert bucket.list("c") == {}

    def test_deleted_is_not_found(self, bucket: Bucket) -> None:
        """What is not there says so; deleting twice is harmless."""
        bucket.create("a/one", b"1")

        bucket.delete("a/one")
        bucket.delete("a/one")

        for ask in (bucket.read, lambda name: bucket.read(name, (0, 1)), lambda name: next(bucket.blocks(name))):
            with pytest.raises(NotFound):
                ask("a/one")

    def test_one_archive_a_prefix(self, bucket: Bucket) -> None:
        """The first that comes claims it, again and again; another is refused."""
        claim(bucket, "ours")
        claim(bucket, "ours")

        with pytest.raises(ConfigurationError, match="another archive"):
            claim(bucket, "theirs")


class TestFolder(BucketContract):
    """A folder keeps the contract."""

    @pytest.fixture
    def bucket(self, tmp_path: Path) -> Bucket:
        """An empty folder."""
        (tmp_path / "bucket").mkdir()
        return open_bucket((tmp_path / "bucket").as_uri())

    def test_a_folder_that_is_not_there_is_away(self, tmp_path: Path) -> None:
        """Where nothing is mounted nothing is written, and nothing is taken for lost."""
        bucket = FolderBucket(tmp_path / "nowhere")

        for ask in (lambda: bucket.read("a"), lambda: bucket.create("a", b""), bucket.list):
            with pytest.raises(Unavailable, match="mounted"):
                ask()
        assert not (tmp_path / "nowhere").exists()


class RemoteContract(BucketContract):
    """What holds for servers on top; a subclass provides the fixture `server`."""

    endpoint: str
    secret: str
    """Variables that say where the server is, and what lets us in."""

    @pytest.fixture
    def bucket(self, server: S3 | Azure, monkeypatch: pytest.MonkeyPatch) -> Bucket:
        """An empty prefix."""
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return open_bucket(server.new_prefix(), allow_http=True)

    def test_a_large_file_goes_in_parts(self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What one request does not hold arrives whole, and does not replace either."""
        monkeypatch.setattr("pacs.store.bucket._AT_ONCE_BYTES", 1 << 20)
        content = bytes(range(251)) * 50_000
        (tmp_path / "file").write_bytes(content)

        bucket.create("large", tmp_path / "file")

        assert bucket.read("large") == content
        with pytest.raises(FileExistsError):
            bucket.create("large", tmp_path / "file")

    def test_a_server_that_is_away_says_so_soon(self, server: S3 | Azure, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody listens: `Unavailable` for every question, and no secret in what is said."""
        for name, value in {**server.environment, self.endpoint: "http://127.0.0.1:9"}.items():
            monkeypatch.setenv(name, value)
        bucket = open_bucket(server.new_prefix(), allow_http=True)

        for ask in (lambda: bucket.read("a"), lambda: bucket.create("a", b"1"), bucket.list, lambda: next(bucket.blocks("a"))):
            with pytest.raises(Unavailable) as told:
                ask()
            assert server.environment[self.secret] not in str(told.value)


class TestS3(RemoteContract):
    """An S3 server keeps the contract, through obstore."""

    endpoint, secret = "AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY"

    @pytest.fixture
    def server(self, s3: S3) -> S3:
        """moto's server."""
        return s3


class TestAzure(RemoteContract):
    """An Azure Blob server keeps the contract, through obstore."""

    endpoint, secret = "AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_ACCOUNT_KEY"

    @pytest.fixture
    def server(self, azure: Azure) -> Azure:
        """Azurite."""
        return azure

    def test_a_wrong_secret_is_told(self, server: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not as an empty bucket, which would look like loss. (moto lets everybody in.)"""
        wrong = "d3Jvbmcgc2VjcmV0IG9mIHRoZSB0ZXN0cw=="
        for name, value in {**server.environment, self.secret: wrong}.items():
            monkeypatch.setenv(name, value)
        bucket = open_bucket(server.new_prefix(), allow_http=True)

        for ask in (lambda: bucket.read("a"), lambda: bucket.create("a", b"1"), bucket.list):
            with pytest.raises(Unavailable, match="let us in") as told:
                ask()
            assert wrong not in str(told.value)


class TestNamed(BucketContract):
    """So does the bucket that PACS_TEST_BUCKET_URL names, of whatever provider."""

    @pytest.fixture
    def bucket(self, named_bucket: str) -> Iterator[Bucket]:
        """An empty prefix, and empty again afterwards."""
        bucket = open_bucket(named_bucket, allow_http=True)
        yield bucket
        for name in bucket.list():
            bucket.delete(name)


class _Forgetful(FolderBucket):
    """What rclone's S3 server is like: it takes every object, whether there is one of that name or not."""

    def create(self, name: str, content: bytes | Path) -> None:
        """Replace."""
        self.delete(name)
        super().create(name, content)


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[Bucket]:
    """A bucket without conditional creation."""
    (tmp_path / "forgetful").mkdir()
    yield _Forgetful(tmp_path / "forgetful")


def test_a_server_that_ignores_the_condition_is_refused(forgetful: Bucket) -> None:
    """Two objects of one name could replace each other there; so nothing is kept there."""
    with pytest.raises(ConfigurationError, match="If-None-Match"):
        claim(forgetful, "ours")


@pytest.mark.parametrize(
    "url",
    ["ftp://host/x", "records", "s3://", "s3://key:secret@bucket/x", "s3://bucket/x?token=1", "file://host/x", "file:///"],
)
def test_a_url_that_cannot_be_a_bucket_is_refused(url: str) -> None:
    """Credentials in a URL among them; what was given is not repeated."""
    with pytest.raises(ConfigurationError) as told:
        open_bucket(url)

    assert "secret" not in str(told.value)


@pytest.mark.parametrize("url", ["gs://bucket/prefix", "az://container/prefix"])
def test_google_and_azure_are_known(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their URLs are understood, with credentials from their own environment variables."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "records")

    assert open_bucket(url)
