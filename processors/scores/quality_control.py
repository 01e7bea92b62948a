"""What `quality-control` is measured on, and what comes out."""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.phantoms.defects import DEFECTS
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs
from processors.quality_control import DEFECT, quality_control


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
