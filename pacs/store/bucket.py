"""Buckets: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage, and a plain folder.

Implements `pacs.ports.Bucket`; the only module that knows obstore. Credentials come from where each provider's own tools look
for them (the usual environment variables, roles of the machine), never from a URL: a URL is written into settings and logs.
"""

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from pacs.model.errors import ConfigurationError, NotFound, OutOfResources, Unavailable
from pacs.ports import Bucket
from pacs.store.providers import sync_folder

SCHEMES = ("s3", "gs", "az", "file")
MARKER = "mini-pacs-store"
CONNECT_S = 5
ANSWER_S = 20
"""A door waits for a read: so long at most for a piece of it."""
TRANSFER_S = 900
_PIECE_BYTES = 8 << 20
_AT_ONCE_BYTES = 192 << 20
"""A larger file goes in parts, behind a question whether it is there; so does what S3 would not take at once (5 GB)."""
_BLOCK = 1 << 20


def open_bucket(url: str, *, allow_http: bool = False) -> Bucket:
    """Return the bucket of a URL: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``, ``file:///folder``.

    Nothing is asked of it yet; over plain HTTP it is reached only where `allow_http` says so.
    Raises `ConfigurationError` for a URL that cannot be one, or holds credentials.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(f"a bucket's URL begins with {', '.join(f'{one}://' for one in SCHEMES)}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            "a bucket's URL holds no credentials and no options: give them as the provider's environment variables "
            "(AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, …) or as a role of the machine"
        )
    if parts.scheme == "file":
        if parts.netloc or not parts.path.strip("/"):
            raise ConfigurationError("file:// needs an absolute path, with three slashes")
        return FolderBucket(Path(unquote(parts.path)))
    if not parts.netloc:
        raise ConfigurationError(f"{parts.scheme}:// needs the name of a bucket")
    return RemoteBucket(url, allow_http=allow_http)


def claim(bucket: Bucket, owner: str) -> None:
    """Make sure that a bucket keeps what it is given, and that this prefix of it is ours alone.

    A marker is created twice. A provider that lets the second one through does not know conditional creation, and could let
    one archive write over another's records.

    Raises
    ------
    ConfigurationError
        It does not; or the prefix belongs to another archive.
    Unavailable
        It does not answer, or does not let us in.
    """
    content = f"{MARKER}: 1\nowner: {owner}\n".encode("ascii")
    for _ in range(2):
        try:
            bucket.create(MARKER, content)
        except FileExistsError:
            break
    else:
        raise ConfigurationError(
            "this bucket's server ignores If-None-Match: it would let a second object replace a first one of the same name. "
            "Records are not kept there; use another server, or a newer release of this one"
        )
    if bucket.read(MARKER) != content:
        raise ConfigurationError("this bucket and prefix belong to another archive; give each archive a prefix of its own")


def digest_of(bucket: Bucket, name: str) -> tuple[str, int]:
    """Read an object back; return its SHA-256, in hex, and its size in bytes. Raises `NotFound`."""
    digest, size = hashlib.sha256(), 0
    for block in bucket.blocks(name):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


class RemoteBucket:
    """A bucket of S3, Google or Azure, through obstore."""

    def __init__(self, url: str, *, allow_http: bool) -> None:
        def store(timeout_s: int, retries: int) -> obstore.store.ObjectStore:
            return from_url(
                url,
                client_options={
                    "connect_timeout": timedelta(seconds=CONNECT_S),
                    "timeout": timedelta(seconds=timeout_s),
                    "allow_http": allow_http,
                },
                retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=timeout_s)},
            )

        try:
            self._quick, self._patient = store(ANSWER_S, 1), store(TRANSFER_S, 3)
        except (BaseError, ValueError) as error:
            raise ConfigurationError(f"the bucket's URL or its environment cannot be used: {_first_line(error)}") from error

    def create(self, name: str, content: bytes | Path) -> None:
        """Keep an object, or a file's content. Raises `FileExistsError`."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with _told():
            if size <= _AT_ONCE_BYTES:
                obstore.put(self._patient, name, content, mode="create", use_multipart=False)
                return
            with contextlib.suppress(FileNotFoundError):
                obstore.head(self._quick, name)
                raise FileExistsError(name)
            obstore.put(self._patient, name, content, use_multipart=True, chunk_size=32 << 20, max_concurrency=2)

    def replace(self, name: str, content: bytes) -> None:
        """Keep a small object in the place of another."""
        with _told():
            obstore.put(self._patient, name, content, use_multipart=False)

    def read(self, name: str, span: tuple[int, int] | None = None) -> bytes:
        """Return an object or a span of it. Raises `NotFound`."""
        with _told():
            if span is None:
                return bytes(obstore.get(self._quick, name).bytes())
            offset, length = span
            pieces = []
            while length > 0:
                piece = bytes(obstore.get_range(self._quick, name, start=offset, length=min(length, _PIECE_BYTES)))
                pieces.append(piece)
                if len(piece) < min(length, _PIECE_BYTES):
                    break
                offset, length = offset + len(piece), length - len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield an object's content. Raises `NotFound`."""
        with _told():
            size = obstore.head(self._quick, name)["size"]
            # Piece by piece: one request for many GB would run into its own time limit.
            for offset in range(0, size, _PIECE_BYTES):
                end = min(size, offset + _PIECE_BYTES)
                yield bytes(obstore.get_range(self._patient, name, start=offset, end=end))

    def list(self, prefix: str = "") -> dict[str, int]:
        """Return name and size of every object below a folder."""
        with _told():
            return {one["path"]: one["size"] for page in obstore.list(self._quick, prefix or None) for one in page}

    def delete(self, name: str) -> None:
        """Remove an object."""
        with _told(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._quick, name)


class FolderBucket:
    """A folder, on another disk or another machine's; every object is durable when its name appears."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str, content: bytes | Path) -> None:
        """Keep an object, or a file's content. Raises `FileExistsError`."""
        target = self._place(name)
        temporary = self._written(target, content)
        try:
            with _told():
                try:
                    os.link(temporary, target)
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                        raise
                    # No hard links there (FAT, some network shares): nobody else writes to it meanwhile.
                    if target.exists():
                        raise FileExistsError(name) from error
                    temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)

    def replace(self, name: str, content: bytes) -> None:
        """Keep a small object in the place of another."""
        target = self._place(name)
        with _told():
            self._written(target, content).replace(target)
            sync_folder(target.parent)

    def read(self, name: str, span: tuple[int, int] | None = None) -> bytes:
        """Return an object or a span of it. Raises `NotFound`."""
        with _told(), self._place(name).open("rb") as file:
            if span is None:
                return file.read()
            file.seek(span[0])
            return file.read(span[1])

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield an object's content. Raises `NotFound`."""
        with _told(), self._place(name).open("rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def list(self, prefix: str = "") -> dict[str, int]:
        """Return name and size of every object below a folder."""
        found = {}
        with _told():
            for path in sorted(self._place(prefix).rglob("*")):
                if path.is_file() and path.suffix != ".part":
                    found[path.relative_to(self._folder).as_posix()] = path.stat().st_size
        return found

    def delete(self, name: str) -> None:
        """Remove an object."""
        with _told():
            self._place(name).unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        if ".." in name.split("/") or name.startswith("/"):
            raise NotFound("no object has such a name")
        if not self._folder.is_dir():
            raise Unavailable("the folder where copies are kept is not there; is it mounted?")
        return self._folder / name

    def _written(self, target: Path, content: bytes | Path) -> Path:
        """Write the content under a passing name beside its place; durable on return."""
        temporary = target.with_name(f"{uuid.uuid4()}.part")
        with _told():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                    if isinstance(content, bytes):
                        file.write(content)
                    else:
                        _copy(content, file.fileno())
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return temporary


def _copy(source: Path, target: int) -> None:
    """Copy a file; the zeros ahead of a segment's last record take no room."""
    offset = 0
    with source.open("rb") as file:
        while block := file.read(_BLOCK):
            if block.count(0) != len(block):
                view = memoryview(block)
                while view:
                    done = os.pwrite(target, view, offset)
                    view, offset = view[done:], offset + done
            else:
                offset += len(block)
    os.ftruncate(target, offset)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a library or a file system says into what we say; neither keys nor hosts are repeated."""
    try:
        yield
    except FileExistsError:
        raise
    except AlreadyExistsError as error:
        raise FileExistsError("there is an object of that name") from error
    except FileNotFoundError as error:
        raise NotFound("there is no such object in the bucket") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise _not_let_in() from error
    except NotSupportedError as error:
        raise ConfigurationError("the bucket's server cannot do what is needed") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfResources("no room where copies are kept") from error
        raise Unavailable(f"the bucket cannot be used now ({errno.errorcode.get(error.errno or 0, 'unknown')})") from error
    except BaseError as error:
        # A listing that is refused has no class of its own in obstore 0.12; seen with Azurite, and a wrong key.
        if any(status in str(error) for status in (" 401 Unauthorized", " 403 Forbidden")):
            raise _not_let_in() from error
        raise Unavailable("the bucket does not answer") from error


def _not_let_in() -> Unavailable:
    return Unavailable("the bucket does not let us in; look at its credentials and its policy")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["?"])[0][:200]
