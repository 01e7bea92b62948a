"""Scores of any processor on a folder of labelled images: masks by overlap, answers by agreement, places by sensitivity.

Masks come from SEG and RTSTRUCT objects in the folder. Answers and places come from a table `labels.csv` in it, whose rows name
a series (`series`: its Series Instance UID or a part of the path) and either `question` and `answer` (code meanings), or `x`,
`y`, `z` and `diameter` in mm of something that is to be found.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pacs.processing.api import NotApplicable, Run, Spec
from pacs.processing.outputs import Finding, Report, Segmentation, Spots
from pacs.processing.scoring import confusion, dice, hausdorff
from pacs.processing.series import Series, Study
from pacs.processing.truth import Labelled, answers, read


@dataclass(frozen=True)
class Answered:
    """What is true, and what was said; "undetermined" is never wrong."""

    question: str
    truth: str
    answer: str
    certainty: float

    @property
    def is_wrong(self) -> bool:
        return self.answer not in (self.truth, "undetermined")

    @property
    def is_certain_and_wrong(self) -> bool:
        return self.is_wrong and self.certainty > 0.9


@dataclass
class Result:
    """What was measured: a row for each mask, series or place, and (truth, answer) pairs by question."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    pairs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    certain_and_wrong: int = 0

    @property
    def tables(self) -> dict[str, list[list[str]]]:
        """A table of confusion for each question."""
        return {question: confusion(pairs) for question, pairs in self.pairs.items()}


def score_folder(spec: Spec, folder: Path, names: Mapping[str, str] | None = None, **given: object) -> Result:
    """Run a processor on every series of a folder (or on all as one study) and compare with its labels.

    Parameters
    ----------
    names : mapping
        What a segment of the processor is called in the labels ("Left lung" -> "Lung_L"), where not alike.
    """
    labelled, result = read(folder), Result()
    table = list(answers(folder / "labels.csv")) if (folder / "labels.csv").is_file() else []
    parameters = spec.bind(given)
    subjects: list[Series | Study] = [Study(labelled.series)] if spec.level == "study" else list(labelled.series)
    for subject in subjects:
        name = "all series" if isinstance(subject, Study) else _name(subject, folder)
        try:
            outputs = list(spec.call(subject, Run(), parameters))
        except NotApplicable as reason:
            result.rows.append({"series": name, "outcome": "not applicable", "reason": str(reason)})
            continue
        for output in outputs:
            if isinstance(output, Segmentation):
                result.rows += _masks(name, output, labelled, names or {})
            elif isinstance(output, Report):
                _answers(name, output, table, folder, result)
            elif isinstance(output, Spots):
                result.rows += _places(name, output, _rows_of(table, output.series, folder))
    return result


def _masks(name: str, output: Segmentation, labelled: Labelled, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    truths = {known.casefold(): mask for known, mask in labelled.masks(output.series).items()}
    found, spacing = output.array(), _spacing(output.series)
    for number, segment in output.segments.items():
        mask = truths.get(names.get(segment.label, segment.label).casefold())
        if mask is None:
            continue
        # Slices that nobody labelled say nothing.
        drawn = mask.any(axis=(1, 2))
        one, other = (found == number)[drawn], mask[drawn]
        yield {
            "series": name,
            "outcome": segment.label,
            "dice": round(dice(one, other), 4),
            "hausdorff95_mm": round(hausdorff(one, other, spacing), 2),
            "volume_error_percent": round(100 * (float(one.sum()) / float(other.sum()) - 1), 2),
            "slices": int(drawn.sum()),
        }


def answered(findings: Iterable[Finding], truths: Mapping[str, str]) -> Iterator[Answered]:
    """Yield what was said to each question that has a true answer; both are code meanings."""
    for finding in findings:
        question = finding.question.meaning
        if question in truths:
            answer = finding.answer.meaning if finding.answer is not None else "undetermined"
            yield Answered(question, truths[question], answer, finding.certainty)


def _answers(name: str, output: Report, table: list[Mapping[str, str]], folder: Path, result: Result) -> None:
    truths = {row["question"]: row["answer"] for row in _rows_of(table, output.series, folder) if row.get("question")}
    for one in answered(output.findings, truths):
        result.pairs.setdefault(one.question, []).append((one.truth, one.answer))
        result.certain_and_wrong += one.is_certain_and_wrong
        row = {"series": name, "outcome": one.question}
        result.rows.append(row | {"truth": one.truth, "answer": one.answer, "certainty": one.certainty})


def _places(name: str, output: Spots, rows: list[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    truths = [
        (np.array([float(row[axis]) for axis in "xyz"]), float(row.get("diameter") or 10.0)) for row in rows if row.get("x")
    ]
    if not truths:
        return
    found = [np.asarray(one.at_mm) for one in output.spots]
    hit = [min((float(np.linalg.norm(one - at)) for one in found), default=np.inf) <= size / 2 for at, size in truths]
    near = [any(np.linalg.norm(one - at) <= size / 2 for at, size in truths) for one in found]
    yield {
        "series": name,
        "outcome": "places",
        "of": len(truths),
        "found": sum(hit),
        "sensitivity": round(sum(hit) / len(truths), 3),
        "false_per_series": len(found) - sum(near),
    }


def _rows_of(table: list[Mapping[str, str]], series: Series, folder: Path) -> list[Mapping[str, str]]:
    uid, path = series.text("SeriesInstanceUID"), _name(series, folder)
    return [row for row in table if row["series"] and (row["series"] == uid or row["series"] in path)]


def _name(series: Series, folder: Path) -> str:
    path = Path(str(getattr(series.first, "filename", "") or ""))
    try:
        parent = str(path.relative_to(folder).parent)
    except ValueError:
        return series.text("SeriesInstanceUID")
    return parent if parent != "." else path.stem


def _spacing(series: Series) -> tuple[float, float, float]:
    pixel = [float(v) for v in series.first.get("PixelSpacing") or (1, 1)]
    try:
        return series.geometry().spacing_mm
    except NotApplicable:
        return float(series.first.get("SliceThickness") or 1), pixel[0], pixel[1]
