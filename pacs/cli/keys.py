"""`pacs keys`: what the key-encryption keys are, without saying them; rotate, export for escrow, bring back."""

import base64
import os
import secrets
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pacs.cli.console import Json, emit, err, fail, one_line_errors, open_archive, out, progress, show
from pacs.settings import load

app = typer.Typer(help="The keys that everything at rest is sealed with.", no_args_is_help=True)


@app.command()
def status(as_json: Json = False) -> None:
    """Show which keys are in force, what they wrap, and whether they were ever exported."""
    from pacs.store import identity_keys
    from pacs.store.certificate import public_key
    from pacs.upkeep.rotate import sealed_by_others

    with open_archive("cli") as (_, archive):
        rows = [
            {"name": one.name, "key_id": one.key_id, "provider": one.provider, "exported": one.exported}
            for one in archive.keys.states()
        ]
        wrapped = Counter(archive.ring.wrapped_with())
        for more in (archive.quarantine.wrapped_with(), identity_keys.wrapped_with(archive.keys.ring)):
            wrapped.update(more)
        for row in rows:
            row["wraps"] = wrapped.pop(str(row["key_id"]), 0)
        for key_id, count in sorted(wrapped.items()):
            rows.append({"name": "another", "key_id": key_id, "provider": "", "exported": "", "wraps": count})
        half = [name for name in ("image", "identity") if archive.keys.change(name).begun()]
        before = sealed_by_others(archive)
        public = public_key(archive.identity)
    columns = {"name": "Key", "key_id": "Id", "provider": "From", "wraps": "Wraps", "exported": "Exported"}
    show(rows, columns=columns, as_json=as_json, empty="")
    if not as_json:
        out.print(f"Certificates are signed for the public key {public}", soft_wrap=True, highlight=False)
    for name in half:
        command = "pacs keys rotate" + (" --identity" if name == "identity" else "")
        err.print(f"pacs: a rotation of the {name} key was cut short; `{command}` goes on with it")
    if before:
        err.print(f"pacs: {before} rows are sealed by the first identity key; `pacs keys rotate --identity` seals them anew")
    if any(row["exported"] is False for row in rows):
        err.print("pacs: a key was never exported: lose this disk, and every backup is noise. See `pacs keys export`")


@app.command()
def rotate(
    identity: Annotated[
        bool, typer.Option("--identity", help="Rotate the identity key: pseudonyms, UIDs and date shifts all stay.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a new image key, or identity key, in force while the archive serves. Keys are wrapped anew, no record is touched.

    Backups made before need the key from before: keep its export.
    """
    from pacs.upkeep import rotate as upkeep

    with open_archive("cli") as (_, archive), progress(as_json) as bar:
        if identity:
            task = bar.add_task("Sealing rows", total=upkeep.sealed_by_others(archive))
            renewed = upkeep.rotate_identity(archive, lambda count: bar.update(task, completed=count))
            row = asdict(renewed)
            said = f"{renewed.key_id} is in force, and every name is as it was; {renewed.resealed} rows were sealed anew"
        else:
            task = bar.add_task("Wrapping study keys", total=archive.ring.size())
            done = upkeep.rotate(archive, lambda count: bar.update(task, completed=count))
            row = asdict(done)
            said = f"{done.key_id} is in force: {done.study_keys} study keys and {done.quarantined} quarantined objects"
    if as_json:
        emit([row])
        return
    out.print(said)
    if row.get("left"):
        err.print(f"pacs: {row['left']} rows open neither with this key nor with the one before; they are damaged, and stay")
    if row["destroyed"]:
        out.print(f"{row['destroyed']} is destroyed here; backups made before need its export")
        err.print("pacs: export the new key now: pacs keys export")
    else:
        out.print("Put the new key in the place of the old one where you keep it, and start the archive again")


@app.command()
def export(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="A new file (mode 0600); without it, or with -, stdout.")
    ] = "-",
) -> None:
    """Write both keys as text, to be kept apart from the data: in a safe, not on this disk."""
    with open_archive("cli") as (_, archive):
        if not archive.keys.kept_here:
            raise fail(f"keys.provider = {archive.keys.provider}: whoever gives the keys keeps them")
        text = archive.keys.export()
        if output == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            try:
                with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise fail(f"cannot write {output}: {error.strerror}") from error
        archive.keys.mark_exported(time.time())
    err.print("Whoever holds this text can read the archive and its backups. Keep it apart from both.")


@app.command("import")
def import_keys(
    file: Annotated[Path, typer.Argument(help="What `pacs keys export` wrote.", exists=True, dir_okay=False)],
    as_json: Json = False,
) -> None:
    """Bring keys back that are missing here; nothing is replaced, and a key that does not fit the key ring is refused."""
    from pacs.archive import key_house

    with one_line_errors():
        settings = load()
        written = key_house(settings).bring_back(file.read_text(encoding="utf-8", errors="replace"))
    if as_json:
        emit([{"written": written}])
    else:
        out.print(f"brought back: {', '.join(written)}" if written else "all keys are there already")


@app.command()
def generate() -> None:
    """Print a new random key in base64, for keys.provider = env or systemd. It is kept nowhere: keep it yourself."""
    out.print(base64.b64encode(secrets.token_bytes(32)).decode("ascii"), highlight=False)
