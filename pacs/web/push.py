"""Sends stored instances to a DICOMweb server by STOW-RS (PS3.18 10.5), as the carrier of sending jobs.

HTTP negotiates no transfer syntax for what is stored, so instances go out in Explicit VR Little Endian, which every server must
take, unless the peer is marked `as-stored` or prefers others; what has no uncompressed form here (video) leaves as it is. A
bearer token for the peer lies in the home as `keys/peer-NAME.token`, where NAME is percent-encoded.
"""

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from pacs import retrieve
from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, ConfigurationError, NotAuthorized, NotTranscodable, Unavailable
from pacs.model.instance import Buffer, Stored
from pacs.model.peer import Peer
from pacs.processing.sending import Delivery
from pacs.reidentify import Originals
from pacs.web import multipart

log = get_logger(__name__)
AT_ONCE, AT_ONCE_BYTES = 64, 64 << 20
"""Instances of one request, and their size as stored: a request that fails is sent again as a whole."""
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_FAILED, _REASON = "00081198", "00081197"
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
_OUT_OF_RESOURCES = 0xA7


def carry(
    archive: Archive,
    peer: Peer,
    instances: Sequence[Stored],
    originals: Originals | None,
    progress: Callable[[int], None],
) -> Delivery:
    """Send instances to a peer; see `pacs.processing.sending.Carrier`."""
    delivery, done = Delivery(), 0
    for group in _groups(instances):
        body = _Body(archive, peer, group, originals, lambda sent, done=done: progress(done + sent))  # type: ignore[misc]
        status, answer = _post(archive, peer, body)
        done += len(group)
        _count(delivery, status, answer, body.sent, peer)
        for reason in body.unsent:
            delivery.refused[reason] = delivery.refused.get(reason, 0) + 1
    return delivery


class _Body:
    """A multipart/related message that is made while it is sent; iterate once."""

    def __init__(
        self,
        archive: Archive,
        peer: Peer,
        group: Sequence[Stored],
        originals: Originals | None,
        progress: Callable[[int], None],
    ) -> None:
        self._archive, self._peer, self._group = archive, peer, group
        self._originals, self._progress = originals, progress
        self.boundary = multipart.new_boundary()
        self.sent = 0
        self.unsent: list[str] = []

    def __iter__(self) -> Iterator[Buffer]:
        for number, stored in enumerate(self._group):
            self._progress(number)
            try:
                buffers = self._file(stored)
            except ArchiveError as error:
                log.warning("not_sent", sop_instance_uid=stored.key.sop_instance_uid, error=type(error).__name__)
                self.unsent.append(type(error).__name__)
                continue
            yield multipart.part_head(self.boundary, "application/dicom", first=not self.sent)
            yield from (one for one in buffers if len(one))
            self.sent += 1
        yield multipart.closing(self.boundary)

    def _file(self, stored: Stored) -> Iterable[Buffer]:
        if "as-stored" not in self._peer.options:
            prefers = self._peer.prefers
            with contextlib.suppress(NotTranscodable):
                return retrieve.part10_file(self._archive, stored, (*prefers, EXPLICIT_LITTLE_ENDIAN), self._originals, prefers)
        return retrieve.part10_file(self._archive, stored, None, self._originals)


def _post(archive: Archive, peer: Peer, body: _Body) -> tuple[int, bytes]:
    """Send one request; returns status and body of the answer. Raises `Unavailable`."""
    url = urlsplit(peer.url)
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary="{body.boundary}"',
        "Accept": "application/dicom+json",
        "Transfer-Encoding": "chunked",
        **_authorization(archive, peer),
    }
    timeout_s = archive.settings.dicom.idle_timeout_s
    connection = _connection(archive, url.scheme, url.hostname or "", url.port, timeout_s)
    try:
        connection.request("POST", f"{url.path.rstrip('/')}/studies", body, headers, encode_chunked=True)
        response = connection.getresponse()
        return response.status, response.read(1 << 24)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{peer.ae_title} at {url.hostname} does not answer ({type(error).__name__})") from error
    finally:
        connection.close()


def _connection(
    archive: Archive, scheme: str, host: str, port: int | None, timeout_s: float
) -> http.client.HTTPConnection | http.client.HTTPSConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    context = ssl.create_default_context()
    if archive.settings.dicom.tls_ca:
        context.load_verify_locations(archive.settings.dicom.tls_ca)
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _authorization(archive: Archive, peer: Peer) -> dict[str, str]:
    path = archive.settings.home / "keys" / f"peer-{quote(peer.ae_title, safe='')}.token"
    try:
        return {"Authorization": f"Bearer {path.read_text(encoding='ascii').strip()}"}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the token of peer {peer.ae_title} cannot be read from keys/{path.name}") from error


def _count(delivery: Delivery, status: int, answer: bytes, sent: int, peer: Peer) -> None:
    """Count by what the answer says of single instances (PS3.18 Annex I), or else by its status alone."""
    if status in (401, 403):
        raise NotAuthorized(f"{peer.ae_title} answered {status}: put a bearer token into keys/peer-NAME.token of the home")
    if status in _AGAIN:
        delivery.missed += sent
        return
    failed = _failures(answer) if status in (202, 409) else []
    if status in (200, 202):
        delivery.delivered += sent - len(failed)
    elif not failed:
        delivery.refused[f"HTTP {status}"] = delivery.refused.get(f"HTTP {status}", 0) + sent
    for reason in failed:
        if reason >> 8 == _OUT_OF_RESOURCES:
            delivery.missed += 1
        else:
            delivery.refused[f"{reason:04X}"] = delivery.refused.get(f"{reason:04X}", 0) + 1


def _failures(answer: bytes) -> list[int]:
    """Return the Failure Reasons of an answer; none where it is not understood."""
    try:
        items: list[dict[str, Any]] = orjson.loads(answer).get(_FAILED, {}).get("Value", [])
        return [int(item.get(_REASON, {}).get("Value", [0x0110])[0]) for item in items]
    except (ValueError, AttributeError, TypeError, IndexError):
        return []


def _groups(instances: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    group: list[Stored] = []
    size_bytes = 0
    for one in instances:
        if group and (len(group) >= AT_ONCE or size_bytes + one.location.size_bytes > AT_ONCE_BYTES):
            yield group
            group, size_bytes = [], 0
        group.append(one)
        size_bytes += one.location.size_bytes
    if group:
        yield group
