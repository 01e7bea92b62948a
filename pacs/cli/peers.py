"""`pacs peers`: the application entities we know by name; a C-MOVE destination must be one."""

import datetime
from dataclasses import asdict
from typing import Annotated

import typer

from pacs.cli.console import Json, emit, fail, one_line_errors, open_archive, out, show
from pacs.model.errors import ConfigurationError
from pacs.model.peer import IDENTITIES, SERVICES, USUAL, described

app = typer.Typer(
    help="Application entities we know: C-MOVE destinations, and who may call us off loopback.", no_args_is_help=True
)


@app.command()
def add(
    ae_title: Annotated[str, typer.Argument(metavar="AET")],
    host: Annotated[str, typer.Argument(help="Its host, or the URL of its DICOMweb service, to which we send by STOW-RS.")],
    port: Annotated[int, typer.Argument(help="Its port; a URL brings its own.")] = 0,
    may: Annotated[
        str,
        typer.Option(help=f"What it may ask of us, a list of {', '.join(SERVICES)}; worklist shows it original identities."),
    ] = ",".join(USUAL),
    identity: Annotated[
        str, typer.Option(help="pseudonym, or original: it queries by, and gets, what the sender had sent.")
    ] = IDENTITIES[0],
    tls: Annotated[bool, typer.Option("--tls", help="Call it over TLS (dicom.tls_ca says whose certificate counts).")] = False,
    any_address: Annotated[
        bool, typer.Option("--any-address", help="Serve it from other addresses than its host's too, when off loopback.")
    ] = False,
    user: Annotated[
        bool, typer.Option("--user", help="It must give the name and the secret of an API token as user identity.")
    ] = False,
    warn: Annotated[
        bool, typer.Option("--warn", help="Answer what it stores with B000, because de-identification changed it, not 0000.")
    ] = False,
    as_stored: Annotated[
        bool, typer.Option("--as-stored", help="Over DICOMweb, send the archive's compression (HTJ2K), not Explicit VR LE.")
    ] = False,
    availability: Annotated[
        bool,
        typer.Option("--availability", help="Tell it of complete studies and results (Instance Availability Notification)."),
    ] = False,
    private: Annotated[
        str,
        typer.Option(
            metavar="UID,UID", help="Private SOP Classes and transfer syntaxes that it may bring; they go into quarantine."
        ),
    ] = "",
    prefer: Annotated[
        str,
        typer.Option(
            metavar="UID,UID",
            help="Transfer syntaxes that it wants before others, the best first: in negotiation, and in what we send it.",
        ),
    ] = "",
) -> None:
    """Add a peer, or change it; takes effect at once."""
    chosen = {"tls": tls, "any-address": any_address, "user": user, "warn": warn, "as-stored": as_stored}
    chosen["availability"] = availability
    options = [name for name, given in chosen.items() if given]
    try:
        peer = described(
            ae_title,
            host,
            port,
            may=may.split(","),
            identity=identity,
            options=options,
            private=private.split(","),
            prefers=prefer.split(","),
        )
    except ConfigurationError as error:
        raise fail(str(error), 2) from error
    with open_archive("cli") as (_, archive), one_line_errors():
        archive.index.peers.add(peer)
    out.print(f"{peer.ae_title} is {peer.url or f'{peer.host}:{peer.port}'}", highlight=False)


@app.command("list")
def list_peers(as_json: Json = False) -> None:
    """List the peers."""
    with open_archive("cli") as (_, archive):
        away = archive.index.away.list()
        rows = [
            {
                "ae_title": peer.ae_title,
                "host": peer.host,
                "port": peer.port,
                "url": peer.url,
                "may": sorted(peer.may),
                "identity": peer.identity,
                "options": sorted(peer.options),
                "away": asdict(away[peer.ae_title]) if peer.ae_title in away else None,
            }
            for peer in archive.index.peers.list()
        ]
    columns = {
        "ae_title": "AE title",
        "host": "Host",
        "port": "Port",
        "may": "May",
        "identity": "Identity",
        "options": "Options",
    }
    show(rows, columns=columns, as_json=as_json, empty="No peers. Add one with `pacs peers add AET HOST PORT`.")


@app.command()
def remove(ae_title: Annotated[str, typer.Argument(metavar="AET")]) -> None:
    """Forget a peer."""
    with open_archive("cli") as (_, archive), one_line_errors():
        archive.index.peers.remove(ae_title)
    out.print(f"{ae_title} is forgotten", highlight=False)


@app.command()
def echo(ae_title: Annotated[str, typer.Argument(metavar="AET")], as_json: Json = False) -> None:
    """Ask a peer for a C-ECHO, and say what came of it and how long it took; exit code 1 where it does not answer."""
    from pacs.dimse import scu

    with open_archive("cli") as (settings, archive):
        peer = archive.index.peers.get(ae_title)
        if peer is None:
            raise fail(f"there is no peer {ae_title}; add it with `pacs peers add {ae_title} HOST PORT`")
        if peer.url:
            raise fail(f"{ae_title} is a DICOMweb server, which has no C-ECHO; try it with `pacs push`", 2)
        found = scu.verify(settings.dicom, peer)
        if found.answers:
            # What waits to be sent to it need not wait any longer.
            archive.index.away.reached(peer.ae_title)
    if as_json:
        emit([{"ae_title": peer.ae_title, **asdict(found)}])
    elif found.answers:
        out.print(f"{found.said} in {found.took_ms} ms", highlight=False)
    if not found.answers:
        raise fail(f"{found.said} (after {found.took_ms} ms)")


@app.command()
def commitments(as_json: Json = False) -> None:
    """List who asked for storage commitment, newest first, and whether the report was taken."""
    with open_archive("cli") as (_, archive):
        rows = [
            {
                "ae_title": one.ae_title,
                "asked": datetime.datetime.fromtimestamp(one.received_at, datetime.UTC).isoformat(timespec="seconds"),
                "instances": one.instances,
                "failed": len(one.failures),
                "state": one.state,
                "attempts": one.attempts,
            }
            for one in archive.index.commitments.list()
        ]
    columns = {"ae_title": "AE title", "asked": "Asked", "instances": "Instances", "failed": "Not committed"}
    columns |= {"state": "State", "attempts": "Attempts"}
    show(rows, columns=columns, as_json=as_json, empty="Nobody has asked for storage commitment.")


@app.command()
def notifications(as_json: Json = False) -> None:
    """List what peers were told to be available, newest first, and whether they took it."""
    with open_archive("cli") as (_, archive):
        rows = [
            {
                "ae_title": one.ae_title,
                "made": datetime.datetime.fromtimestamp(one.made_at, datetime.UTC).isoformat(timespec="seconds"),
                "study_instance_uid": one.study_instance_uid,
                "series": len([uid for uid in one.series.split("\\") if uid]) or None,
                "state": one.state,
                "attempts": one.attempts,
            }
            for one in archive.index.notifications.list()
        ]
    columns = {"ae_title": "AE title", "made": "Made", "study_instance_uid": "Study", "series": "Series"}
    columns |= {"state": "State", "attempts": "Attempts"}
    show(rows, columns=columns, as_json=as_json, empty="Nobody was to be told anything (`pacs peers add … --availability`).")
