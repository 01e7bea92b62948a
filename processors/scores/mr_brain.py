"""What `mr-brain` is measured on, and what comes out."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pacs import phantoms
from pacs.phantoms.head import GREY, WHITE
from pacs.processing import NotApplicable, Series
from pacs.processing.api import Spec
from pacs.processing.masks import Mask, volume_ml
from pacs.processing.scoring import Measured, Picture, Scores, beside, dice, grey, hausdorff, outputs, painted
from pacs.processing.truth import read
from processors.mr_brain import mr_brain

FORAMEN_MM = -60.0
"""Below it the phantom's white matter is cord."""


def score() -> Measured:
    datasets, labels = phantoms.tissues()
    series = Series(datasets)
    geometry = series.geometry()
    level = geometry.position(0)[2] + np.arange(len(labels)) * geometry.spacing_mm[0]
    truth = np.isin(labels, (WHITE, GREY)) & (level > FORAMEN_MM)[:, None, None]
    scores, found = _compared("", series, truth, mr_brain)
    middle = labels.shape[2] // 2
    shown = [_outlined(series, found, index) for index in (22, 32)]
    side = painted(grey(series.array()[::-1, :, middle], 350, 800), found[::-1, :, middle], (230, 60, 60))
    return Measured(scores, beside(*shown, side), "Two slices, and from the side", "a T1-like head with shading and a neck")


def on_public(folder: Path) -> Measured | None:
    """The averages of many heads, and the mask that came with one of them, which lies in the same space as the other."""
    return _on_averages(folder, {"balloon": mr_brain})


def on_installed(folder: Path, spec: Spec) -> Measured | None:
    """The same, and beside it what a plug-in of the same name finds, such as deepbet's networks."""
    return _on_averages(folder, {"balloon": mr_brain, spec.version.partition("+")[2] or spec.version: spec.function})


def _on_averages(folder: Path, functions: Mapping[str, Callable[..., Any]]) -> Measured | None:
    sharp, blurred = folder / "gt_brain_spm152", folder / "pet_mr_spm_templates" / "T1"
    if not sharp.is_dir() or not blurred.is_dir():
        return None
    labelled = read(sharp)
    (first,) = labelled.series
    (truth,) = labelled.masks(first).values()
    (second,) = read(blurred).series
    columns: list[Scores] = []
    shown: list[Picture] = []
    for function in functions.values():
        scores, found = _compared("ICBM 152: ", first, truth, function)
        shown += [_outlined(first, found, index) for index in (20, 36, 52, 68)]
        # Where it is refused, it has no scores.
        with contextlib.suppress(NotApplicable):
            scores |= _compared("blurred average: ", second, truth, function)[0]
        columns.append(scores)
    measures = list(dict.fromkeys(name for scores in columns for name in scores))
    rows = [[name, *(f"{one[name]:g}" if name in one else "refused" for one in columns)] for name in measures]
    return Measured(
        columns[0],
        beside(*shown),
        "Four slices" if len(functions) == 1 else f"Four slices, by {' and by '.join(functions)}",
        "the averages of many T1 heads that SPM calls ICBM 152 and T1, 91 slices of 2 mm each",
        {"Beside each other": [["measure", *functions], *rows]},
    )


def _compared(prefix: str, series: Series, truth: Mask, function: Callable[..., Any]) -> tuple[Scores, Mask]:
    segmentation, measurements = outputs(function, series.datasets)
    found = segmentation.array() > 0
    geometry = series.geometry()
    volume = measurements.values[1][0].value
    scores: Scores = {
        f"{prefix}Dice": round(dice(found, truth), 4),
        f"{prefix}Hausdorff distance, 99 % (mm)": round(hausdorff(found, truth, geometry.spacing_mm, percent=99), 1),
        f"{prefix}volume (mL)": volume,
        f"{prefix}error of volume (%)": round(100 * (volume / volume_ml(truth, geometry) - 1), 2),
    }
    return scores, found


def _outlined(series: Series, found: Mask, index: int) -> Picture:
    plane = series.frame(index)
    top = float(np.percentile(series.array(), 99.5))
    return painted(grey(plane, top / 2, top), found[index], (230, 60, 60))
