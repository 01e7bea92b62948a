"""What a structured report says, as plain values: coded answers with their certainty, and measured numbers.

Read from the objects themselves (TID 1500 and whatever nests containers like it, PS3.16), so that it holds for every runner.
Rules branch on these, and people compare two versions by them.
"""

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

_TRACKING = ("112039", "DCM")
_CERTAINTY = ("111012", "DCM")


def findings(dataset: Dataset) -> list[dict[str, Any]]:
    """Return what a report says, in its order; nothing for objects that are no reports.

    An answer is ``{"name": [code, meaning], "answer": [code, meaning], "certainty": 0.0 to 1.0, "of": label}``, a number
    ``{"name": [code, meaning], "value": number, "unit": code, "of": label}``; certainty and label only where there are any.
    """
    return list(_walk(dataset)) if "ContentSequence" in dataset else []


def _walk(container: Dataset) -> Iterator[dict[str, Any]]:
    items = list(container.get("ContentSequence") or [])
    label = next((str(one.get("TextValue", "")) for one in items if _code(one, "ConceptNameCodeSequence")[:2] == _TRACKING), "")
    certainty = next((_number(one) for one in items if _code(one, "ConceptNameCodeSequence")[:2] == _CERTAINTY), None)
    about: dict[str, Any] = {"of": label} if label else {}
    for one in items:
        value, scheme, meaning = _code(one, "ConceptNameCodeSequence")
        kind, number = one.get("ValueType"), _number(one)
        if kind == "NUM" and number is not None and (value, scheme) != _CERTAINTY:
            yield {"name": [value, meaning], "value": number, "unit": _unit(one), **about}
        elif kind == "CODE" and one.get("RelationshipType") == "CONTAINS":
            answer, _, answer_meaning = _code(one, "ConceptCodeSequence")
            sure = {} if certainty is None else {"certainty": round(certainty / 100, 4)}
            yield {"name": [value, meaning], "answer": [answer, answer_meaning], **sure, **about}
        elif kind == "CONTAINER":
            yield from _walk(one)


def _code(item: Dataset, keyword: str) -> tuple[str, str, str]:
    for code in item.get(keyword) or []:
        return (str(code.get("CodeValue", "")), str(code.get("CodingSchemeDesignator", "")), str(code.get("CodeMeaning", "")))
    return "", "", ""


def _number(item: Dataset) -> float | None:
    for measured in item.get("MeasuredValueSequence") or []:
        value = measured.get("NumericValue")
        return None if value is None else float(value)
    return None


def _unit(item: Dataset) -> str:
    for measured in item.get("MeasuredValueSequence") or []:
        return _code(measured, "MeasurementUnitsCodeSequence")[0]
    return ""
