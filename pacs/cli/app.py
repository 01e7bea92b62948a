"""The command tree. Commands import what they need when they run, so that `pacs --help` is quick."""

import typer

from pacs import __version__
from pacs.cli import (
    bench,
    conformance,
    copies,
    deid,
    demo,
    doctor,
    export,
    identity,
    jobs,
    keys,
    lifecycle,
    models,
    peers,
    phantom,
    processors,
    quarantine,
    remote,
    rules,
    score,
    serve,
    settings,
    studies,
    upkeep,
    worklist,
)

app = typer.Typer(
    name="pacs",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="mini-pacs: a small, secure DICOM archive that de-identifies, compresses, encrypts, and processes what arrives. "
    "Research use, not a medical device. Begin with `pacs demo`, then `pacs serve`.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and leave."),
) -> None:
    """Take the options that come before a command."""


SERVER = "Run the server"
USE = "Use it"
CARE = "Look after it"

app.command("serve", rich_help_panel=SERVER)(serve.serve)
app.command("health", rich_help_panel=SERVER)(serve.health)
app.command("link", rich_help_panel=SERVER)(serve.link)
app.command("demo", rich_help_panel=SERVER)(demo.demo)
for name in ("scp", "web", "schedule", "worker"):
    app.command(name, rich_help_panel="Single processes of a scaled-out site")(getattr(serve, name))

app.command("studies", rich_help_panel=USE)(studies.studies)
app.command("get", rich_help_panel=USE)(studies.get)
app.command("export", rich_help_panel=USE)(export.export)
app.command("import", rich_help_panel=USE)(studies.import_files)
app.command("send", rich_help_panel=USE)(remote.send)
for name in ("find", "move", "commit", "push"):
    app.command(name, rich_help_panel=USE)(getattr(remote, name))
app.add_typer(jobs.app, name="jobs", rich_help_panel=USE)
app.add_typer(rules.app, name="rules", rich_help_panel=USE)
app.add_typer(processors.app, name="processors", rich_help_panel=USE)
app.add_typer(models.app, name="models", rich_help_panel=USE)
app.add_typer(phantom.app, name="phantom", rich_help_panel=USE)
app.command("score", rich_help_panel=USE)(score.score)
app.add_typer(worklist.app, name="worklist", rich_help_panel=USE)

app.add_typer(peers.app, name="peers", rich_help_panel=CARE)
app.add_typer(quarantine.app, name="quarantine", rich_help_panel=CARE)
app.add_typer(deid.app, name="deid", rich_help_panel=CARE)
app.add_typer(identity.app, name="identity", rich_help_panel=CARE)
app.add_typer(settings.tokens, name="tokens", rich_help_panel=CARE)
app.add_typer(keys.app, name="keys", rich_help_panel=CARE)
for name in ("backup", "restore", "repair", "bucket"):
    app.command(name, rich_help_panel=CARE)(getattr(copies, name))
for name in ("verify", "compact", "forget", "versions"):
    app.command(name, rich_help_panel=CARE)(getattr(upkeep, name))
for name in ("protect", "label", "quotas"):
    app.command(name, rich_help_panel=CARE)(getattr(lifecycle, name))
app.add_typer(lifecycle.app, name="retention", rich_help_panel=CARE)
app.command("rebuild-index", rich_help_panel=CARE)(upkeep.rebuild_index)
app.command("conformance", rich_help_panel=CARE)(conformance.conformance)
app.command("settings", rich_help_panel=CARE)(settings.settings)
app.command("doctor", rich_help_panel=CARE)(doctor.doctor)
app.command("bench", rich_help_panel=CARE)(bench.bench)
