"""The one writer: turns what processors yield into DICOM objects, the same bytes for the same job every time.

Each kind of output has its module (`derive_images`, `derive_segmentations`, `derive_maps`, `derive_reports`,
`derive_presentations`); what all have in common is in `headers`.
"""

from collections.abc import Iterable, Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.processing import derive_images, derive_maps, derive_presentations, derive_reports, derive_segmentations
from pacs.processing.headers import Made, Provenance, decimal
from pacs.processing.outputs import (
    Blending,
    Images,
    Map,
    Measurements,
    Output,
    Overlay,
    Presentation,
    Probabilities,
    Report,
    Segmentation,
    Spots,
    Unplaced,
)
from pacs.processing.series import Series

__all__ = ["Made", "Provenance", "decimal", "derive", "encode"]


def derive(outputs: Iterable[Output], provenance: Provenance) -> Iterator[Made]:
    """Turn outputs into objects, one after another, as the processor yields them."""
    writer = _Writer(provenance)
    for index, output in enumerate(outputs):
        yield from writer.write(output, index)


def encode(dataset: Dataset) -> bytes:
    """Return the data set as Explicit VR Little Endian, without File Meta Information."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = False
    buffer.is_little_endian = True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


class _Writer:
    """Remembers, without their pixels, the objects that a later output of the job may refer to."""

    def __init__(self, provenance: Provenance) -> None:
        self._provenance = provenance
        self._segmentations: dict[int, tuple[int, Dataset]] = {}
        self._images: dict[int, list[Dataset]] = {}
        self._outputs: list[Output] = []

    def write(self, output: Output, index: int) -> Iterator[Made]:
        """Yield the objects of one output."""
        provenance = self._provenance
        self._outputs.append(output)  # kept alive: what is remembered is known by identity
        if isinstance(output, Images):
            remembered = self._images[id(output)] = []
            for made in derive_images.images(output, provenance, index):
                remembered.append(_without_pixels(made.dataset))
                yield made
        elif isinstance(output, Overlay):
            yield from derive_images.overlay(output, provenance, index)
        elif isinstance(output, Unplaced):
            yield from derive_images.unplaced(output, provenance, index)
        elif isinstance(output, Segmentation):
            made = derive_segmentations.segmentation(output, provenance, index)
            self._segmentations[id(output)] = (index, _without_pixels(made.dataset))
            yield made
        elif isinstance(output, Probabilities):
            yield derive_segmentations.probabilities(output, provenance, index)
        elif isinstance(output, Map):
            yield derive_maps.parametric_map(output, provenance, index)
        elif isinstance(output, Measurements):
            if id(output.of) not in self._segmentations:
                raise TypeError("Measurements must follow the Segmentation they are of")
            yield derive_reports.measurements(output, provenance, index, *self._segmentations[id(output.of)])
        elif isinstance(output, Report):
            yield derive_reports.report(output, provenance, index)
        elif isinstance(output, Spots):
            yield derive_reports.spots(output, provenance, index)
        elif isinstance(output, Presentation):
            yield derive_presentations.presentation(output, self._of(output.of), provenance, index)
        elif isinstance(output, Blending):
            under, over = self._of(output.under), self._of(output.over)
            yield derive_presentations.blending(output, under, over, provenance, index)
        else:
            raise TypeError(f"a processor cannot yield {type(output).__name__}")

    def _of(self, shown: Series | Images) -> Sequence[Dataset]:
        if isinstance(shown, Series):
            return shown.datasets
        if id(shown) not in self._images:
            raise TypeError("what a presentation shows must be yielded before it")
        return self._images[id(shown)]


def _without_pixels(dataset: Dataset) -> Dataset:
    light = Dataset()
    light.update({element.tag: element for element in dataset if element.tag != 0x7FE00010})
    return light
