"""The pages for people: studies, series, jobs, upload. Server-made HTML; every page works as a plain GET.

The script (static/pages.js) only makes them livelier: it fetches the same pages again and swaps marked parts, scrolls
through frames, and uploads what is dropped. Pictures come from the DICOMweb service of the same door.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import Scope

from pacs import __version__
from pacs.archive import Archive
from pacs.model.errors import InvalidQuery, NotFound
from pacs.model.job import Job, JobState
from pacs.model.query import AnyOf, Between, Level, Match, Query, Single
from pacs.model.summary import SeriesSummary
from pacs.web.door import door, in_thread, uid
from pacs.web.wado import has_pixels

HERE = Path(__file__).parent
PAGE_SIZE = 25
MOST_FOUND = 2000
JOBS_SHOWN = 200
ARRIVING_S = 60.0
"""Seconds since its last object after which an incomplete series is no longer said to be arriving."""
MODALITIES = ("CR", "CT", "DX", "MG", "MR", "NM", "PT", "RF", "SEG", "SR", "US", "XA")
WITHOUT_PICTURES = frozenset(
    ("SR", "PR", "KO", "DOC", "RTSTRUCT", "RTPLAN", "REG", "RWV", "PLAN", "ECG", "HD", "AU", "FID", "ANN")
)
WINDOWS = {
    "CT": (("Soft tissue", "40,400"), ("Lung", "-600,1500"), ("Bone", "400,1800"), ("Brain", "40,80"), ("Liver", "60,160")),
}


def _date(value: str) -> str:
    """Show a DA as people write it."""
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdigit() else value


def _name(value: str) -> str:
    """Show the alphabetic group of a PN."""
    return ", ".join(part for part in value.split("=")[0].split("^") if part)


def _moment(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) if seconds else ""


def _iso(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else ""


def _is_ahead(seconds: float) -> bool:
    return seconds > time.time() + 1


def _took(job: Job) -> str:
    if not job.started_at:
        return ""
    seconds = max(0.0, (job.finished_at or time.time()) - job.started_at)
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _short(value: str) -> str:
    """Show a DS with no more digits than people read."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def _plural(count: int | str, word: str) -> str:
    number = int(count or 0)
    plural = word if word.endswith("s") else f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{number:,} {word if number == 1 else plural}"


def series_title(series: SeriesSummary) -> str:
    """Name a series for people."""
    return series.description or (f"Series {series.number}" if series.number is not None else series.modality or "Series")


templates = Jinja2Templates(HERE / "templates")
templates.env.trim_blocks = templates.env.lstrip_blocks = True
templates.env.filters |= {
    "date": _date,
    "name": _name,
    "moment": _moment,
    "iso": _iso,
    "is_ahead": _is_ahead,
    "plural": _plural,
    "took": _took,
    "title_of": series_title,
    "short": _short,
}
templates.env.globals |= {"version": __version__, "without_pictures": WITHOUT_PICTURES}


class _Static(StaticFiles):
    """Files that change only with the version, and are asked for again after it."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, to be checked for a newer one each time."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def static() -> StaticFiles:
    """Return the application that serves style sheet and script."""
    return _Static(directory=HERE / "static")


def render(request: Request, name: str, status: int = 200, **context: Any) -> Response:
    """Return a page; what it shows is nobody else's to keep."""
    context["status"] = status
    context.setdefault("signed_in", getattr(request.state, "caller", "") == "session")
    response = templates.TemplateResponse(request, name, context, status_code=status)
    response.headers["Cache-Control"] = "no-store"
    return response


async def show(request: Request, name: str, **context: Any) -> Response:
    """Return a page for people who are signed in, with the number of open jobs in its head."""
    at = door(request)
    busy = await in_thread(at.read, at.archive.index.jobs.open_count)
    return render(request, name, busy=busy, **context)


def error_page(request: Request, status: int, message: str) -> Response:
    """Return a page that says what went wrong."""
    return render(request, "error.html", status, message=message)


async def sign_in(request: Request) -> Response:
    """Say how to sign in."""
    return render(request, "sign_in.html", used="used" in request.query_params, signed_in=False)


@dataclass(frozen=True, slots=True)
class Search:
    """What the studies form asks; empty fields restrict nothing."""

    text: str = ""
    modality: str = ""
    since: str = ""
    until: str = ""
    page: int = 1

    @classmethod
    def of(cls, request: Request) -> "Search":
        """Read the form from the query string."""
        given = request.query_params
        page = given.get("page", "1")
        return cls(
            given.get("text", "").strip()[:64],
            given.get("modality", "").strip()[:16],
            given.get("from", ""),
            given.get("to", ""),
            max(1, int(page)) if page.isdecimal() and len(page) < 7 else 1,
        )

    def query(self, archive: Archive) -> Query:
        """Return the query for this page of the list."""
        matches: dict[str, Match] = {}
        if self.text:
            found = archive.index.studies(MOST_FOUND, self.text)
            matches["StudyInstanceUID"] = AnyOf(tuple(one.study_instance_uid for one in found))
        if self.modality:
            matches["ModalitiesInStudy"] = Single(self.modality)
        low, high = (_day(one) for one in (self.since, self.until))
        if low or high:
            matches["StudyDate"] = Between(low, high)
        return Query(Level.STUDY, matches, STUDY_KEYS, PAGE_SIZE, (self.page - 1) * PAGE_SIZE)

    def link(self, page: int) -> str:
        """Return the address of another page of the same list."""
        fields = {"text": self.text, "modality": self.modality}
        fields |= {"from": self.since, "to": self.until, "page": str(page) if page > 1 else ""}
        text = urlencode({name: value for name, value in fields.items() if value})
        return f"/?{text}" if text else "/"


STUDY_KEYS = tuple(
    "PatientID PatientName PatientSex PatientAge StudyDate StudyTime StudyDescription StudyInstanceUID ModalitiesInStudy "
    "NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances AccessionNumber".split()
)


async def studies(request: Request) -> Response:
    """List studies, newest first."""
    at = door(request)
    search = Search.of(request)

    def ask() -> tuple[list[dict[str, str]], int]:
        query = search.query(at.archive)
        return [dict(row) for row in at.archive.index.search(query)], at.archive.index.count(query)

    try:
        rows, total = await in_thread(at.read, ask)
    except InvalidQuery:
        rows, total = [], 0  # A range that ends before it begins.
    return await show(
        request,
        "studies.html",
        rows=rows,
        total=total,
        search=search,
        pages=max(1, math.ceil(total / PAGE_SIZE)),
        first=(search.page - 1) * PAGE_SIZE + 1,
        modalities=MODALITIES,
        searched=search != Search(page=search.page),
    )


async def study(request: Request) -> Response:
    """Show a study: its series, and which of them were derived from which."""
    at = door(request)
    study_uid = uid(request.path_params["study"])
    row, cards, jobs = await in_thread(at.read, _study, at.archive, study_uid)
    names = {card.series_instance_uid: series_title(card) for card in cards}
    shown = {"study": row, "cards": cards, "names": names, "jobs": jobs, "recent": time.time() - ARRIVING_S}
    return await show(request, "study.html", viewer=bool(at.settings.web.viewer), **shown)


async def series(request: Request) -> Response:
    """Show the frames of a series, one at a time."""
    at = door(request)
    study_uid, series_uid = uid(request.path_params["study"]), uid(request.path_params["series"])
    row, cards, _ = await in_thread(at.read, _study, at.archive, study_uid)
    card = next((one for one in cards if one.series_instance_uid == series_uid), None)
    if card is None:
        raise NotFound("There is no such series.")
    found = await in_thread(
        at.read, at.archive.index.locate, study_instance_uids=[study_uid], series_instance_uids=[series_uid]
    )
    positions = [
        f"{stored.key.sop_instance_uid}/frames/{number}" if stored.number_of_frames > 1 else stored.key.sop_instance_uid
        for stored in found
        if has_pixels(stored)
        for number in range(1, max(1, stored.number_of_frames) + 1)
    ]
    asked = request.query_params.get("image", "")
    image = min(max(int(asked), 1), len(positions)) if asked.isdecimal() and len(asked) < 8 else (len(positions) + 1) // 2
    base = f"/dicom-web/studies/{study_uid}/series/{series_uid}/instances/"
    return await show(
        request,
        "series.html",
        study=row,
        card=card,
        cards=cards,
        names={one.series_instance_uid: series_title(one) for one in cards},
        base=base,
        positions=positions,
        data=orjson.dumps({"base": base, "positions": positions}).decode().replace("<", "\\u003c"),
        image=image,
        window=request.query_params.get("window", ""),
        windows=WINDOWS.get(card.modality, ()),
        instance=found[0] if found else None,
    )


async def jobs(request: Request) -> Response:
    """List jobs, newest first."""
    at = door(request)
    wanted = request.query_params.get("state", "")
    states = [JobState(wanted)] if wanted in set(JobState) else None

    def ask() -> tuple[list[Job], dict[str, dict[str, str]]]:
        listed = list(at.archive.index.jobs.list(states=states, limit=JOBS_SHOWN))
        return listed, _studies_of(at.archive, listed)

    listed, known = await in_thread(at.read, ask)
    return await show(request, "jobs.html", jobs=listed, studies=known, states=list(JobState), state=wanted)


async def job(request: Request) -> Response:
    """Show one job: what it read, what it made, how it went."""
    at = door(request)

    def ask() -> tuple[Job, dict[str, dict[str, str]], list[SeriesSummary], list[Job]]:
        found = at.archive.index.jobs.get(request.path_params["job"])
        known = _studies_of(at.archive, [found])
        same = at.archive.index.jobs.list(study_instance_uid=found.study_instance_uid, processor=found.processor)
        others = [one for one in same if one.job_id != found.job_id and one.output_series_instance_uids]
        return found, known, _study(at.archive, found.study_instance_uid)[1] if known else [], others

    found, known, cards, others = await in_thread(at.read, ask)
    names = {card.series_instance_uid: card for card in cards}
    parameters = orjson.dumps(dict(found.parameters), option=orjson.OPT_INDENT_2).decode()
    return await show(
        request,
        "job.html",
        job=found,
        study=known.get(found.study_instance_uid),
        series=names,
        parameters=parameters,
        others=others if found.output_series_instance_uids else [],
    )


async def job_again(request: Request) -> Response:
    """Queue a job again."""
    at = door(request)
    await in_thread(at.read, at.archive.index.jobs.again, request.path_params["job"])
    return _back(request)


async def job_cancel(request: Request) -> Response:
    """Cancel a job."""
    at = door(request)
    await in_thread(at.read, at.archive.index.jobs.cancel, request.path_params["job"])
    return _back(request)


async def upload(request: Request) -> Response:
    """Offer to upload files."""
    return await show(request, "upload.html")


ROUTES = [
    ("/", studies, ("GET",)),
    ("/studies/{study}", study, ("GET",)),
    ("/studies/{study}/series/{series}", series, ("GET",)),
    ("/jobs", jobs, ("GET",)),
    ("/jobs/{job}", job, ("GET",)),
    ("/jobs/{job}/again", job_again, ("POST",)),
    ("/jobs/{job}/cancel", job_cancel, ("POST",)),
    ("/upload", upload, ("GET",)),
]


def _study(archive: Archive, study_uid: str) -> tuple[dict[str, str], list[SeriesSummary], list[Job]]:
    query = Query(Level.STUDY, {"StudyInstanceUID": Single(study_uid)}, STUDY_KEYS, 1)
    rows = [dict(row) for row in archive.index.search(query)]
    if not rows:
        raise NotFound("There is no such study.")
    jobs = list(archive.index.jobs.list(study_instance_uid=study_uid, limit=JOBS_SHOWN))
    return rows[0], archive.index.series_of(study_uid), jobs


def _studies_of(archive: Archive, listed: Sequence[Job]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for study_uid in {one.study_instance_uid for one in listed}:
        query = Query(Level.STUDY, {"StudyInstanceUID": Single(study_uid)}, ("PatientID", "StudyDescription", "StudyDate"), 1)
        for row in archive.index.search(query):
            found[study_uid] = dict(row)
    return found


def _day(text: str) -> str:
    plain = text.replace("-", "")
    return plain if len(plain) == 8 and plain.isdigit() else ""


def _back(request: Request) -> Response:
    """Go back to where the button was pressed."""
    to = request.query_params.get("to", "")
    return RedirectResponse(f"/jobs/{request.path_params['job']}" if to == "job" else "/jobs", 303)
