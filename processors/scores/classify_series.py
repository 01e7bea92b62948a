"""What `classify-series` is measured on, and what comes out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import NotApplicable, Series
from pacs.processing.labelled import Answered, answered
from pacs.processing.scoring import Measured, Picture, Scores, beside, confusion, grey, outputs
from pacs.processing.truth import answers
from processors.classify_series import classify_series

TRUTH = Path(__file__).parent / "public_series.csv"
"""What the public series show: files (a pattern), question, answer."""


def score() -> Measured:
    """Ask phantoms whose headers say nothing of what they show, so that the pixels have to."""
    site, fit, good = "Finding Site", "Values fit the modality", "No defect found"
    lost = _nameless(phantoms.lungs()[0])
    for one in lost:
        one.RescaleIntercept = "0"
        one.PixelRepresentation = 0
        one.PixelData = (np.frombuffer(one.PixelData, "<i2") + 1024).astype("<u2").tobytes()
    upside = _nameless([phantoms.radiograph()])
    cases: list[tuple[Sequence[Dataset], Mapping[str, str]]] = [
        (_nameless(phantoms.lungs()[0]), {site: "Chest", fit: good, "Acquisition Plane": "Axial"}),
        (_nameless(phantoms.thigh()[0]), {site: "Extremity", fit: good}),
        (_nameless(phantoms.head()[0]), {site: "Head", fit: good, "MR weighting": "T1 weighted"}),
        (lost, {fit: "Defect found"}),
        (upside, {"Image View": "postero-anterior"}),
    ]
    found = [one for datasets, truths in cases for one in _asked(phantoms.read(datasets), truths)]
    shown = [_middle(Series(phantoms.read(datasets))) for datasets, _ in cases[:3]]
    return Measured(
        _scores(found),
        beside(*shown),
        "A chest, a thigh and a head whose headers do not say so",
        "phantoms without body part and descriptions, one with its rescale lost",
        _tables(found),
    )


def on_public(folder: Path) -> Measured | None:
    """Ask every public series of which it is known by eye what it shows."""
    found: list[Answered] = []
    shown: list[Picture] = []
    refused = 0
    for pattern, truths in _truth().items():
        datasets = [dcmread(path) for path in sorted(folder.glob(pattern)) if path.is_file()]
        if not datasets:
            continue
        try:
            found += _asked(datasets, truths)
        except NotApplicable:
            refused += 1
        if pattern.startswith(("ct_chest_nlst", "pet_ct_mr_sts012/CT", "mr_flair", "mr_head_study/SAG", "xray/RG1")):
            shown.append(_middle(Series(datasets)))
    if not found:
        return None
    return Measured(
        _scores(found) | {"series refused": refused},
        beside(*shown, height=200),
        "Five of the series",
        f"{len(_truth())} public series, their truth told by eye (processors/scores/public_series.csv)",
        _tables(found),
    )


def _truth() -> dict[str, dict[str, str]]:
    truths: dict[str, dict[str, str]] = {}
    for row in answers(TRUTH):
        truths.setdefault(row["files"], {})[row["question"]] = row["answer"]
    return truths


def _asked(datasets: Sequence[Dataset], truths: Mapping[str, str]) -> Iterator[Answered]:
    (report,) = outputs(classify_series, datasets)
    yield from answered(report.findings, truths)


def _scores(found: Sequence[Answered]) -> Scores:
    return {
        "questions": len(found),
        "right": sum(one.answer == one.truth for one in found),
        "undetermined": sum(one.answer == "undetermined" != one.truth for one in found),
        "wrong": sum(one.is_wrong for one in found),
        "wrong with a certainty over 0.9": sum(one.is_certain_and_wrong for one in found),
    }


def _tables(found: Iterable[Answered]) -> dict[str, list[list[str]]]:
    pairs: dict[str, list[tuple[str, str]]] = {}
    for one in found:
        pairs.setdefault(one.question, []).append((one.truth, one.answer))
    return {question: confusion(rows) for question, rows in pairs.items()}


def _nameless(datasets: Sequence[Dataset]) -> list[Dataset]:
    for one in datasets:
        one.BodyPartExamined = one.SeriesDescription = one.StudyDescription = one.ProtocolName = ""
    return list(datasets)


def _middle(series: Series) -> Picture:
    plane = series.frame(len(series) // 2)
    if series.first.get("PhotometricInterpretation") == "MONOCHROME1":
        plane = -plane
    low, high = (-1000, 400) if series.modality == "CT" else np.percentile(plane, (1, 99))
    return grey(plane, float(low + high) / 2, max(float(high - low), 1))
