"""QIDO-RS: search for studies, series and instances (PS3.18 10.6 and 8.3.4).

A query string becomes a `Query` here, so that the index sees only what is valid. Malformed is 400; an attribute that this
archive cannot match is left out and told by `Warning: 299`, as the standard asks.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from pacs import reidentify
from pacs.archive import Archive
from pacs.dicom import dicomjson
from pacs.dicom.dictionary import is_known, keyword_of, tag_of, vr_of
from pacs.index.attributes import COMPUTED, LEVELS, VR, level_of
from pacs.model.errors import InvalidQuery
from pacs.model.query import AnyOf, Between, Level, Match, Query, Single, Wildcard, Within
from pacs.web.accept import NotAcceptable, parse_accept
from pacs.web.auth import sees_originals
from pacs.web.door import door, in_thread, json_response, service_url, uid

MAXIMUM_RESULTS = 1000
"""Most matches in one answer; a longer list is told by a warning and read with limit and offset."""

# PS3.18 Tables 10.6.3-3, -4 and -5.
STUDY_ANSWER = (
    "StudyDate StudyTime AccessionNumber ModalitiesInStudy ReferringPhysicianName TimezoneOffsetFromUTC PatientName PatientID "
    "PatientBirthDate PatientSex StudyInstanceUID StudyID NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"
).split()
SERIES_ANSWER = (
    "Modality TimezoneOffsetFromUTC SeriesDescription SeriesInstanceUID SeriesNumber NumberOfSeriesRelatedInstances "
    "PerformedProcedureStepStartDate PerformedProcedureStepStartTime"
).split()
INSTANCE_ANSWER = (
    "SOPClassUID SOPInstanceUID TimezoneOffsetFromUTC InstanceNumber Rows Columns BitsAllocated NumberOfFrames".split()
)
OPTIONAL_ANSWER = frozenset(("TimezoneOffsetFromUTC", "Rows", "Columns", "BitsAllocated", "NumberOfFrames"))
"""Given where there is a value; the others are always there, empty if need be."""
IDENTIFIERS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})  # PS3.4 C.2.2.2.4
RANGE_VRS = frozenset({"DA", "TM", "DT"})
CONTROL = frozenset(
    {"limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "accept"}
)
_DATE_OR_TIME = {
    "DA": re.compile(r"\d{8}|\d{4}\.\d{2}\.\d{2}"),
    "TM": re.compile(r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?"),
    "DT": re.compile(r"\d{4,14}(\.\d{1,6})?([+-]\d{4})?"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A search as the caller asked for it. `warnings` are sentences for `Warning: 299`."""

    query: Query
    warnings: tuple[str, ...] = ()


async def studies(request: Request) -> Response:
    """Search for studies."""
    return await _search(request, Level.STUDY)


async def series(request: Request) -> Response:
    """Search for series, of all studies or of one."""
    return await _search(request, Level.SERIES)


async def instances(request: Request) -> Response:
    """Search for instances, of all studies, of one study or of one series."""
    return await _search(request, Level.IMAGE)


async def _search(request: Request, level: Level) -> Response:
    ranges = parse_accept(request.headers.get("accept", ""), request.query_params.getlist("accept"))
    if not any(one.covers("application/dicom+json") or one.covers("application/json") for one in ranges):
        raise NotAcceptable("search results are made as application/dicom+json only")
    asked = parse(level, request.query_params.multi_items(), request.path_params)
    at = door(request)
    rows, total = await in_thread(at.read, _ask, at.archive, asked.query, await sees_originals(request))
    warnings = list(asked.warnings)
    if asked.query.offset + len(rows) < total:
        warnings.append(f"there are {total - asked.query.offset - len(rows)} additional results that can be requested")
    headers = {"X-Total-Count": str(total), "Cache-Control": "private, no-cache"}
    if warnings:
        headers["Warning"] = ", ".join(f'299 {request.headers.get("host", "-")} "{one}"' for one in warnings)
    base = service_url(request)
    return json_response(request, [_answer(level, row, base, asked.query.return_keys) for row in rows], headers=headers)


def _ask(archive: Archive, query: Query, originals: bool) -> tuple[list[dict[str, str]], int]:
    rows = [dict(row) for row in (reidentify.search(archive, query) if originals else archive.index.search(query))]
    if query.offset == 0 and (query.limit is None or len(rows) < query.limit):
        return rows, len(rows)
    return rows, reidentify.count(archive, query) if originals else archive.index.count(query)


def parse(level: Level, parameters: Iterable[tuple[str, str]], within: dict[str, str]) -> Asked:
    """Turn a query string into a query.

    Parameters
    ----------
    parameters : iterable of (name, value)
        Decoded, in order; `includefield` may come more than once.
    within : dict
        `study` and `series` of the path, where the resource is nested.

    Raises
    ------
    InvalidQuery
        An unknown attribute, a malformed UID, date, limit or offset.
    """
    matches: dict[str, Match] = {IDENTIFIERS[name]: Single(uid(value)) for name, value in within.items() if name in IDENTIFIERS}
    fixed = frozenset(matches)
    warnings: list[str] = []
    include: list[str] = []
    limit, offset, fuzzy = MAXIMUM_RESULTS, 0, False
    for name, value in parameters:
        if name == "limit":
            limit = min(_count(name, value), MAXIMUM_RESULTS)
        elif name == "offset":
            offset = _count(name, value)
        elif name == "includefield":
            include += [one.strip() for one in value.split(",") if one.strip()]
        elif name == "fuzzymatching":
            fuzzy = _flag(name, value)
        elif name in CONTROL:
            if name != "accept" and _flag(name, value):
                warnings.append(f"{name} is not supported and was ignored")
        else:
            _match(level, name, value, matches, fixed, warnings)
    return_keys = _return_keys(level, include, nested=within, warnings=warnings)
    return Asked(Query(level, matches, return_keys, limit, offset, fuzzy), tuple(warnings))


def _match(level: Level, name: str, value: str, matches: dict[str, Match], fixed: frozenset[str], warnings: list[str]) -> None:
    if "." in name:
        _within(name, value, level, matches, warnings)
        return
    keyword = _keyword(name)
    if not value:
        return  # PS3.4 C.2.2.2.3: an empty value is Universal Matching.
    if level_of(keyword) is None or vr_of(tag_of(keyword)) == "SQ":
        warnings.append(f"{keyword} cannot be matched and was ignored")
        return
    found = matcher(keyword, vr_of(tag_of(keyword)), value)
    if keyword in fixed:
        # The path says which; a query that says otherwise matches nothing.
        wanted = {found.value} if isinstance(found, Single) else set(found.values) if isinstance(found, AnyOf) else set()
        here = matches[keyword]
        if isinstance(here, Single) and here.value not in wanted:
            matches[keyword] = AnyOf(())
        return
    matches[keyword] = found


def _within(name: str, value: str, level: Level, matches: dict[str, Match], warnings: list[str]) -> None:
    """Add a key within a sequence, "RequestAttributesSequence.AccessionNumber"; one item meets all of a sequence."""
    sequence, *inner = (_keyword(one) for one in name.split("."))
    own = level_of(sequence)
    if own is None or LEVELS.index(own) > LEVELS.index(level) or vr_of(tag_of(sequence)) != "SQ":
        warnings.append(f"matching within {sequence} is not supported at this level and was ignored")
        return
    if not value:
        return
    found: Match = matcher(inner[-1], vr_of(tag_of(inner[-1])), value)
    for one in reversed(inner[1:]):
        found = Within({one: found})
    before = matches.get(sequence)
    matches[sequence] = Within({**(before.keys if isinstance(before, Within) else {}), inner[0]: found})


def matcher(keyword: str, vr: str, value: str) -> Match:
    """Return how `value` is to be matched (PS3.4 C.2.2.2). Raises `InvalidQuery` for a value its VR does not allow."""
    if vr == "UI":
        uids = tuple(uid(one.strip()) for one in re.split(r"[,\\]", value) if one.strip())
        return Single(uids[0]) if len(uids) == 1 else AnyOf(uids)
    if vr in RANGE_VRS:
        return _range(keyword, vr, value)
    if keyword == "ModalitiesInStudy" and re.search(r"[,\\]", value):
        return AnyOf(tuple(one.strip() for one in re.split(r"[,\\]", value) if one.strip()))
    if vr in WILDCARD_VRS and ("*" in value or "?" in value):
        return Wildcard(value)
    if vr in ("IS", "US", "UL", "SS", "SL") and not re.fullmatch(r"\s*[+-]?\d{1,12}\s*", value):
        raise InvalidQuery(f"{keyword} must be a number")
    return Single(value)


def _range(keyword: str, vr: str, value: str) -> Match:
    pattern = _DATE_OR_TIME[vr]
    if pattern.fullmatch(value):
        return Single(value)
    # A DT may hold a "-" of its time zone offset: split where both sides make sense.
    for position in (index for index, character in enumerate(value) if character == "-"):
        low, high = value[:position], value[position + 1 :]
        if (low or high) and all(not end or pattern.fullmatch(end) for end in (low, high)):
            return Between(low, high)
    raise InvalidQuery(f"{keyword} is not a {vr} or a range of them (PS3.4 C.2.2.2.5)")


def _keyword(name: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        keyword = keyword_of(int(name, 16)) if is_known(int(name, 16)) else ""
    else:
        try:
            tag_of(name)
            keyword = name
        except KeyError:
            keyword = ""
    if not keyword:
        raise InvalidQuery("the query names an attribute that is neither a keyword nor a tag of PS3.6")
    return keyword


def _return_keys(level: Level, include: Sequence[str], *, nested: dict[str, str], warnings: list[str]) -> tuple[str, ...]:
    keys = {Level.STUDY: STUDY_ANSWER, Level.SERIES: SERIES_ANSWER, Level.IMAGE: INSTANCE_ANSWER}[level].copy()
    # PS3.18 10.6.3.3: attributes of the levels above come along where the path does not fix them.
    if level is not Level.STUDY:
        keys += STUDY_ANSWER if "study" not in nested else ["StudyInstanceUID"]
    if level is Level.IMAGE:
        keys += SERIES_ANSWER if "series" not in nested else ["SeriesInstanceUID"]
    for one in include:
        if one.lower() == "all":
            keys += [
                keyword
                for keyword in (*VR, *COMPUTED)
                if (own := level_of(keyword)) is not None and LEVELS.index(own) <= LEVELS.index(level)
            ]
            continue
        keyword = _keyword(one.partition(".")[0])
        own = level_of(keyword)
        if own is None or LEVELS.index(own) > LEVELS.index(level):
            warnings.append(f"{keyword} cannot be returned at this level")
        else:
            keys.append(keyword)
    return tuple(dict.fromkeys(keys))


def _answer(level: Level, row: dict[str, str], base: str, asked: Sequence[str]) -> dict[str, Any]:
    required = {Level.STUDY: STUDY_ANSWER, Level.SERIES: SERIES_ANSWER, Level.IMAGE: INSTANCE_ANSWER}[level]
    given = {keyword: row[keyword] for keyword in asked if row.get(keyword)}
    given |= {keyword: "" for keyword in required if keyword not in given and keyword not in OPTIONAL_ANSWER}
    url = f"{base}/studies/{row['StudyInstanceUID']}"
    if level is not Level.STUDY:
        url += f"/series/{row['SeriesInstanceUID']}"
    if level is Level.IMAGE:
        url += f"/instances/{row['SOPInstanceUID']}"
    given |= {"RetrieveURL": url, "InstanceAvailability": "ONLINE"}
    given.pop("SpecificCharacterSet", None)
    return dicomjson.attributes_to_json(given)


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value):
        raise InvalidQuery(f"{name} must be a whole number, not negative")
    return int(value)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise InvalidQuery(f"{name} must be true or false")
    return value.lower() == "true"
