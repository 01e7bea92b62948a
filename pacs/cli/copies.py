"""Other copies of the archive: `pacs backup`, `restore`, `repair`, `bucket`."""

from dataclasses import asdict
from typing import Annotated

import typer

from pacs.cli.console import Json, emit, err, one_line_errors, open_archive, out, progress, show
from pacs.settings import load


def backup(
    where: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|URL",
            help="An empty folder or bucket (s3://, gs://, az://), or an earlier backup: then only what is new is copied.",
        ),
    ],
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Copy the key files too: then whoever has the backup can read it.")
    ] = False,
    without_index: Annotated[
        bool, typer.Option("--without-index", help="Leave the index out; `pacs rebuild-index` writes it anew.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Copy segments too that the archive's own bucket has; without, they are only named.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy the archive into a folder or bucket, while it serves. Keys stay out unless you say so: see `pacs keys export`."""
    from pacs.upkeep.backup import back_up

    with open_archive("cli") as (_, archive), progress(as_json) as bar:
        task = bar.add_task("Copying", total=None)
        options = {"with_keys": with_keys, "without_index": without_index, "whole": whole}
        done = back_up(archive, where, **options, on_file=lambda _: bar.advance(task))
        lonely = [] if with_keys else archive.keys.unexported()
    if as_json:
        emit([asdict(done)])
    else:
        out.print(f"{done.files} files, {done.copied} of them new ({done.copied_bytes >> 20} MiB)")
        if done.elsewhere:
            out.print(f"{done.elsewhere} segments are in the archive's own bucket only; --whole copies them as well")
    if lonely:
        err.print("pacs: this backup can be read with the keys only, and they were never exported: see `pacs keys export`")


def restore(
    where: Annotated[str, typer.Argument(metavar="FOLDER|URL", help="Where a backup is.")],
    as_json: Json = False,
) -> None:
    """Bring a backup back into an empty home (PACS_HOME); then `pacs keys import` if it has no keys, and `pacs verify`."""
    from pacs.upkeep import restore as upkeep

    with one_line_errors(), progress(as_json) as bar:
        settings = load()
        task = bar.add_task("Restoring", total=None)
        done = upkeep.restore(settings, where, lambda _: bar.advance(task))
    if as_json:
        emit([asdict(done)])
    else:
        out.print(f"{done.files} files brought back to {settings.home}")
        if not done.with_keys:
            out.print("This backup holds no keys: `pacs keys import FILE` brings them back.")
        if not done.with_index:
            out.print("This backup holds no index for this database: `pacs rebuild-index` writes it anew.")
        if done.elsewhere:
            out.print(f"{done.elsewhere} segments are in the archive's own bucket: set PACS_STORE_URL to it (store.url)")


def repair(
    source: Annotated[
        str,
        typer.Option("--from", metavar="FOLDER|URL", help="A backup to take records from, besides the bucket if there is one."),
    ] = "",
    deep: Annotated[bool, typer.Option("--deep", help="Look as closely as `pacs verify --deep`.")] = False,
    as_json: Json = False,
) -> None:
    """Verify everything, and take what is missing or damaged from the bucket or a backup. Exit code 1 if anything is left."""
    from pacs.upkeep import repair as upkeep
    from pacs.upkeep.backup import copies

    with open_archive("cli") as (_, archive), progress(as_json) as bar:
        others = [copies(source)] if source else []
        task = bar.add_task("Verifying", total=sum(one.size_bytes for one in archive.objects.segments()))
        done = list(upkeep.repair(archive, others, deep=deep, on_record=lambda size: bar.advance(task, size)))
    rows = [
        {
            "outcome": one.outcome,
            "kind": one.finding.kind,
            "sop_instance_uid": one.finding.sop_instance_uid,
            "segment": one.finding.container,
            "offset": one.finding.offset,
            "detail": one.finding.detail,
        }
        for one in done
    ]
    columns = {"outcome": "Outcome", "kind": "Kind", "sop_instance_uid": "Instance", "segment": "Segment", "detail": "Detail"}
    show(rows, columns=columns, as_json=as_json, empty="Everything is as it was written.")
    if any(one.outcome == upkeep.LEFT for one in done):
        raise typer.Exit(1)


def bucket(
    send: Annotated[bool, typer.Option("--send", help="Send every closed segment now, and read it back.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is in the bucket (store.url), what waits to be sent, and whether it answers."""
    from pacs.upkeep import ship

    with open_archive("cli") as (_, archive):
        if send:
            ship.send_now(archive)
        now = ship.standing(ship.tiers_of(archive))
    if as_json:
        emit([asdict(now)])
    else:
        out.print(ship.said(now))
