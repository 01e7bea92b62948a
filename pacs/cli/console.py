"""What every command shares: two consoles, JSON lines, errors as one clear line, and the archive of the home.

Results go to stdout, everything else to stderr. With `--json` stdout holds one JSON object a line and nothing more.
Exit codes: 0 done, 1 something failed (said on stderr), 2 usage.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pacs import logs
from pacs.model.errors import ArchiveError, ConfigurationError
from pacs.settings import Settings, load

if TYPE_CHECKING:
    from pacs.archive import Archive

out = Console() if sys.stdout.isatty() else Console(width=1000)
"""Off a terminal (a pipe, a file) nothing is cut or folded."""
err = Console(stderr=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, for scripts.")]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Print one line on stderr and return the exit to raise."""
    err.print(f"[bold red]pacs:[/] {message}", highlight=False, soft_wrap=True)
    return typer.Exit(code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the archive's own errors into one line and exit code 1; a bug keeps its traceback."""
    try:
        yield
    except ArchiveError as error:
        raise fail(str(error)) from error


@contextmanager
def open_archive(writer: str) -> "Iterator[tuple[Settings, Archive]]":
    """Open the archive of the home for one command. Raises the one-line exit where there is none."""
    from pacs.archive import Archive

    # What a command has to say it says itself; events of the log are the server's.
    logs.configure("error", "cli")
    with one_line_errors():
        settings = load()
        if not (settings.home / "keys").is_dir():
            raise ConfigurationError(f"there is no archive in {settings.home}; start one with `pacs serve`, or set PACS_HOME")
        with Archive.opened(settings, writer=writer) as archive:
            yield settings, archive


def emit(rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines."""
    for row in rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def show(rows: Iterable[Mapping[str, Any]], *, columns: Mapping[str, str], as_json: bool, empty: str) -> None:
    """Write rows as JSON lines or as a table with `columns` (key -> heading)."""
    if as_json:
        emit(rows)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    count = 0
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns))
        count += 1
    out.print(table if count else empty)


def progress(as_json: bool = False) -> Progress:
    """Return a progress bar on stderr; silent with --json and off a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=as_json or not err.is_terminal,
    )


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(str(one) for one in value)
    return "" if value is None else str(value)
