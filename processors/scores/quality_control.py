"""What `quality-control` is measured on, and what comes out."""

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.phantoms.defects import DEFECTS
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs
from processors.quality_control import DEFECT, quality_control

PUBLIC = {
    "tilted CT": "odd_series/gantrytilting*",
    "two MR slices": "odd_series/slicecount*",
    "FLAIR with gaps": "mr_flair_and_pdf/FLAIR/*",
    "chest CT": "ct_chest_nlst101287/CT/*",
    "thigh CT": "pet_ct_mr_sts012/CT/*",
    "chest radiograph": "xray/RG1_J2KI",
}
"""Series by what they are. Who published them scrambled the pixels of the first two, and left slices of the FLAIR out."""


def score() -> Measured:
    """Put one defect at a time into a clean series, and count what is found."""
    clean = phantoms.tissue(frames=8)[0]
    spoilt = {question: spoil(clean) for question, spoil in DEFECTS.values()}

    def defects(datasets: Sequence[Dataset]) -> set[str]:
        (report,) = outputs(quality_control, datasets)
        return {one.question.meaning for one in report.findings[1:] if one.answer is DEFECT}

    found = {question: defects(datasets) for question, datasets in spoilt.items()}
    scores: Scores = {
        "defects planted": len(found),
        "of them found": sum(question in answer for question, answer in found.items()),
        "defects found in the clean series": len(defects(clean)),
        "further defects found beside the planted ones": sum(len(answer - {question}) for question, answer in found.items()),
    }
    shown = [clean[3], *(spoilt[question][3] for question in ("Noise", "Clipped values", "Metal"))]
    return Measured(
        scores,
        beside(*(grey(one.pixel_array, 0, 1000) for one in shown)),
        "Clean, noisy, clipped, with metal",
        "a CT of a body, into which one defect at a time is put",
    )


def on_public(folder: Path) -> Measured | None:
    """What is said of a tilted series, of one of two slices, of one with gaps, and of series without known defects."""
    found, shown = {}, []
    for name, pattern in PUBLIC.items():
        datasets = [dcmread(path) for path in sorted(folder.glob(pattern))]
        if datasets:
            (report,) = outputs(quality_control, datasets)
            found[name] = {one.question.meaning: one.answer.meaning if one.answer else "unknown" for one in report.findings}
            series = Series(datasets)
            plane = series.frame(len(series) // 2)
            shown.append(grey(plane, float(plane.max() + plane.min()) / 2, max(float(plane.max() - plane.min()), 1)))
    if not found:
        return None
    questions = list(dict.fromkeys(question for one in found.values() for question in one))
    short = {"No defect found": "none", "Defect found": "**defect**"}
    table = [["", *found]]
    for question in questions:
        told = (one.get(question, "not asked") for one in found.values())
        table.append([question, *(short.get(one, one) for one in told)])
    good = [one for name, one in found.items() if name in ("chest CT", "thigh CT", "chest radiograph")]
    scores: Scores = {
        "series": len(found),
        "tilt found in the tilted one": int(found.get("tilted CT", {}).get("Tilted gantry") == DEFECT.meaning),
        "gaps found in the one with gaps": int(found.get("FLAIR with gaps", {}).get("Missing slices") == DEFECT.meaning),
        "defects found in the last three": sum(list(one.values())[1:].count(DEFECT.meaning) for one in good),
    }
    return Measured(scores, beside(*shown, height=160), ", ".join(found), "public series", {"What is said of each": table})
