"""`pacs identity`: from the hospital's names to ours and back, for those who may; every look is written into the change feed.

It needs the identity key of the home, which not everybody who runs the archive has to be able to read, and a reason.
"""

import getpass
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs.cli.console import Json, fail, open_archive, show
from pacs.model.query import Level

if TYPE_CHECKING:
    from pacs.archive import Archive
    from pacs.store.vault import Identity

app = typer.Typer(help="Find a patient by what the hospital calls it, and back. Audited.", no_args_is_help=True)
Reason = Annotated[str, typer.Option(help="Why you look; written into the audit with your user name. Required.")]
FOUND_COLUMNS = {
    "level": "Level",
    "patient_id": "Patient ID",
    "study_instance_uid": "Study Instance UID",
    "series_instance_uid": "Series Instance UID",
    "sop_instance_uid": "SOP Instance UID",
}


@app.command()
def find(
    patient_id: Annotated[str, typer.Option(help="Original Patient ID.")] = "",
    issuer: Annotated[str, typer.Option(help="Issuer of Patient ID; with --patient-id only.")] = "",
    uid: Annotated[str, typer.Option(help="Original Study, Series or SOP Instance UID.")] = "",
    accession: Annotated[str, typer.Option(help="Original Accession Number.")] = "",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Say under which pseudonyms the archive knows a patient, accession number or UID; of patients their studies, too."""
    if sum(map(bool, (patient_id, uid, accession))) != 1 or (issuer and not patient_id):
        raise fail("give one of --patient-id (with --issuer), --uid and --accession", 2)
    asked = ("patient", f"{patient_id}\\{issuer}") if issuer else ("id", patient_id) if patient_id else ("uid", uid)
    kind, value = asked if not accession else ("accession", accession)
    with _audited(reason) as archive:
        vault = archive.vault
        assert vault is not None
        found = vault.find(kind, value)
        rows = [_row(one) for one in found]
        for one in found:
            if one.found.level is Level.PATIENT:
                rows += [_row(study) for study in vault.below(one.found)]
        _note(archive, "identity_found", reason, by=kind, count=len(found))
    show(rows, columns=FOUND_COLUMNS, as_json=as_json, empty="Nobody is known by this.")
    if not rows:
        raise typer.Exit(1)


@app.command()
def reveal(
    uid: Annotated[str, typer.Argument(help="A Patient ID, or Study, Series or SOP Instance UID of this archive.")],
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Show the original values of what this archive knows under a pseudonym."""
    with _audited(reason) as archive:
        assert archive.vault is not None
        found = archive.vault.under(uid)
        rows = [row for one in found for row in _values(one)]
        study = next((one.found.study_instance_uid for one in found), "")
        _note(archive, "identity_revealed", reason, study_instance_uid=study, count=len(found))
    columns = {"level": "Level", "element": "Element", "keyword": "Name", "value": "Original value"}
    show(rows, columns=columns, as_json=as_json, empty="The vault knows nothing under this pseudonym.")
    if not rows:
        raise typer.Exit(1)


@contextmanager
def _audited(reason: str) -> "Iterator[Archive]":
    """Open the archive for somebody who has said why and may read the identity key."""
    if len(reason.strip()) < 3:
        raise fail("say why with --reason; it is written into the audit", 2)
    with open_archive("cli") as (_, archive):
        if archive.vault is None:
            raise fail("this archive keeps no identities (deid.vault = false)")
        yield archive


def _note(archive: "Archive", kind: str, reason: str, **detail: Any) -> None:
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = "unknown"
    archive.index.note(kind, user=who, reason=reason.strip()[:200], **detail)


def _row(one: "Identity") -> dict[str, Any]:
    found = one.found
    return {
        "level": found.level.value.lower(),
        "patient_id": found.patient_id,
        "study_instance_uid": found.study_instance_uid,
        "series_instance_uid": found.series_instance_uid,
        "sop_instance_uid": found.sop_instance_uid,
    }


def _values(one: "Identity") -> Iterator[dict[str, Any]]:
    from pacs.dicom import values
    from pacs.dicom.dictionary import keyword_of
    from pacs.dicom.elements import walk

    elements = sorted((element for value in one.taken.values() if value for element in walk(value)), key=lambda e: e.tag)
    charsets = values.charset(elements)
    for element in elements:
        bulk = element.vr in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN")
        value = f"{len(element.value)} bytes" if bulk else _joined(values.strings(element, charsets))
        tag = f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
        yield {"level": one.found.level.value.lower(), "element": tag, "keyword": keyword_of(element.tag), "value": value}


def _joined(parts: Iterable[str]) -> str:
    return "\\".join(parts)
