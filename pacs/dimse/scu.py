"""Our own asking and sending: C-STORE, C-ECHO, C-FIND and C-GET as SCU, for the command line, the demo and C-MOVE.

Data sets go out as they lie in their files,
mapped and not read, so that memory stays bounded; only where the peer takes no more than another uncompressed transfer syntax
is one encoded anew. PS3.4 Annexes A, B and C; PS3.7 9.1.
"""

import contextlib
import mmap
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from pathlib import Path

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.dicom import elements, part10, values
from pacs.dicom.dictionary import tag_of, vr_of
from pacs.dimse import contexts, identifier, messages, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.dimse.requestor import CONTEXT_LIMIT, PeerUnavailable, Proposal, accepted, associate, response, store
from pacs.model.bulk import blocks
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


def echo(
    host: str,
    port: int,
    ae_title: str,
    *,
    calling: str = "MINIPACS",
    timeout_s: float = 10.0,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Verify a peer; returns its status, 0 for success. Raises `PeerUnavailable`."""
    proposals = [(contexts.VERIFICATION, contexts.MESSAGE_SYNTAXES)]
    with _open(host, port, ae_title, calling, proposals, timeout_s, tls=tls) as association:
        context_id = _context(association, contexts.VERIFICATION)[0]
        asked: dict[int, int | str] = {messages.AFFECTED_SOP_CLASS_UID: contexts.VERIFICATION, messages.MESSAGE_ID: 1}
        association.dimse.send(context_id, messages.encode(Command.C_ECHO_RQ, asked))
        return response(association, Command.C_ECHO_RSP, 1).status


def find(
    host: str,
    port: int,
    ae_title: str,
    keys: Mapping[str, str],
    *,
    calling: str = "MINIPACS",
    timeout_s: float = 60.0,
    tls: ssl.SSLContext | None = None,
) -> list[dict[str, str]]:
    """Query a peer in the Study Root model; `keys` are keyword -> value, QueryRetrieveLevel among them.

    Raises `PeerUnavailable`, or `NotUnderstood` with the status where the peer refuses.
    """
    uid = contexts.STUDY_ROOT_FIND
    with _open(host, port, ae_title, calling, [(uid, contexts.MESSAGE_SYNTAXES)], timeout_s, tls=tls) as association:
        context_id, syntax = _context(association, uid)
        _request(association, context_id, syntax, Command.C_FIND_RQ, uid, keys)
        answers: list[dict[str, str]] = []
        while True:
            answer = response(association, Command.C_FIND_RSP, 1)
            if answer.status not in (status.PENDING, status.PENDING_UNSUPPORTED_KEYS):
                _check(answer)
                return answers
            found = elements.read(answer.data_set or b"", syntax)
            answers.append(values.attributes(found))
            association.dimse.give_back(answer.content)


def get(
    host: str,
    port: int,
    ae_title: str,
    study_uid: str,
    directory: Path,
    *,
    calling: str = "MINIPACS",
    timeout_s: float = 60.0,
    sop_classes: Sequence[str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Retrieve a study by C-GET into `directory`, one Part 10 file an instance; return how many files were written.

    Which classes the study holds is asked first, because all of them in all syntaxes would not fit into one association.
    Raises `PeerUnavailable`, or `NotUnderstood` with the status where the peer refuses or sub-operations failed.
    """
    if sop_classes is None:
        asked = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_uid, "SOPClassesInStudy": ""}
        found = find(host, port, ae_title, asked, calling=calling, timeout_s=timeout_s, tls=tls)
        sop_classes = [uid for row in found for uid in row.get("SOPClassesInStudy", "").split("\\") if uid]
    uid = contexts.STUDY_ROOT_GET
    # A context for each syntax we can expect, so that nothing needs to be decompressed for us; with many classes the likely.
    likely = (contexts.HTJ2K[0], contexts.EXPLICIT_LITTLE_ENDIAN, *contexts.COMPRESSED, contexts.IMPLICIT_LITTLE_ENDIAN)
    proposals: list[Proposal] = [(uid, contexts.MESSAGE_SYNTAXES)]
    room = (CONTEXT_LIMIT - 1) // max(1, len(sop_classes))
    for sop_class in sop_classes:
        proposals += [(sop_class, (syntax,)) for syntax in list(dict.fromkeys(likely))[:room]]
    count = 0
    directory.mkdir(parents=True, exist_ok=True)
    with _open(host, port, ae_title, calling, proposals[:CONTEXT_LIMIT], timeout_s, sop_classes, tls) as association:
        context_id, syntax = _context(association, uid)
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_uid}
        _request(association, context_id, syntax, Command.C_GET_RQ, uid, keys)
        while True:
            message = association.dimse.receive(timeout_s)
            if message.command_field == Command.C_STORE_RQ:
                count += _keep(association, message, directory)
            elif message.command_field == Command.C_GET_RSP and message.status != status.PENDING:
                _check(message)
                return count


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
            known = [(path, *_meta(path)) for path in group]
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


@contextlib.contextmanager
def _open(
    host: str,
    port: int,
    called: str,
    calling: str,
    proposals: Sequence[Proposal],
    timeout_s: float,
    as_scp: Iterable[str] = (),
    tls: ssl.SSLContext | None = None,
) -> Iterator[LaneAssociation]:
    association = associate(
        host, port, called=called, calling=calling, proposals=proposals, as_scp=as_scp, timeout_s=timeout_s, tls=tls
    )
    try:
        yield association
    except AssociationLost as error:
        association.terminate()
        raise PeerUnavailable(f"{called} ended the association or fell silent") from error
    except BaseException:
        association.terminate()
        raise
    association.release_and_wait()


def _context(association: LaneAssociation, sop_class_uid: str) -> tuple[int, str]:
    for syntax, context_id in accepted(association, sop_class_uid).items():
        return context_id, syntax
    raise NotUnderstood("the peer does not offer this service")


def _request(
    association: LaneAssociation, context_id: int, syntax: str, command: Command, sop_class_uid: str, keys: Mapping[str, str]
) -> None:
    rows = sorted((tag_of(keyword), value) for keyword, value in keys.items())
    coded = not all(value.isascii() for _, value in rows)
    encoded = [(tag, vr_of(tag), value.encode("utf-8")) for tag, value in rows]
    if coded:
        encoded.insert(0, (identifier.SPECIFIC_CHARACTER_SET, "CS", b"ISO_IR 192"))
    body = identifier.encode(encoded, explicit=syntax == contexts.EXPLICIT_LITTLE_ENDIAN)
    asked: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: sop_class_uid,
        messages.MESSAGE_ID: 1,
        messages.PRIORITY: 0,
    }
    association.dimse.send(context_id, messages.encode(command, asked, data_set=True), [body])


def _check(answer: Message) -> None:
    if answer.status not in (status.SUCCESS, status.SUB_OPERATIONS_WARNING):
        raise NotUnderstood(f"the peer answered status {answer.status:04X}")
    if answer.number(messages.FAILED):
        raise NotUnderstood(f"{answer.number(messages.FAILED)} instances could not be transferred")


def _keep(association: LaneAssociation, message: Message, directory: Path) -> int:
    """Write an instance that a C-GET brought, and answer; 1 if it was written."""
    context = association._accepted_cx.get(message.context_id)
    code = status.SUCCESS
    if context is None or message.content is None or not identifier.is_uid(message.sop_instance_uid):
        code = 0xC000
    else:
        meta = part10.file_meta(message.sop_class_uid, message.sop_instance_uid, str(context.transfer_syntax[0]))
        try:
            with (directory / f"{message.sop_instance_uid}.dcm").open("wb") as file:
                file.writelines(chain([meta], blocks(message.content)))
        except OSError:
            code = status.OUT_OF_RESOURCES
    association.dimse.give_back(message.content)
    answer: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: message.sop_class_uid,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: code,
        messages.AFFECTED_SOP_INSTANCE_UID: message.sop_instance_uid,
    }
    association.dimse.send(message.context_id, messages.encode(Command.C_STORE_RSP, answer))
    return int(code == status.SUCCESS)


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


def _meta(path: Path) -> tuple[str, str, str]:
    """Return SOP Class UID, SOP Instance UID and transfer syntax of a file; empty where it is none we can send."""
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
