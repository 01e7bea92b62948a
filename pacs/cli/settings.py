"""`pacs settings` and `pacs tokens`: what is in force, and who may use DICOMweb from elsewhere."""

from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

from pacs.cli.console import Json, emit, fail, one_line_errors, open_archive, out, show
from pacs.model.peer import IDENTITIES
from pacs.settings import load, reference

tokens = typer.Typer(help="Bearer tokens for DICOMweb clients.", no_args_is_help=True)


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/settings.md instead.")] = False,
    as_json: Json = False,
) -> None:
    """Show every setting in force. Change them in pacs.toml in the home, or by PACS_* in the environment."""
    if markdown:
        typer.echo(reference(), nl=False)
        return
    with one_line_errors():
        tree = load()
    rows: list[dict[str, Any]] = [{"setting": "home", "value": str(tree.home)}]
    for section, values in ((name, getattr(tree, name)) for name in tree.__dataclass_fields__):
        if is_dataclass(values) and not isinstance(values, type):
            rows += [{"setting": f"{section}.{key}", "value": value} for key, value in asdict(values).items()]
    show(rows, columns={"setting": "Setting", "value": "Value"}, as_json=as_json, empty="")


@tokens.command()
def add(
    name: str,
    identity: Annotated[
        str, typer.Option(help="pseudonym, or original: its bearer queries by, and gets, what the sender had sent.")
    ] = IDENTITIES[0],
    as_json: Json = False,
) -> None:
    """Make a token and print it once; only its digest is kept."""
    if identity not in IDENTITIES:
        raise fail(f"--identity takes one of {', '.join(IDENTITIES)}", 2)
    with open_archive("cli") as (_, archive):
        if name in {token.name for token in archive.index.access.tokens()}:
            raise fail(f"there is a token {name} already; revoke it first or choose another name")
        secret = archive.index.access.new_token(name, identity)
    emit([{"name": name, "token": secret}]) if as_json else out.print(secret, soft_wrap=True, highlight=False)


@tokens.command("list")
def list_tokens(as_json: Json = False) -> None:
    """List the tokens by name."""
    with open_archive("cli") as (_, archive):
        rows = [
            {"name": token.name, "created_at": token.created_at, "identity": token.identity}
            for token in archive.index.access.tokens()
        ]
    columns = {"name": "Name", "created_at": "Made", "identity": "Identity"}
    show(rows, columns=columns, as_json=as_json, empty="No tokens.")


@tokens.command()
def revoke(name: str) -> None:
    """Make a token worthless."""
    with open_archive("cli") as (_, archive):
        if name not in {token.name for token in archive.index.access.tokens()}:
            raise fail(f"there is no token {name}")
        archive.index.access.revoke(name)
    out.print(f"{name} is revoked", highlight=False)
