"""`pacs jobs`: what processing has done, is doing and will do; again, otherwise, side by side, or as a bundle."""

import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from pacs.cli.console import Json, emit, err, fail, open_archive, out, show
from pacs.model.job import Job, JobState

if TYPE_CHECKING:
    from pacs.archive import Archive

app = typer.Typer(help="Processing jobs.")
COLUMNS = {
    "job_id": "Job",
    "processor": "Processor",
    "version": "Version",
    "state": "State",
    "reason": "Reason",
    "attempt": "Try",
    "next_try": "Next",
    "study_instance_uid": "Study",
    "series_instance_uid": "Series",
}


@app.callback(invoke_without_command=True)
def jobs(
    context: typer.Context,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until nothing is due: every series at rest, every job ended.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up waiting after so long.")] = 3600.0,
    state: Annotated[str, typer.Option(help="Only jobs in this state (queued, running, succeeded, skipped, failed …).")] = "",
    study: Annotated[str, typer.Option(help="Only jobs of this Study Instance UID.")] = "",
    as_json: Json = False,
) -> None:
    """List processing jobs. With --wait: exit code 1 if a job failed or time ran out."""
    if context.invoked_subcommand:
        return
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


@app.command("again")
def run_again(
    job: Annotated[str, typer.Argument(help="The job, as `pacs jobs` lists it.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another value for a parameter; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a job again; with --set as a new job whose results stand beside the older ones, which are then superseded."""
    from pacs.processing.api import ParameterError
    from pacs.processing.registry import discover
    from pacs.processing.schedule import ask_again

    given = dict(_pair(one) for one in changes or [])
    with open_archive("cli") as (settings, archive):
        found = archive.index.jobs.get(job)
        if not given:
            if not archive.index.jobs.again(job):
                raise fail(f"the job is {found.state}; it can run again when it has ended")
            made: str | None = job
        else:
            try:
                made = ask_again(archive.index, discover(settings.plugins_path), found, given)
            except ParameterError as error:
                raise fail(str(error)) from error
            if made is None:
                raise fail("a job with these parameters on these inputs is there already; `pacs jobs` lists it")
    emit([{"job_id": made}]) if as_json else out.print(f"queued as {made}", highlight=False)


@app.command("cancel")
def cancel(job: Annotated[str, typer.Argument(help="The job, as `pacs jobs` lists it.")], as_json: Json = False) -> None:
    """Cancel a job that has not ended; a running one is killed with all it has started, and nothing of it is stored."""
    with open_archive("cli") as (_, archive):
        if not archive.index.jobs.cancel(job):
            raise fail(f"the job has ended already: {archive.index.jobs.get(job).state}")
    emit([{"job_id": job, "state": JobState.CANCELLED.value}]) if as_json else out.print("cancelled")


@app.command("bundle")
def bundle(
    job: Annotated[str, typer.Argument(help="A job that failed.")],
    path: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Where to write it; must not exist.")],
    seconds: Annotated[float, typer.Option(help="Look no longer for a smaller one.", min=1)] = 120.0,
    as_json: Json = False,
) -> None:
    """Write the smallest bundle that reproduces a failure: parameters, versions, and the fewest inputs that still fail alike.

    The inputs in it are de-identified, but no longer encrypted: keep the file as you keep the data.
    """
    from dataclasses import asdict

    from pacs.processing import bundle as bundles
    from pacs.processing.registry import discover

    with open_archive("cli") as (settings, archive):
        try:
            found = bundles.bundle(archive, discover(settings.plugins_path), archive.index.jobs.get(job), path, seconds=seconds)
        except OSError as error:
            raise fail(f"cannot write {path}: {error.strerror}") from error
    if as_json:
        emit([{"path": str(path), **asdict(found)}])
        return
    sure = "" if found.complete else "; there may be a smaller one, give it more --seconds"
    out.print(f"{path}: {found.instances} of {found.of} instances, after {found.tries} tries{sure}", highlight=False)
    out.print(f"fails with: {found.reason}", highlight=False, markup=False)


@app.command("compare")
def compare(
    one: Annotated[str, typer.Argument(help="A job.")],
    other: Annotated[str, typer.Argument(help="Another job.")],
    as_json: Json = False,
) -> None:
    """Compare two jobs: versions, parameters, and by how much their results differ."""
    from pacs.processing.compare import compare as compared

    with open_archive("cli") as (_, archive):
        found = compared(archive, archive.index.jobs.get(one), archive.index.jobs.get(other))
    if as_json:
        emit([found])
        return
    for job in found["jobs"]:
        out.print("{job_id}  {processor} {version}  {state}".format(**job), highlight=False)
    if not found["same_inputs"]:
        out.print("inputs: not the same")
    for name, (before, after) in found["parameters"].items():
        out.print(f"{name}: {before} | {after}", highlight=False, markup=False)
    for made in found["outputs"]:
        said = "equal" if made["equal"] else "" if made["differences"] else "the same content, other provenance"
        out.print(f"{made['modality']} {made['description']}: {said}".rstrip(), highlight=False, markup=False)
        for difference in made["differences"]:
            numbers = "  ".join(f"{key}={value}" for key, value in difference.items() if key != "what")
            out.print(f"  {difference['what']}  {numbers}", highlight=False, markup=False)


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name.strip():
        raise fail(f"--set is NAME=VALUE, not {text}", 2)
    return name.strip(), value.strip()


def as_row(job: Job) -> dict[str, Any]:
    """Return a job as the command line shows it."""
    return {
        "job_id": job.job_id,
        "processor": job.processor,
        "version": job.version,
        "state": job.state.value,
        "reason": job.reason,
        "attempt": job.attempt,
        "next_try": _next_try(job),
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": job.series_instance_uids[0] if len(job.series_instance_uids) == 1 else "",
        "series_instance_uids": list(job.series_instance_uids),
        "output_series_instance_uids": list(job.output_series_instance_uids),
        "parameters": dict(job.parameters),
        "rule": job.rule,
        "rule_digest": job.rule_digest,
        "completion": job.completion,
        "progress": round(job.progress, 3),
    }


def _next_try(job: Job) -> str:
    """When a job that waits for something is tried next; "" where it is due."""
    if job.state is not JobState.QUEUED or job.due_at <= time.time() + 1:
        return ""
    return datetime.datetime.fromtimestamp(job.due_at, datetime.UTC).isoformat(timespec="seconds")


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
