"""Looking after the store: `pacs verify`, `compact`, `forget`, `versions`, `rebuild-index`."""

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, one_line_errors, open_archive, out, progress, show
from pacs.settings import load


def verify(
    deep: Annotated[bool, typer.Option("--deep", help="Open every chunk, decode every frame, compare digests.")] = False,
    as_json: Json = False,
) -> None:
    """Read everything that is stored and name what is missing, damaged, or in no list. Exit code 1 if anything is wrong."""
    from pacs.upkeep import verify as upkeep

    with open_archive("cli") as (_, archive), progress(as_json) as bar:
        total = sum(one.size_bytes for one in archive.objects.segments())
        task = bar.add_task("Verifying", total=total)
        findings = list(upkeep.verify(archive, deep=deep, on_record=lambda size: bar.advance(task, size)))
    rows = [
        {
            "kind": one.kind,
            "sop_instance_uid": one.sop_instance_uid,
            "segment": one.container,
            "offset": one.offset,
            "detail": one.detail,
        }
        for one in findings
    ]
    columns = {"kind": "Kind", "sop_instance_uid": "Instance", "segment": "Segment", "offset": "Offset", "detail": "Detail"}
    show(rows, columns=columns, as_json=as_json, empty="Everything is as it was written.")
    if findings:
        raise typer.Exit(1)


def compact(
    below: Annotated[float, typer.Option("--below", help="Rewrite segments of which less than this share is live.")] = 0.5,
    now: Annotated[
        bool, typer.Option("--now", help="Remove emptied segments at once; only while nothing else uses this archive.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give the room of what was deleted back. `pacs serve` does so by itself (store.compact_below)."""
    from pacs.upkeep import compact as upkeep

    with open_archive("compact") as (_, archive):
        done = upkeep.compact(archive, below=below, **({"grace_s": 0.0, "at_rest_s": 0.0} if now else {}))
        if now and done.waiting:
            done = upkeep.compact(archive, below=below, grace_s=0.0, at_rest_s=0.0)
    row = {
        "moved": done.moved,
        "dropped": done.dropped,
        "waiting": done.waiting,
        "freed_bytes": done.freed_bytes,
    }
    if as_json:
        emit([row])
    else:
        out.print(
            f"{done.moved} records moved, {done.dropped} segments removed ({done.freed_bytes >> 20} MiB), "
            f"{done.waiting} go when readers have had time"
        )


def forget(
    study: Annotated[
        list[str] | None, typer.Option("--study", metavar="UID", help="The archive's own UID of a study; may be repeated.")
    ] = None,
    patient: Annotated[
        str, typer.Option("--patient", metavar="PSEUDONYM", help="All studies of this pseudonymous Patient ID.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only what would go is listed.")] = False,
    certificates: Annotated[
        bool, typer.Option("--certificates", help="List what was forgotten, and check each signature.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make studies unreadable for good, in every copy of the store: lists what would go, and goes on with --yes."""
    from pacs.upkeep import forget as upkeep

    with open_archive("cli") as (_, archive):
        if certificates:
            found = upkeep.certificates(archive)
            columns = {"done_at": "When", "path": "Certificate", "genuine": "Genuine"}
            show(found, columns=columns, as_json=as_json, empty="Nothing was forgotten.")
            return
        if not study and not patient:
            raise fail("say what to forget: --study UID or --patient PSEUDONYM", 2)
        what = upkeep.belongings(archive, study_instance_uids=study or [], patient_id=patient)
        if not yes:
            rows = [{name: value for name, value in asdict(one).items() if name != "patient_id"} for one in what]
            columns = {
                "study_instance_uid": "Study",
                "series": "Series",
                "instances": "Instances",
                "derived_instances": "of them derived",
                "versions": "Older versions",
                "jobs": "Jobs",
                "size_bytes": "Bytes",
            }
            show(rows, columns=columns, as_json=as_json, empty="")
            err.print("Nothing was done. With --yes all of this is forgotten for good.")
            return
        path = upkeep.forget(archive, what)
    if as_json:
        emit([{"certificate": str(path), "studies": [one.study_instance_uid for one in what]}])
    else:
        out.print(f"{len(what)} studies forgotten; certificate: {path}", soft_wrap=True, highlight=False)
        err.print("Back up again, so that no older copy of the key ring remains in the backup.")


def versions(
    sop_instance_uid: Annotated[
        str, typer.Argument(help="An instance's UID; without it, all that have several contents.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List what came under one SOP Instance UID with different contents (store.conflict says which is shown)."""
    with open_archive("cli") as (_, archive):
        found = archive.index.upkeep.versions(sop_instance_uid)
    rows: list[dict[str, Any]] = [
        {
            "sop_instance_uid": one.sop_instance_uid,
            "version": one.version,
            "current": one.current,
            "stored_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.stored_at)),
            "source": one.source,
            "transfer_syntax_uid": one.transfer_syntax_uid,
            "size_bytes": one.size_bytes,
            "digest": one.digest[:16],
        }
        for one in found
    ]
    columns = {
        "sop_instance_uid": "Instance",
        "version": "Version",
        "current": "Shown",
        "stored_at": "Stored",
        "source": "From",
        "size_bytes": "Bytes",
        "digest": "Digest",
    }
    show(rows, columns=columns, as_json=as_json, empty="No instance came with different contents.")
    if sop_instance_uid and not rows:
        raise fail("there is no instance of this UID")


def rebuild_index(as_json: Json = False) -> None:
    """Write the index anew from records and key ring. Jobs, peers and tokens are not in the records and are not restored."""
    from pacs.index import schema
    from pacs.upkeep.rebuild import rebuild

    with one_line_errors():
        settings = load()
        if (settings.home / "keys").is_dir():
            schema.upgrade(settings.database_url)
    with open_archive("cli") as (_, archive), progress(as_json) as bar:
        task = bar.add_task("Reading records", total=None)
        done = rebuild(archive, lambda count: bar.advance(task, count))
    if as_json:
        emit([{"instances": done.instances, "copies": done.copies, "unreadable": done.unreadable}])
    else:
        out.print(f"{done.instances} instances listed again; {done.unreadable} records could not be opened")
