"""The pages of rules and of comparisons: which rule made what, why another did not, and how two results differ.

Processors and their libraries are not loaded into the web process: what needs them is asked of a `pacs` command.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from pacs.archive import Archive
from pacs.model.errors import InvalidQuery, NotFound, Unavailable
from pacs.settings import as_environment
from pacs.web.door import door, in_thread, uid
from pacs.web.pages import show

DAYS = 30
_PATIENCE_S = 120.0


async def rules(request: Request) -> Response:
    """List the rules in force, how often each fired lately, and its last job."""
    at = door(request)

    def ask() -> list[dict[str, Any]]:
        chains = at.archive.index.chains
        counts, last = chains.counts(time.time() - DAYS * 86400), chains.last()
        return [
            {
                "name": one.name,
                "digest": one.digest,
                "since": one.since,
                "rule": one.definition["rule"],
                "where": [f"{key} = {json.dumps(said)}" for key, said in one.definition["rule"].get("where", {}).items()],
                "counts": sorted(counts.get(one.name, {}).items()),
                "last": last.get(one.name),
            }
            for one in chains.rules()
        ]

    return await show(request, "rules.html", rows=await in_thread(at.read, ask), days=DAYS)


async def explain(request: Request) -> Response:
    """Say what each rule says of a study and its series."""
    at, study_uid = door(request), uid(request.path_params["study"])

    def ask() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        names = {one.series_instance_uid: one for one in at.archive.index.series_of(study_uid)}
        return asked(at.archive, ("rules", "explain"), study_uid), names

    rows, names = await in_thread(at.read, ask)
    return await show(request, "explained.html", rows=rows, names=names, study_uid=study_uid)


async def compare(request: Request) -> Response:
    """Compare two jobs."""
    at = door(request)
    one, other = (request.path_params[name] for name in ("job", "other"))

    def ask() -> dict[str, Any]:
        for job_id in (one, other):
            at.archive.index.jobs.get(job_id)
        return asked(at.archive, ("jobs", "compare"), one, other)[0]

    return await show(request, "compared.html", found=await in_thread(at.read, ask))


ROUTES = [
    ("/rules", rules, ("GET",)),
    ("/studies/{study}/rules", explain, ("GET",)),
    ("/jobs/{job}/compare/{other}", compare, ("GET",)),
]


def asked(archive: Archive, command: Sequence[str], *arguments: str) -> list[dict[str, Any]]:
    """Return what a `pacs` command says with --json. Raises `InvalidQuery` with its one line where it fails."""
    environment = {**os.environ, **as_environment(archive.settings)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pacs", *command, "--json", "--", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable("that took too long; ask on the command line") from error
    if done.returncode:
        raise InvalidQuery(done.stderr.strip().removeprefix("pacs: ") or "the command failed; its message is in the log")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    if not rows:
        raise NotFound("There is nothing to say.")
    return rows
