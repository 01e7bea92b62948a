"""What processors of radiographs (CR, DX, MG) have in common: which images they take, when to take logarithms, and the result.

DX and MG come for processing, with intensities that may still be linear in dose, or for presentation (PS3.3 C.8.11.1); what a
processor makes of either is for presentation.
"""

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from pacs.processing.api import NotApplicable
from pacs.processing.concepts import Code
from pacs.processing.outputs import Images
from pacs.processing.series import Series


def needs_grey(series: Series) -> None:
    """Raise `NotApplicable` where not every image is a grey single frame."""
    for one in series.datasets:
        if "PixelData" not in one or int(one.get("NumberOfFrames") or 1) != 1 or one.get("SamplesPerPixel") != 1:
            raise NotApplicable("needs grey single-frame images")


def to_logarithm(series: Series) -> bool:
    """Whether intensities are linear in dose, so that structures need a logarithm to be of equal contrast."""
    first = series.first
    return bool(
        first.get("PresentationIntentType") == "FOR PROCESSING" and first.get("PixelIntensityRelationship", "LIN") == "LIN"
    )


def shown_bits(series: Series) -> int:
    """How many bits the result's values have: those of the source, 8 to 16."""
    return min(max(int(series.first.get("BitsStored") or 16), 8), 16)


def for_presentation(
    series: Series, pixels: Iterable[NDArray[Any]], *, description: str, derivation: Code, logarithm: bool
) -> Images:
    """Return radiographs ready to be shown, from values that fill the range of `shown_bits`.

    `logarithm` where one was taken: an image that said how its intensities relate to dose says so.
    """
    first = series.first
    attributes: dict[str, Any] = {}
    was_for_processing = first.get("PresentationIntentType") == "FOR PROCESSING"
    if was_for_processing:
        inverse = first.get("PhotometricInterpretation") == "MONOCHROME1"
        attributes["PresentationLUTShape"] = "INVERSE" if inverse else "IDENTITY"
    if logarithm and (was_for_processing or "PixelIntensityRelationship" in first):
        attributes["PixelIntensityRelationship"] = "LOG"
    values = 2 ** shown_bits(series)
    return Images(
        pixels=pixels,
        like=series.datasets,
        description=description,
        derivation=derivation,
        slope=1,
        intercept=0,
        rescale_type="US",
        window=(values / 2, values),
        bits_stored=shown_bits(series),
        for_presentation=was_for_processing,
        attributes=attributes,
    )
