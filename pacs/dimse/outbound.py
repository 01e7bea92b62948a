"""Sending files by C-STORE as SCU: each as it lies on disk, in its own transfer syntax where the peer takes that.

Files are mapped and not read, so that memory stays bounded; only where the peer takes no more than another uncompressed
transfer syntax is one encoded anew. PS3.4 Annex B; PS3.7 9.1.1.
"""

import contextlib
import mmap
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.dicom import elements, part10, values
from pacs.dimse import contexts, identifier, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.requestor import CONTEXT_LIMIT, PeerUnavailable, Proposal, accepted, associate, store
from pacs.model.errors import ArchiveError, NotTranscodable, NotUnderstood
from pacs.model.instance import Buffer

_LOOK_AHEAD = 256
_PATIENCE = 3
"""How often in a row a peer that was there may be missing before the rest of the files is given up."""
_MAPPED_FROM = 1 << 25


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file: `status` is the C-STORE status, None where it was never sent."""

    path: Path
    status: int | None
    reason: str = ""

    @property
    def stored(self) -> bool:
        """Whether the peer says that it has the object."""
        return self.status is not None and (self.status == 0 or status.is_warning(self.status))


@dataclass(slots=True)
class SendReport:
    """What became of all files."""

    results: list[FileResult] = field(default_factory=list)

    @property
    def stored(self) -> int:
        return sum(result.stored for result in self.results)

    @property
    def failed(self) -> list[FileResult]:
        return [result for result in self.results if not result.stored]


def send(
    files: Iterable[Path],
    host: str,
    port: int,
    ae_title: str,
    *,
    calling: str = "MINIPACS",
    on_progress: Callable[[FileResult], None] | None = None,
    timeout_s: float = 60.0,
    tls: ssl.SSLContext | None = None,
) -> SendReport:
    """Send files to a peer, each in its own transfer syntax where the peer takes it; one that fails does not stop the rest.

    Raises `PeerUnavailable` only where not even the first association comes about.
    """
    report = SendReport()
    with _Sender(host, port, ae_title, calling, timeout_s, tls) as sender:
        for group in _groups(files, _LOOK_AHEAD):
            known = [(path, *meta(path)) for path in group]
            sender.expect((cls, syntax) for _, cls, _, syntax in known if syntax)
            for path, sop_class_uid, sop_instance_uid, syntax in known:
                result = sender.send(path, sop_class_uid, sop_instance_uid, syntax)
                report.results.append(result)
                if on_progress is not None:
                    on_progress(result)
    return report


class _Sender:
    """Keeps an association that can carry what comes next, and opens another one when it cannot."""

    def __init__(
        self, host: str, port: int, called: str, calling: str, timeout_s: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._where = (host, port)
        self._tls = tls
        self._called, self._calling, self._timeout_s = called, calling, timeout_s
        self._association: LaneAssociation | None = None
        self._proposed: set[tuple[str, str]] = set()
        self._ahead: list[tuple[str, str]] = []
        self._message_id = 0
        self._ever = False
        self._missed = 0

    def __enter__(self) -> "_Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def expect(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Say which (SOP Class, transfer syntax) pairs come next, so that one association carries as many as it can."""
        self._ahead = list(dict.fromkeys(pairs))

    def _carry(self, pair: tuple[str, str]) -> None:
        """Make sure that the association carries `pair`; open one that carries it and what comes next."""
        if pair in self._proposed and self._association is not None and self._association.is_established:
            return
        if self._missed >= _PATIENCE:
            return
        self._close()
        by_class: dict[str, list[str]] = {}
        for sop_class_uid, syntax in (pair, *self._ahead):
            by_class.setdefault(sop_class_uid, []).append(syntax)
        proposals: list[Proposal] = []
        self._proposed = set()
        for sop_class_uid, own in by_class.items():
            ways = list(dict.fromkeys([*own, contexts.EXPLICIT_LITTLE_ENDIAN, contexts.IMPLICIT_LITTLE_ENDIAN]))
            if len(proposals) + len(ways) > CONTEXT_LIMIT:
                break
            proposals += [(sop_class_uid, (syntax,)) for syntax in ways]
            self._proposed |= {(sop_class_uid, syntax) for syntax in own}
        host, port = self._where
        try:
            self._association = associate(
                host,
                port,
                called=self._called,
                calling=self._calling,
                proposals=proposals,
                timeout_s=self._timeout_s,
                tls=self._tls,
            )
            self._ever, self._missed = True, 0
        except PeerUnavailable:
            self._missed += 1
            if not self._ever:
                raise

    def send(self, path: Path, sop_class_uid: str, sop_instance_uid: str, syntax: str) -> FileResult:
        """Send one file."""
        if not syntax:
            return FileResult(path, None, "not a DICOM file")
        self._carry((sop_class_uid, syntax))
        if self._association is None:
            return FileResult(path, None, "the peer cannot be reached any more")
        ways = accepted(self._association, sop_class_uid)
        self._message_id = self._message_id % 65535 + 1
        try:
            data_set, used = _as_accepted(part10.split(_mapped(path)).data_set, syntax, ways)
            code = store(
                self._association,
                ways[used],
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                data_set=data_set,
                message_id=self._message_id,
            )
            return FileResult(path, code, "" if code == 0 else f"status {code:04X}")
        except NotTranscodable as error:
            return FileResult(path, None, str(error))
        except AssociationLost:
            self._association.terminate()
            self._association = None
            return FileResult(path, None, "the association was lost")
        except (OSError, ArchiveError) as error:
            return FileResult(path, None, f"cannot be read ({type(error).__name__})")

    def _close(self) -> None:
        if self._association is not None:
            self._association.release_and_wait()
            self._association = None


def _as_accepted(data_set: Buffer, syntax: str, ways: Mapping[str, int]) -> tuple[list[Buffer], str]:
    """Return the data set in a transfer syntax the peer accepted, as it is where possible."""
    if syntax in ways:
        return [data_set], syntax
    if syntax in contexts.UNCOMPRESSED and contexts.EXPLICIT_LITTLE_ENDIAN in ways:
        return [elements.normalise(data_set, syntax)], contexts.EXPLICIT_LITTLE_ENDIAN
    if syntax in contexts.UNCOMPRESSED and contexts.IMPLICIT_LITTLE_ENDIAN in ways:
        file = b"".join((part10.file_meta("1.2", "1.2", contexts.EXPLICIT_LITTLE_ENDIAN), elements.normalise(data_set, syntax)))
        out = DicomBytesIO()
        out.is_implicit_VR, out.is_little_endian = True, True
        write_dataset(out, dcmread(BytesIO(file)))
        return [out.getvalue()], contexts.IMPLICIT_LITTLE_ENDIAN
    raise NotTranscodable("the peer accepts neither the file's transfer syntax nor one it can be turned into")


def _mapped(path: Path) -> Buffer:
    """Return a file's bytes; those of a large one mapped, so that they are never all in memory at once."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < _MAPPED_FROM:
            return file.read()
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def meta(path: Path) -> tuple[str, str, str]:
    """Return SOP Class UID, SOP Instance UID and transfer syntax of a file; empty where it is none that can be sent."""
    try:
        with path.open("rb") as file:
            parts = part10.split(file.read(1 << 16))
        found = (parts.sop_class_uid, parts.sop_instance_uid, parts.transfer_syntax_uid)
        if not all(found[:2]) or found[1].encode("ascii", "replace") not in bytes(parts.data_set):
            # File Meta Information is missing, or names another object than the one in the file, which happens.
            with contextlib.suppress(NotUnderstood):
                parts = part10.split(_mapped(path))
                read = elements.read(parts.data_set, parts.transfer_syntax_uid)
                named = values.attributes(read, ("SOPClassUID", "SOPInstanceUID"))
                uids = named.get("SOPClassUID") or found[0], named.get("SOPInstanceUID") or found[1]
                found = (*uids, parts.transfer_syntax_uid)
    except (OSError, ValueError, ArchiveError):
        return "", "", ""
    return found if all(identifier.is_uid(uid) for uid in found) else ("", "", "")


def _groups(files: Iterable[Path], size: int) -> Iterator[list[Path]]:
    group: list[Path] = []
    for path in files:
        group.append(path)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
