"""What we negotiate: SOP Classes, transfer syntaxes and their order, roles and extended negotiation.

PS3.8 9.3.2.2 and 9.3.3.2 (presentation contexts), PS3.7 D.3.3.4 (roles) and D.3.3.5 with PS3.4 C.5 (extended negotiation).
Where a context offers several transfer syntaxes, the standard leaves the choice to the acceptor. Ours: a compressed one before
an uncompressed one, so that no sender has to decompress what it holds; of several compressed ones the one the sender named
first; of the uncompressed ones Explicit VR Little Endian, because it keeps private VRs.
"""

from collections.abc import Collection, Iterable, Sequence

from pydicom.uid import UID
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext, StoragePresentationContexts

VERIFICATION = "1.2.840.10008.1.1"
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
PERFORMED_STEP = "1.2.840.10008.3.1.2.3.3"
PERFORMED_STEP_RETRIEVE = "1.2.840.10008.3.1.2.3.4"
AVAILABILITY = "1.2.840.10008.5.1.4.33"
UPS_PUSH, UPS_WATCH, UPS_PULL, UPS_EVENT, UPS_QUERY = (f"1.2.840.10008.5.1.4.34.6.{number}" for number in range(1, 6))
UPS_FIND_CLASSES = frozenset({UPS_WATCH, UPS_PULL, UPS_QUERY})
"""Those of the Unified Procedure Step services that have C-FIND (PS3.4 Table CC.2-1)."""
FIND_CLASSES = frozenset({PATIENT_ROOT_FIND, STUDY_ROOT_FIND})
MOVE_CLASSES = frozenset({PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE})
GET_CLASSES = frozenset({PATIENT_ROOT_GET, STUDY_ROOT_GET})
PATIENT_ROOT = frozenset({PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET})
QUERY_RETRIEVE_CLASSES = FIND_CLASSES | MOVE_CLASSES | GET_CLASSES
_MESSAGE_CLASSES = QUERY_RETRIEVE_CLASSES | {
    VERIFICATION,
    STORAGE_COMMITMENT,
    WORKLIST_FIND,
    PERFORMED_STEP,
    PERFORMED_STEP_RETRIEVE,
    UPS_PUSH,
    *UPS_FIND_CLASSES,
}

STORAGE_CLASSES = frozenset(
    str(context.abstract_syntax) for context in (*AllStoragePresentationContexts, *StoragePresentationContexts)
)
"""Every standard Storage SOP Class for composite instances of patients, the retired ones still in use among them."""

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNCOMPRESSED = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, DEFLATED, EXPLICIT_BIG_ENDIAN)
HTJ2K = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (202, 201, 203))
COMPRESSED = (
    "1.2.840.10008.1.2.5",  # RLE Lossless
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)),  # JPEG
    *(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81)),  # JPEG-LS
    *(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91)),  # JPEG 2000
    *HTJ2K,
    *(f"1.2.840.10008.1.2.4.{number}" for number in (100, 101, 102, 103, 104, 105, 106)),  # MPEG2, MPEG-4 AVC/H.264
    *(f"1.2.840.10008.1.2.4.{number}.1" for number in (100, 101, 102, 103, 104, 105, 106)),  # the same, fragmentable
    *(f"1.2.840.10008.1.2.4.{number}" for number in (107, 108)),  # HEVC/H.265
)
"""Accepted for storage and kept. JPIP is not: what it names is not in the data set."""
_COMPRESSED = frozenset(COMPRESSED)
RELATIONAL, DATE_TIME, FUZZY, TIMEZONE, EMPTY_VALUES, SEVERAL_VALUES = 0, 1, 2, 3, 5, 6
"""Places in the Service-class-application-information (PS3.4 Table C.5-1)."""
_DONE = (RELATIONAL, DATE_TIME, FUZZY, TIMEZONE, EMPTY_VALUES, SEVERAL_VALUES)
MESSAGE_SYNTAXES = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)
"""For verification, queries and identifiers, which are not worth compressing."""


def preferred(offered: Iterable[str], private: Collection[str] = (), prefers: Sequence[str] = ()) -> list[str]:
    """Return the storage transfer syntaxes of `offered` that we accept, best first.

    What this peer `prefers` goes before all others; those of `private`, too, are accepted, but last.
    """
    offered = list(dict.fromkeys(str(uid) for uid in offered))
    known = [uid for uid in offered if uid in _COMPRESSED] + [uid for uid in UNCOMPRESSED if uid in offered]
    return list(dict.fromkeys([uid for uid in prefers if uid in known] + known + [uid for uid in offered if uid in private]))


def is_private(abstract_syntax: str, transfer_syntax: str) -> bool:
    """Say whether a context for storage was accepted only because its peer may bring what is private."""
    return abstract_syntax not in STORAGE_CLASSES or transfer_syntax not in (*UNCOMPRESSED, *COMPRESSED)


def supported(
    proposed: Sequence[PresentationContext], private: Collection[str] = (), prefers: Sequence[str] = ()
) -> list[PresentationContext]:
    """Return what we accept of `proposed` as pynetdicom wants it: once per abstract syntax, transfer syntaxes best first.

    `private` are the private SOP Classes and transfer syntaxes that this peer may bring; `prefers`, the transfer syntaxes that
    it wants before others.
    """
    offered: dict[str, list[str]] = {}
    for context in proposed:
        offered.setdefault(str(context.abstract_syntax), []).extend(str(uid) for uid in context.transfer_syntax)
    accepted = []
    for abstract_syntax, syntaxes in offered.items():
        storage = abstract_syntax in STORAGE_CLASSES or abstract_syntax in private
        if not storage and abstract_syntax not in _MESSAGE_CLASSES:
            continue
        # Where none of ours was offered, name ours all the same: the answer is then "transfer syntaxes not supported" (4).
        ours = preferred(syntaxes, private, prefers) if storage else [uid for uid in MESSAGE_SYNTAXES if uid in syntaxes]
        context = PresentationContext()
        context.abstract_syntax = UID(abstract_syntax)
        context.transfer_syntax = [UID(uid) for uid in ours or MESSAGE_SYNTAXES]
        if storage:
            # A requestor of C-GET is SCP of the storage classes (PS3.4 C.5.3); one that sends is SCU, the default.
            context.scu_role = context.scp_role = True
        accepted.append(context)
    return accepted


def extended(proposed: dict[str, bytes]) -> dict[str, bytes]:
    """Return Service-class-application-information for the query and retrieve classes (PS3.4 Tables C.5-1, C.5-3, C.5-4).

    We do relational queries and retrievals (byte 1) and, in queries, combined date-time matching (byte 2), fuzzy semantic
    matching of names (byte 3), timezone adjustment (byte 4), empty value matching (byte 6) and multiple value matching
    (byte 7). Not done: enhanced multi-frame conversion.
    """
    answers = {}
    for uid, information in proposed.items():
        if uid not in QUERY_RETRIEVE_CLASSES or not information:
            continue
        done = _DONE if uid in FIND_CLASSES else (RELATIONAL,)
        answers[uid] = bytes(int(index in done and asked == 1) for index, asked in enumerate(information[:7]))
    return answers


def negotiated(proposed: dict[str, bytes], sop_class_uid: str, index: int) -> bool:
    """Say whether option `index` (RELATIONAL, FUZZY, ...) of a query or retrieve class is in force."""
    return extended(proposed).get(sop_class_uid, b"")[index : index + 1] == b"\1"
