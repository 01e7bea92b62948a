"""What is in the archive, and the ways in and out of it from the command line: studies, get, import."""

import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, open_archive, out, progress, show
from pacs.model.errors import ArchiveError, DataSetMismatch, NotUnderstood, Quarantined, SOPClassNotSupported
from pacs.model.instance import Origin, Received

if TYPE_CHECKING:
    from pacs import reidentify
    from pacs.archive import Archive
    from pacs.model.instance import Buffer
    from pacs.store.scratch import OpenFile

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

STUDY_COLUMNS = {
    "study_instance_uid": "Study Instance UID",
    "patient_id": "Patient ID",
    "patient_name": "Name",
    "study_date": "Date",
    "modalities": "Modalities",
    "series": "Series",
    "instances": "Instances",
    "derived_series": "Derived",
}


def studies(
    search: Annotated[str, typer.Argument(help="Text in patient ID, name or description; empty: all.")] = "",
    limit: Annotated[int | None, typer.Option(help="At most so many, newest first.")] = None,
    as_json: Json = False,
) -> None:
    """List the studies, newest first, under their new identity."""
    with open_archive("cli") as (_, archive):
        rows = [{key: asdict(study).get(key) for key in STUDY_COLUMNS} for study in archive.index.studies(limit, search)]
    show(rows, columns=STUDY_COLUMNS, as_json=as_json, empty="No studies yet. Send some with `pacs send PATH --to HOST:PORT`.")


def get(
    uid: Annotated[str, typer.Argument(help="A Study, Series or SOP Instance UID of this archive; with --from a Study UID.")],
    folder: Annotated[Path, typer.Option("-o", "--output", help="Folder to write DICOM files to.")] = Path(),
    as_stored: Annotated[
        bool, typer.Option("--as-stored", help="Keep the archive's compression (HTJ2K); most viewers want not.")
    ] = False,
    sealed_identity: Annotated[
        bool,
        typer.Option("--sealed-identity", help="Add the original identity, encrypted for deid.recipient_certificate alone."),
    ] = False,
    where: Annotated[
        str, typer.Option("--from", metavar="PEER", help="Fetch from another server (C-GET): a peer's name, or HOST:PORT.")
    ] = "",
    series: Annotated[str, typer.Option(metavar="UID", help="With --from, only this series of the study.")] = "",
    ae_title: Annotated[str, typer.Option("--aet", help="AE title of the server, where --from is HOST:PORT.")] = "MINIPACS",
    calling: Annotated[str, typer.Option(help="With --from, the AE title we call ourselves; empty: ours.")] = "",
    tls: Annotated[bool, typer.Option("--tls", help="With --from, speak TLS.")] = False,
    as_json: Json = False,
) -> None:
    """Write a study, series or instance as DICOM files: DIR/STUDY/SERIES/INSTANCE.dcm, or with --from DIR/INSTANCE.dcm."""
    from pacs import retrieve

    if where:
        from pacs.cli.remote import get_from

        get_from(where, uid, series, folder, ae_title, calling, tls, as_json)
        return
    accepted = None if as_stored else (EXPLICIT_VR_LITTLE_ENDIAN,)
    failed = 0
    with open_archive("cli") as (_, archive):
        sealing = _sealing(archive) if sealed_identity else None
        found = (
            archive.index.locate(study_instance_uids=[uid])
            or archive.index.locate(series_instance_uids=[uid])
            or archive.index.locate(sop_instance_uids=[uid])
        )
        if not found:
            raise fail(f"nothing here has the UID {uid}; `pacs studies` lists what there is")
        with progress(as_json) as bar:
            task = bar.add_task("Writing", total=len(found))
            for stored in found:
                key = stored.key
                path = folder / key.study_instance_uid / key.series_instance_uid / f"{key.sop_instance_uid}.dcm"
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    try:
                        _write(path, retrieve.part10_file(archive, stored, accepted, sealing))
                    except ArchiveError:
                        # What has no uncompressed form here (video) leaves as it is stored.
                        _write(path, retrieve.part10_file(archive, stored, None, sealing))
                except ArchiveError as error:
                    failed += 1
                    err.print(f"{key.sop_instance_uid}: {error}", highlight=False)
                else:
                    if as_json:
                        emit([{"sop_instance_uid": key.sop_instance_uid, "path": str(path)}])
                bar.advance(task)
    if not as_json:
        out.print(f"{len(found) - failed} files in {folder}")
    if failed:
        raise fail(f"{failed} of {len(found)} instances could not be read; `pacs doctor` may tell why")


def _write(path: Path, buffers: Iterable["Buffer"]) -> None:
    """Write a file; there is none where its content cannot be made to the end."""
    temporary = path.with_suffix(".part")
    try:
        with temporary.open("wb") as sink:
            sink.writelines(buffers)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sealing(archive: "Archive") -> "reidentify.SealedIdentity":
    """Return what adds the Encrypted Attributes Sequence. Raises the one-line exit where nobody is configured to open it."""
    from pacs import reidentify

    if not archive.settings.deid.recipient_certificate:
        raise fail("set deid.recipient_certificate to the certificate of who may open it")
    archive.index.note("identity_restored", operation="sealed export")
    return reidentify.SealedIdentity(archive, Path(archive.settings.deid.recipient_certificate))


def import_files(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files or folders; folders are searched.", exists=True)],
    as_json: Json = False,
) -> None:
    """Take DICOM files in from disk: the same way in as over the network. Other files are left alone."""
    association = f"import-{uuid.uuid4()}"
    counts = dict.fromkeys(("stored", "known", "quarantined", "not_dicom", "failed"), 0)
    with open_archive("cli") as (_, archive):
        files = list(walk(paths))

        def taken(path: Path) -> dict[str, Any]:
            return {"path": str(path), **take(archive, path, association)}

        with progress(as_json) as bar, ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
            task = bar.add_task("Importing", total=len(files))
            for result in pool.map(taken, files):
                counts[result["outcome"]] += 1
                if as_json:
                    emit([result])
                elif result["outcome"] in ("quarantined", "failed"):
                    err.print(f"{result['path']}: {result['outcome']}: {result['reason']}", highlight=False, soft_wrap=True)
                bar.advance(task)
        archive.index.end_association(association, "import ended")
    if not as_json:
        out.print(
            f"{counts['stored']} stored, {counts['known']} already here, {counts['quarantined']} in quarantine, "
            f"{counts['failed']} failed, {counts['not_dicom']} not DICOM"
        )
    if counts["failed"] or counts["quarantined"]:
        raise typer.Exit(1)


def walk(paths: list[Path]) -> Iterator[Path]:
    """Yield every file at or under `paths`, in a stable order."""
    for path in paths:
        if path.is_dir():
            yield from (one for one in sorted(path.rglob("*")) if one.is_file())
        else:
            yield path


def take(archive: "Archive", path: Path, association: str) -> dict[str, Any]:
    """Take one file in; return its outcome: stored, known, quarantined, not_dicom or failed."""
    from pacs.store.scratch import OpenFile

    size = path.stat().st_size
    held = size <= archive.intake.large_bytes and archive.intake.take(size)
    content = path.read_bytes() if held else OpenFile(path)
    try:
        return _take(archive, path, content, association)
    finally:
        if held:
            archive.intake.give(size)


def _take(archive: "Archive", path: Path, content: "bytes | OpenFile", association: str) -> dict[str, Any]:
    from pacs.dicom import large
    from pacs.ingest import ingest
    from pacs.store.scratch import OpenFile

    try:
        parts = large.split(content)
    except NotUnderstood as error:
        beginning = content.read(0, min(132, len(content))) if isinstance(content, OpenFile) else content[:132]
        if beginning[128:132] != b"DICM" or path.name.upper() == "DICOMDIR":
            return {"outcome": "not_dicom", "reason": str(error)}
        archive.quarantine.keep(
            Received(data_set=content, transfer_syntax_uid="", origin=Origin.IMPORT, source="import"),
            "NotUnderstood",
            str(error),
        )
        return {"outcome": "quarantined", "reason": str(error)}
    if parts.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        return {"outcome": "not_dicom", "reason": "a media directory; the files that it names are taken"}
    received = Received(
        data_set=parts.data_set,
        transfer_syntax_uid=parts.transfer_syntax_uid,
        origin=Origin.IMPORT,
        source="import",
        sop_class_uid=parts.sop_class_uid,
        sop_instance_uid=parts.sop_instance_uid,
        association=association,
    )
    try:
        stored = ingest(archive, received)
    except (NotUnderstood, DataSetMismatch, SOPClassNotSupported, Quarantined) as error:
        return {"outcome": "quarantined", "reason": str(error)}
    except ArchiveError as error:
        return {"outcome": "failed", "reason": str(error)}
    return {"outcome": "stored" if stored.fresh else "known", "sop_instance_uid": stored.key.sop_instance_uid}
