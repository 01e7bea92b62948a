"""The workshop: what processors are made of, when they run, and how their results become DICOM objects.

A plug-in imports this package and nothing else of the archive; see docs/processors.md.
"""

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pacs.processing.api import (
    Choice,
    NotApplicable,
    Parameter,
    ParameterError,
    Pattern,
    Range,
    Run,
    Spec,
    Transient,
    processor,
)
from pacs.processing.outputs import (
    Blending,
    Finding,
    Images,
    Map,
    Mark,
    Measurements,
    Output,
    Overlay,
    Presentation,
    Probabilities,
    Report,
    Segment,
    Segmentation,
    Spot,
    Spots,
    Unplaced,
    Value,
    private_code,
)
from pacs.processing.planes import PLANES, facing, on_grid, slab, turned
from pacs.processing.radiographs import for_presentation, needs_grey, shown_bits, to_logarithm
from pacs.processing.series import Geometry, Series, Study, rescale
from pacs.processing.thumbnails import pictured
from pacs.processing.volumes import Storage, contributing, grid_over, noise, resampled, sampled

__all__ = [
    "PLANES",
    "Blending",
    "Choice",
    "Code",
    "Finding",
    "Geometry",
    "Images",
    "Map",
    "Mark",
    "Measurements",
    "NotApplicable",
    "Output",
    "Overlay",
    "Parameter",
    "ParameterError",
    "Pattern",
    "Presentation",
    "Probabilities",
    "Range",
    "Report",
    "Run",
    "Segment",
    "Segmentation",
    "Series",
    "Spec",
    "Spot",
    "Spots",
    "Storage",
    "Study",
    "Transient",
    "Unplaced",
    "Value",
    "codes",
    "contributing",
    "facing",
    "for_presentation",
    "grid_over",
    "needs_grey",
    "noise",
    "on_grid",
    "pictured",
    "private_code",
    "processor",
    "resampled",
    "rescale",
    "sampled",
    "shown_bits",
    "slab",
    "to_logarithm",
    "turned",
]
