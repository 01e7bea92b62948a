"""`pacs jobs`: what processing has done, is doing and will do."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from pacs.cli.console import Json, err, fail, open_archive, show
from pacs.model.job import Job, JobState

if TYPE_CHECKING:
    from pacs.archive import Archive

COLUMNS = {
    "job_id": "Job",
    "processor": "Processor",
    "version": "Version",
    "state": "State",
    "reason": "Reason",
    "attempt": "Try",
    "study_instance_uid": "Study",
    "series_instance_uid": "Series",
}


def jobs(
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until nothing is due: every series at rest, every job ended.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up waiting after so long.")] = 3600.0,
    state: Annotated[str, typer.Option(help="Only jobs in this state (queued, running, succeeded, skipped, failed …).")] = "",
    study: Annotated[str, typer.Option(help="Only jobs of this Study Instance UID.")] = "",
    as_json: Json = False,
) -> None:
    """List processing jobs. With --wait: exit code 1 if a job failed or time ran out."""
    if state and state not in set(JobState):
        raise fail(f"--state is one of {', '.join(JobState)}", 2)
    with open_archive("cli") as (settings, archive):
        if wait and not settings.processing.enabled:
            raise fail("processing is off (processing.enabled = false), so nothing would ever end")
        ended = _wait(archive, timeout, as_json) if wait else True
        listed = archive.index.jobs.list(
            states=[JobState(state)] if state else None, study_instance_uid=study or None, limit=None
        )
    rows = [as_row(job) for job in listed]
    show(rows, columns=COLUMNS, as_json=as_json, empty="No jobs. They begin when a series is complete and a rule matches it.")
    if not ended:
        raise fail(f"still not done after {timeout:g} s; `pacs health` tells whether scheduler and worker run")
    if wait and any(job.state is JobState.FAILED for job in listed):
        raise typer.Exit(1)


def as_row(job: Job) -> dict[str, Any]:
    """Return a job as the command line shows it."""
    return {
        "job_id": job.job_id,
        "processor": job.processor,
        "version": job.version,
        "state": job.state.value,
        "reason": job.reason,
        "attempt": job.attempt,
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": job.series_instance_uids[0] if len(job.series_instance_uids) == 1 else "",
        "series_instance_uids": list(job.series_instance_uids),
        "output_series_instance_uids": list(job.output_series_instance_uids),
        "parameters": dict(job.parameters),
        "rule": job.rule,
        "completion": job.completion,
        "progress": round(job.progress, 3),
    }


def _wait(archive: "Archive", timeout_s: float, quiet: bool) -> bool:
    deadline = time.monotonic() + timeout_s
    with Live(console=err, transient=True, refresh_per_second=4, auto_refresh=not quiet and err.is_terminal) as live:
        while (resting := archive.index.pending()) or archive.index.jobs.open_count():
            if time.monotonic() >= deadline:
                return False
            if not quiet and err.is_terminal:
                live.update(_state(archive, resting))
            time.sleep(0.3)
    return True


def _state(archive: "Archive", resting: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    if resting:
        table.add_row("waiting", f"{resting} series or studies are still coming to rest", "")
    for job in archive.index.jobs.list(states=[JobState.RUNNING, JobState.QUEUED], study_instance_uid=None, limit=12):
        table.add_row(job.state.value, f"{job.processor} {job.version}", f"{job.progress:4.0%}")
    return table
