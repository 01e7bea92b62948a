"""The page of the worklist: what is scheduled, and a form to add to it.

A session sees no original identity (`auth.sees_originals`), so patients are left out unless `web.worklist_names` says
otherwise; then each look is in the change feed, as it is for modalities.
"""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pacs.model.errors import Refused
from pacs.web.door import door, in_thread
from pacs.web.pages import show
from pacs.web.pages.care import fields_of
from pacs.workflow.worklist import Worklist, summary

_FIELDS = {
    "patient_name": "PatientName",
    "patient_id": "PatientID",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "accession": "AccessionNumber",
    "station": "ScheduledStationAETitle",
    "modality": "Modality",
    "date": "ScheduledProcedureStepStartDate",
    "time": "ScheduledProcedureStepStartTime",
    "description": "ScheduledProcedureStepDescription",
    "physician": "ScheduledPerformingPhysicianName",
}
_DATES = ("date", "birth_date", "time")


async def worklist(request: Request) -> Response:
    """List what is scheduled."""
    return await _page(request, {}, "")


async def add(request: Request) -> Response:
    """Put an item on the worklist; a form that lacks something comes back as it was filled in."""
    at = door(request)
    given = {name: said.strip() for name, said in (await fields_of(request)).items() if isinstance(said, str)}

    def work() -> None:
        # A browser writes a date as 2026-11-22 and a time as 10:30.
        bare = {name: said.replace("-", "").replace(":", "") if name in _DATES else said for name, said in given.items()}
        wanted = {keyword: bare[name] for name, keyword in _FIELDS.items() if bare.get(name)}
        added = Worklist(at.archive).add(wanted)
        at.archive.index.note("worklist_changed", by=request.state.caller, added=len(added), removed=0)

    try:
        await in_thread(at.read, work)
    except Refused as error:
        return await _page(request, given, f"{error}.", status=400)
    return RedirectResponse("/worklist?done=added", 303)


async def remove(request: Request) -> Response:
    """Take an item off the worklist."""
    at, item_id = door(request), request.path_params["item"]

    def work() -> None:
        Worklist(at.archive).remove(item_id)
        at.archive.index.note("worklist_changed", by=request.state.caller, added=0, removed=1)

    await in_thread(at.read, work)
    return RedirectResponse("/worklist?done=removed", 303)


ROUTES = [
    ("/worklist", worklist, ("GET",)),
    ("/worklist", add, ("POST",)),
    ("/worklist/{item}/remove", remove, ("POST",)),
]


async def _page(request: Request, given: Mapping[str, str], problem: str, status: int = 200) -> Response:
    at = door(request)
    named = at.settings.web.worklist_names

    def ask() -> list[dict[str, str]]:
        rows = [summary(item) for item in Worklist(at.archive).items()]
        if rows and named:
            at.archive.index.note("worklist_shown", by=request.state.caller, count=len(rows))
        return rows

    rows = await in_thread(at.read, ask)
    done = request.query_params.get("done", "")
    response = await show(request, "worklist.html", rows=rows, named=named, given=given, problem=problem, done=done)
    response.status_code = status
    return response
