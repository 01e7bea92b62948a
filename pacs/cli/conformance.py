"""`pacs conformance`: what this archive can do, for the person who connects something to it."""

from pathlib import Path
from typing import Annotated

import typer

from pacs.cli.console import one_line_errors, out
from pacs.settings import Settings, load


def conformance(
    defaults: Annotated[bool, typer.Option("--defaults", help="Of the defaults: docs/conformance.md.")] = False,
) -> None:
    """Print the DICOM conformance statement (PS3.2) of the configuration in force, as Markdown."""
    from pacs.dimse.statement import statement

    with one_line_errors():
        settings = Settings(home=Path()) if defaults else load()
    out.file.write(statement(settings))
