"""Keyed pseudonyms: UIDs, patients, accession numbers (PS3.15 E.1.1 step 4, E.3.9).

Everything is HMAC-SHA-256 under the identity secret, so that every process gives the same answer without a table, and nobody
without the key can go back or test a guess.
"""

import hmac
import re
from functools import lru_cache
from uuid import UUID

from pydicom._uid_dict import UID_dictionary

_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+\Z")
_DICOM_ROOT = "1.2.840.10008."
_NEWER = re.compile(r"1\.2\.840\.10008\.(?:5\.1\.4\.1\.1|1\.2|6\.1)(?:\.[0-9]{1,4}){1,4}\Z")
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""32 signs without I, O, 0 and 1, which people confuse."""

_NAMESPACE = UUID("7f2a5c8e-3a0b-5d2f-9f43-0c61c8a9b7d4").bytes


def is_uid(value: str) -> bool:
    """Say whether `value` is a UID (PS3.5 section 9)."""
    return len(value) <= 64 and _UID.match(value) is not None


def is_registered(uid: str) -> bool:
    """Say whether `uid` is one of DICOM's own, which name no patient (PS3.6 Annex A).

    Only UIDs that are in the registry count, and transfer syntaxes and SOP Classes newer than it: a sender could hang anything
    under the root.
    """
    if not uid.startswith(_DICOM_ROOT):
        return False
    if uid in UID_dictionary:
        return True
    return _NEWER.match(uid) is not None


class Pseudonyms:
    """Makes pseudonyms under one identity key."""

    def __init__(self, identity_key: bytes) -> None:
        if len(identity_key) < 16:
            raise ValueError("an identity key has at least 16 bytes")
        self._key = hmac.digest(identity_key, b"pseudonyms 1", "sha256")
        self.uid = lru_cache(maxsize=65536)(self._uid)

    def digest(self, purpose: str, *parts: str) -> bytes:
        """Return 32 bytes for `parts`; each part is counted, so that no two lists of parts look alike."""
        message = b"".join(len(part).to_bytes(4, "big") + part for part in (text.encode() for text in (purpose, *parts)))
        return hmac.digest(self._key, message, "sha256")

    def word(self, purpose: str, *parts: str, letters: int = 13) -> str:
        """Return a keyed word of 5 bits a letter."""
        number = int.from_bytes(self.digest(purpose, *parts)[:16], "big")
        return "".join(_ALPHABET[number >> 5 * place & 31] for place in range(letters))

    def patient_id(self, patient_id: str, issuer: str) -> str:
        """Return the pseudonym of a patient; the same ID from two issuers is two patients."""
        return f"MP-{self.word('patient', patient_id, issuer)}"

    def patient_without_id(self, study_instance_uid: str) -> str:
        """Return the pseudonym where no Patient ID came: one a study, so that strangers are never merged."""
        return f"MP-{self.word('study', study_instance_uid)}"

    def shift_days(self, patient: str) -> int:
        """Return by how many days this patient's dates move: one to ten years back, in whole weeks (PS3.15 E.3.6)."""
        return -7 * (52 + int.from_bytes(self.digest("shift", patient)[:8], "big") % 469)

    def _uid(self, uid: str) -> str:
        """Return the pseudonymous UID: "2.25." and a UUID of version 5 shape (PS3.5 B.2); registered UIDs stay."""
        if is_registered(uid):
            return uid
        raw = hmac.digest(self._key, _NAMESPACE + uid.encode("utf-8", "surrogateescape"), "sha256")[:16]
        return f"2.25.{UUID(bytes=raw, version=5).int}"
