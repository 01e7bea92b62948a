"""`pacs quarantine`: what could not be made safe, by reason, never by value."""

import typer

from pacs.cli.console import Json, fail, open_archive, out, show

app = typer.Typer(help="Objects that were not let in: encrypted, outside the archive.", no_args_is_help=True)


@app.command("list")
def list_quarantine(as_json: Json = False) -> None:
    """List them with the reason."""
    with open_archive("cli") as (_, archive):
        rows = [
            {
                "quarantine_id": row.quarantine_id,
                "kind": row.kind,
                "reason": row.reason,
                "origin": row.origin,
                "size_bytes": row.size_bytes,
            }
            for row in archive.index.quarantine.list()
        ]
    columns = {"quarantine_id": "Id", "kind": "Kind", "reason": "Reason", "origin": "Came by", "size_bytes": "Bytes"}
    show(rows, columns=columns, as_json=as_json, empty="Nothing is in quarantine.")


@app.command()
def discard(
    quarantine_id: str,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
) -> None:
    """Delete one for good."""
    with open_archive("cli") as (_, archive):
        if quarantine_id not in {row.quarantine_id for row in archive.index.quarantine.list()}:
            raise fail(f"nothing in quarantine has the id {quarantine_id}")
        if not yes:
            typer.confirm("Delete it for good? The sender may have kept no copy.", abort=True)
        archive.quarantine.discard(quarantine_id)
    out.print("discarded")
