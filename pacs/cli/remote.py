"""Asking and sending to other servers: find, move, commit, send and push. A server is a peer's name, or HOST:PORT."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, one_line_errors, open_archive, out, progress, show
from pacs.cli.studies import walk
from pacs.settings import load

LEVELS = ("patient", "study", "series", "image")
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "patient": ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    "study": ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "ModalitiesInStudy", "StudyDescription"),
    "series": ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "NumberOfSeriesRelatedInstances"),
    "image": ("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "NumberOfFrames"),
}
UNIQUE = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID", "image": "SOPInstanceUID"}
From = Annotated[str, typer.Option("--from", metavar="PEER", help="A name of `pacs peers list`, or HOST:PORT.")]
To = Annotated[str, typer.Option("--to", metavar="PEER", help="A name of `pacs peers list`, or HOST:PORT.")]
Called = Annotated[str, typer.Option("--aet", help="AE title of the server, where --from or --to is HOST:PORT.")]
Calling = Annotated[str, typer.Option(help="AE title we call ourselves; empty: ours (dicom.ae_title).")]
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS; dicom.tls_ca says whose certificate counts.")]
Series = Annotated[str, typer.Option(metavar="UID", help="Only this series of the study.")]


@dataclass(frozen=True, slots=True)
class Remote:
    """Where to call, and how."""

    host: str
    port: int
    ae_title: str
    calling: str
    tls: ssl.SSLContext | None


def reach(name: str, ae_title: str, calling: str, secured: bool) -> Remote:
    """Return the server of a peer's name or of HOST:PORT. Raises the one-line exit where it is neither."""
    from pacs.dimse import tls

    host, _, port = name.rpartition(":")
    with one_line_errors():
        if host and port.isdigit():
            settings = load()
            found = Remote(host.strip("[]"), int(port), ae_title, calling or settings.dicom.ae_title, None)
        else:
            with open_archive("cli") as (settings, archive):
                peer = archive.index.peers.get(name)
            if peer is None:
                raise fail(f"{name} is neither a peer nor HOST:PORT; `pacs peers list` shows the peers", 2)
            if peer.url:
                raise fail(f"{name} is a DICOMweb server; `pacs push` sends to it, and a route", 2)
            secured = secured or "tls" in peer.options
            found = Remote(peer.host, peer.port, peer.ae_title, calling or settings.dicom.ae_title, None)
        return replace(found, tls=tls.client_context(settings.dicom)) if secured else found


def find(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE…", help="What to match: PatientID=42, StudyDate=20260101-, PatientName='DOE*'."),
    ] = None,
    where: From = "127.0.0.1:11112",
    level: Annotated[str, typer.Option(help=f"What to list: {', '.join(LEVELS)}.")] = "study",
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many answers; 0: all.")] = 0,
    ae_title: Called = "MINIPACS",
    calling: Calling = "",
    tls: Tls = False,
    as_json: Json = False,
) -> None:
    """Ask a server what it has (C-FIND). Exit code 1 where nothing matches.

    Keys are DICOM keywords; one without a value is asked for and does not restrict. Below study level, name the levels above:
    `pacs find --level series StudyInstanceUID=1.2.3`. Wild cards * and ?, ranges as FROM-TO, lists of UIDs with a backslash.
    """
    from pacs.dimse import scu

    level = level.lower()
    if level not in LEVELS:
        raise fail(f"--level is one of {', '.join(LEVELS)}", 2)
    given = dict(_key(one) for one in keys or ())
    for above in LEVELS[1 : LEVELS.index(level)]:
        if not given.get(UNIQUE[above]):
            raise fail(f"at level {level} name {UNIQUE[above]}=UID; `pacs find --level {above}` lists them", 2)
    asked = {"QueryRetrieveLevel": level.upper(), **dict.fromkeys(COLUMNS[level], ""), **given}
    remote = reach(where, ae_title, calling, tls)
    with one_line_errors():
        rows = scu.find(remote.host, remote.port, remote.ae_title, asked, calling=remote.calling, tls=remote.tls, limit=limit)
    columns = {one: one for one in dict.fromkeys((*COLUMNS[level], *given))}
    told = [{key: row.get(key, "") for key in columns} for row in rows]
    show(told, columns=columns, as_json=as_json, empty=f"{remote.ae_title} has nothing that matches.")
    if not rows:
        raise typer.Exit(1)


def move(
    study: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID; `pacs find` shows them.")],
    to: Annotated[str, typer.Option("--to", metavar="AET", help="AE title of the receiver, as that server knows it.")],
    where: From = "127.0.0.1:11112",
    series: Series = "",
    ae_title: Called = "MINIPACS",
    calling: Calling = "",
    tls: Tls = False,
    as_json: Json = False,
) -> None:
    """Have a server send a study to another one (C-MOVE). Exit code 1 where something did not arrive."""
    from pacs.dimse import scu

    remote = reach(where, ae_title, calling, tls)
    with one_line_errors(), progress(as_json) as bar:
        task = bar.add_task("Moving", total=None)

        def told(moved: scu.Moved) -> None:
            done = moved.completed + moved.failed + moved.warning
            bar.update(task, completed=done, total=done + moved.remaining)

        moved = scu.move(
            remote.host,
            remote.port,
            remote.ae_title,
            study,
            to,
            series_uid=series,
            calling=remote.calling,
            on_progress=told,
            tls=remote.tls,
        )
    if as_json:
        emit([{"completed": moved.completed, "warning": moved.warning, "failed": moved.failed}])
    else:
        out.print(f"{moved.completed + moved.warning} instances sent to {to}, {moved.failed} failed")
    if moved.failed or not moved.completed + moved.warning:
        raise typer.Exit(1)


def commit(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="DICOM files or folders that were sent.", exists=True)],
    to: To,
    listen: Annotated[
        int, typer.Option(metavar="PORT", help="Port where the server reaches us with its report; 0: on our association only.")
    ] = 0,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Wait so long for the report.")] = 120.0,
    ae_title: Called = "MINIPACS",
    calling: Calling = "",
    tls: Tls = False,
    as_json: Json = False,
) -> None:
    """Ask a server whether it keeps what was sent to it (storage commitment), and wait for its report.

    Exit code 0 only where it takes responsibility for every instance: then the files may be deleted here.
    """
    from pacs.dimse import committing, outbound

    references = [(found[0], found[1]) for found in map(outbound.meta, walk(paths)) if found[2]]
    if not references:
        raise fail("there is no DICOM file at these paths")
    remote = reach(to, ae_title, calling, tls)
    address = ("", listen) if listen else None
    with one_line_errors():
        reasons = committing.commit(
            remote.host,
            remote.port,
            remote.ae_title,
            references,
            calling=remote.calling,
            listen=address,
            wait_s=wait,
            tls=remote.tls,
        )
    failed = {reference: reason for reference, reason in reasons.items() if reason}
    if as_json:
        emit(
            {"sop_instance_uid": uid, "committed": not reason, "reason": f"{reason:04X}" if reason else ""}
            for (_, uid), reason in reasons.items()
        )
    else:
        for (_, uid), reason in failed.items():
            err.print(f"{uid}: not committed, {reason:04X}", highlight=False, soft_wrap=True)
        out.print(f"{len(reasons) - len(failed)} of {len(reasons)} committed by {remote.ae_title}")
    if failed:
        raise typer.Exit(1)


def send(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="DICOM files or folders.", exists=True)],
    to: To = "127.0.0.1:11112",
    ae_title: Called = "MINIPACS",
    calling: Annotated[str, typer.Option(help="AE title we call ourselves.")] = "PACSSEND",
    tls: Tls = False,
    as_json: Json = False,
) -> None:
    """Send DICOM files to any server by C-STORE, each in the transfer syntax it has. Exit code 1 where one was not stored."""
    from pacs.dimse import outbound

    files = list(walk(paths))
    if not files:
        raise fail("there is no file at these paths")
    remote = reach(to, ae_title, calling, tls)
    with one_line_errors(), progress(as_json) as bar:
        task = bar.add_task("Sending", total=len(files))
        report = outbound.send(
            files,
            remote.host,
            remote.port,
            remote.ae_title,
            calling=remote.calling,
            on_progress=lambda _: bar.advance(task),
            tls=remote.tls,
        )
    rows: list[dict[str, Any]] = [
        {"path": str(one.path), "status": "" if one.status is None else f"{one.status:04X}", "reason": one.reason}
        for one in report.results
    ]
    if as_json:
        emit(rows)
    else:
        for row, one in zip(rows, report.results, strict=True):
            if not one.stored:
                err.print(
                    f"{row['path']}: {row['status'] or 'not sent'} {row['reason']}".rstrip(), highlight=False, soft_wrap=True
                )
        out.print(f"{report.stored} of {len(rows)} stored by {remote.ae_title}")
    if report.failed:
        raise typer.Exit(1)


def push(
    study: Annotated[str, typer.Argument(metavar="STUDY_UID", help="A Study Instance UID of this archive.")],
    to: Annotated[str, typer.Option("--to", metavar="PEER", help="A name of `pacs peers list`, over DIMSE or DICOMweb.")],
    series: Series = "",
    as_json: Json = False,
) -> None:
    """Queue the sending of what is in this archive to a peer; a worker of `pacs serve` sends it, `pacs jobs` follows it."""
    from pacs.processing import sending

    with open_archive("cli") as (_, archive):
        held = [one.series_instance_uid for one in archive.index.series_of(study)]
        wanted = [one for one in held if not series or one == series]
        job_id = sending.schedule(archive.index, to, study, wanted)
    if as_json:
        emit([{"job_id": job_id or "", "queued": job_id is not None, "series": len(wanted)}])
    elif job_id is None:
        out.print(f"the same was queued for {to} before; `pacs jobs --study {study}` tells how it went", soft_wrap=True)
    else:
        out.print(f"job {job_id} sends {len(wanted)} series to {to}", soft_wrap=True)


def get_from(where: str, study: str, series: str, folder: Path, ae_title: str, calling: str, tls: bool, as_json: bool) -> None:
    """Fetch a study from another server by C-GET: `pacs get --from`."""
    from pacs.dimse import scu

    remote = reach(where, ae_title, calling, tls)
    with one_line_errors(), progress(as_json) as bar:
        task = bar.add_task("Getting", total=None)
        count = scu.get(
            remote.host,
            remote.port,
            remote.ae_title,
            study,
            folder,
            series_uid=series,
            calling=remote.calling,
            on_progress=lambda count: bar.update(task, completed=count),
            tls=remote.tls,
        )
    if as_json:
        emit([{"count": count, "path": str(folder)}])
    else:
        out.print(f"{count} files in {folder}")
    if not count:
        raise fail(f"{remote.ae_title} has no such study; `pacs find --from {where}` lists what it has")


def _key(text: str) -> tuple[str, str]:
    """Return keyword and value of KEY=VALUE. Raises the one-line exit where the keyword is none."""
    from pacs.dicom.dictionary import tag_of

    keyword, _, value = text.partition("=")
    try:
        tag_of(keyword)
    except KeyError:
        raise fail(f"{keyword} is not the keyword of a DICOM attribute (PS3.6), such as PatientID or StudyDate", 2) from None
    return keyword, value
