"""Brain on T1-weighted MR heads by deepbet's networks, which lie in the folder `deepbet` beside this file.

Source: Fisch L, Zumdick S, Barkhau C et al., "deepbet: fast brain extraction of T1-weighted MRI using convolutional neural
networks", Comput Biol Med 179 (2024) 108845.

Written by `pacs models add deepbet`. Without this file `mr-brain` is the balloon again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pacs.processing import Choice, Measurements, Range, Run, Segmentation, Series, processor
from processors.mr_brain import WHEN, extract, refuse_no_head, told
from processors.mr_brain_net import extract_by_network

# The end is that of the weights: the first of the SHA-256 of bbox_model.pt and model.pt one after the other, by fours, since a
# longer number would look like somebody's.
VERSION = "1.0.0+deepbet.1.0.2.2c91.5153.495c"


@processor("mr-brain", version=VERSION, makes=("SEG", "SR"), when=WHEN, queue="cpu", memory_mb=8192)
def mr_brain(
    series: Series,
    run: Run,
    *,
    method: Annotated[str, Choice("net", "balloon"), "net: deepbet's networks; balloon: Smith's, which needs none"] = "net",
    threshold: Annotated[float, Range(0.05, 0.95), "net: larger gives a smaller brain"] = 0.5,
    strength: Annotated[float, Range(0.1, 0.9), "balloon: larger gives a smaller brain (Smith's fractional threshold)"] = 0.5,
    gradient: Annotated[float, Range(-1, 1), "balloon: above 0 the brain is larger below and smaller at the crown"] = 0.0,
) -> Iterator[Segmentation | Measurements]:
    """The brain on a T1-weighted MR head by a network: a segmentation, and its volume as a report."""
    refuse_no_head(series)
    geometry = series.geometry()
    if method == "net":
        brain = extract_by_network(series.array(), geometry, Path(__file__).parent / "deepbet", run, threshold)
    else:
        brain = extract(series.array(), geometry, strength, gradient)
    run.progress(0.9, "writing")
    yield from told(series, geometry, brain, f"Brain by {method}")
