"""/metrics: counters and gauges in the text format of Prometheus, read from the index when they are asked for.

The rows are the truth for all processes together, so nothing is added up in memory and a restart loses nothing. No label holds
a name, a UID or a value of a data set.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pacs.archive import Archive
from pacs.web.door import door, in_thread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[Mapping[str, str], int]


async def metrics(request: Request) -> Response:
    """Answer a scrape."""
    at = door(request)
    text = await in_thread(at.read, exposition, at.archive)
    return PlainTextResponse(text, media_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def exposition(archive: Archive) -> str:
    """Return all metrics as text."""
    return "\n".join([*_lines(archive), ""])


def _lines(archive: Archive) -> Iterator[str]:
    statuses = archive.index.tallies.list()
    yield from _metric(
        "pacs_dimse_statuses_total",
        "counter",
        "Answers of the DIMSE door by service and status.",
        (({"service": service, "status": status}, count) for (service, status), count in statuses.items()),
    )
    summary: dict[str, Any] = archive.index.summary()
    jobs = summary.pop("jobs", {})
    for name in sorted(summary):
        yield from _metric(f"pacs_{name}", "gauge", f"What the archive holds: {name}.", [({}, int(summary[name]))])
    states = (({"state": str(state)}, int(count)) for state, count in sorted(jobs.items()))
    yield from _metric("pacs_jobs", "gauge", "Jobs by state.", states)


def _metric(name: str, kind: str, help: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        told = ",".join(f'{key}="{one}"' for key, one in labels.items())
        yield f"{name}{{{told}}} {value}" if told else f"{name} {value}"
