"""`pacs quarantine`: what could not be made safe, by reason, never by value; let it in after all, or destroy it."""

import getpass
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs.cli.console import Json, emit, fail, open_archive, out, show
from pacs.model.errors import ArchiveError, NotFound, Quarantined
from pacs.model.instance import Origin

if TYPE_CHECKING:
    from pacs.archive import Archive
    from pacs.model.summary import QuarantineRow

app = typer.Typer(help="Objects that were not let in: encrypted, outside the archive.", no_args_is_help=True)
COLUMNS = {"quarantine_id": "Id", "kind": "Kind", "reason": "Reason", "origin": "Came by", "size_bytes": "Bytes"}
Id = Annotated[str, typer.Argument(metavar="ID", help="An id that `pacs quarantine list` shows.")]


@app.command("list")
def list_quarantine(as_json: Json = False) -> None:
    """List them with the reason."""
    with open_archive("cli") as (_, archive):
        rows = [_row(row) for row in archive.index.quarantine.list()]
    show(rows, columns=COLUMNS, as_json=as_json, empty="Nothing is in quarantine.")


@app.command("show")
def show_one(quarantine_id: Id, as_json: Json = False) -> None:
    """Show why one is there and what would become of it now; no value of it. `pacs deid explain` tells more of the original."""
    with open_archive("cli") as (_, archive):
        row = _row(_known(archive, quarantine_id))
        received = archive.quarantine.open(quarantine_id)
        row |= {"sop_class_uid": received.sop_class_uid, "transfer_syntax_uid": received.transfer_syntax_uid}
        try:
            if received.origin is Origin.PROCESSOR:
                raise Quarantined("a cleaning job was in doubt; `release --reason` lets it in as it is")
            made = archive.deidentifier.deidentify(received)
            row |= {"now": "would be let in", "policy": made.policy}
        except ArchiveError as error:
            row |= {"now": f"would come back: {error}", "policy": archive.deidentifier.policy_for(received).name}
    if as_json:
        emit([row])
        return
    facts = [{"name": name, "value": value} for name, value in row.items() if value != ""]
    show(facts, columns={"name": "", "value": ""}, as_json=False, empty="")


@app.command()
def release(
    quarantine_id: Id,
    policy: Annotated[str, typer.Option(help="Policy to follow instead of the one of the settings.")] = "",
    reason: Annotated[
        str,
        typer.Option(help="Why it may come in, for the record; needed where a cleaning job was in doubt. Name no patient."),
    ] = "",
    as_json: Json = False,
) -> None:
    """Let one in: again through de-identification, under another policy or changed settings. Refused if it would come back.

    What a cleaning job was in doubt about comes in as it is, on your word: look at it first, and give a --reason.
    """
    from pacs.ingest import release

    with open_archive("cli") as (_, archive):
        _known(archive, quarantine_id)
        try:
            stored = release(archive, quarantine_id, policy, reason=reason)
        except ArchiveError as error:
            raise fail(f"it stays in quarantine: {error}") from error
        archive.index.note(
            "quarantine_released", quarantine_id=quarantine_id, policy=stored.policy or policy, user=_user(),
            reason=reason,
            study_instance_uid=stored.key.study_instance_uid,
        )  # fmt: skip
    row = {"sop_instance_uid": stored.key.sop_instance_uid, "held_for": list(stored.pending)}
    if as_json:
        emit([row])
    else:
        held = f"; held until its {' and '.join(stored.pending)} are clean" if stored.pending else ""
        out.print(f"let in as {stored.key.sop_instance_uid}{held}", highlight=False)


@app.command()
def discard(
    quarantine_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete one for good."""
    with open_archive("cli") as (_, archive):
        _known(archive, quarantine_id)
        if not yes:
            typer.confirm("Delete it for good? The sender may have kept no copy.", abort=True)
        archive.quarantine.discard(quarantine_id)
        archive.index.note("quarantine_discarded", quarantine_id=quarantine_id, user=_user())
    out.print("discarded")


def _known(archive: "Archive", quarantine_id: str) -> "QuarantineRow":
    try:
        return archive.index.quarantine.get(quarantine_id)
    except NotFound as error:
        raise fail(f"nothing in quarantine has the id {quarantine_id}") from error


def _row(row: "QuarantineRow") -> dict[str, Any]:
    return {
        "quarantine_id": row.quarantine_id,
        "kind": row.kind,
        "reason": row.reason,
        "origin": row.origin,
        "size_bytes": row.size_bytes,
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.at)),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
