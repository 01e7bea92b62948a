"""The conformance statement (PS3.2), written from the configuration that runs and from what is really negotiated.

What only people can say is `conformance.md` beside this module; names in double braces are filled in here.
docs/conformance.md is the statement of the defaults (`pacs conformance --defaults`), and a test compares the two.
"""

import re
from collections.abc import Iterable
from importlib.resources import files

from pydicom.uid import UID

from pacs.deid import statement as deidentification
from pacs.dicom import part10
from pacs.dimse import contexts
from pacs.settings import DicomSettings, Settings

_TEMPLATE = files("pacs.dimse").joinpath("conformance.md")
_OPTIONS = (
    "relational",
    "combined date-time",
    "fuzzy semantic names",
    "timezone",
    "enhanced multi-frame",
    "empty value",
    "multiple value",
)
"""Bytes of the Service-class-application-information in order (PS3.4 Table C.5-2)."""
_CHARACTER_SETS = (
    "none (ISO 646)",
    *(f"ISO_IR {number}" for number in (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192, 203)),
    "ISO 2022 IR 58, 87, 149, 159",
    "GB18030",
    "GBK",
)


def statement(settings: Settings) -> str:
    """Return the statement as Markdown."""
    dicom = settings.dicom
    values = {
        "application_entity": _application_entity(dicom, settings.deid.policy),
        "character_sets": ", ".join(_CHARACTER_SETS),
        "deidentification": deidentification.section().strip("\n"),
        "extended": _extended(),
        "idle_timeout_s": f"{dicom.idle_timeout_s:g}",
        "implementation_class_uid": part10.IMPLEMENTATION_CLASS_UID,
        "implementation_version_name": part10.IMPLEMENTATION_VERSION_NAME,
        "maximum_associations": str(dicom.maximum_associations),
        "maximum_pdu_size": str(dicom.maximum_pdu_size),
        "send_attempts": str(dicom.send_attempts),
        "storage_classes": _classes(contexts.STORAGE_CLASSES),
        "storage_count": str(len(contexts.STORAGE_CLASSES)),
        "transfer_syntaxes": ", ".join(f"{_name(uid)} ({uid})" for uid in (*contexts.UNCOMPRESSED, *contexts.COMPRESSED)),
    }
    text = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)


def _application_entity(dicom: DicomSettings, policy: str) -> str:
    secured = f"TLS on port {dicom.port}" if dicom.tls else f"plain on port {dicom.port}"
    if dicom.tls_port:
        secured += f", TLS on port {dicom.tls_port}"
    certificates = "show a certificate signed by `dicom.tls_ca`" if dicom.tls_require_certificate else "need no certificate"
    rows = [
        ("AE title", dicom.ae_title),
        ("Address", dicom.host),
        ("Listening", secured),
        ("Over TLS, callers", certificates),
        ("Called AE title", "must be ours" if dicom.require_called_ae_title else "any"),
        ("Largest object", f"{dicom.maximum_object_mb} MiB"),
        (
            "Answers to a query",
            f"at most {dicom.maximum_answers}, then A700" if dicom.maximum_answers else "as many as there are",
        ),
        ("Storage commitment waits", f"{dicom.commitment_grace_s:g} s for instances that are missing"),
        ("De-identification policy", policy),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _extended() -> str:
    """Return what each kind of class answers to a proposal of everything."""
    everything = bytes([1] * len(_OPTIONS))
    kinds = (("FIND", contexts.STUDY_ROOT_FIND), ("MOVE", contexts.STUDY_ROOT_MOVE), ("GET", contexts.STUDY_ROOT_GET))
    told = []
    for kind, uid in kinds:
        answer = contexts.extended({uid: everything})[uid]
        done = [name for name, value in zip(_OPTIONS, answer, strict=True) if value]
        told.append(f"{kind} {', '.join(done)}")
    return "; ".join(told)


def _classes(uids: Iterable[str]) -> str:
    rows = sorted((_name(uid), uid) for uid in uids)
    return "\n".join(["| SOP Class | UID |", "|---|---|", *(f"| {name} | {uid} |" for name, uid in rows)])


def _name(uid: str) -> str:
    """Return the name of PS3.6 Annex A; the UID itself for one that is newer than the dictionary."""
    return str(UID(uid).name)
