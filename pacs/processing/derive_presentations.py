"""Presentation states: how images are to be shown (PS3.3 A.33.1 grayscale, A.33.7 advanced blending), by highdicom.

Pixels are not touched; both refer to images of the source or to images that the same job has made.
"""

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom import pr
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.processing import headers
from pacs.processing.api import NotApplicable
from pacs.processing.enhanced import Frame
from pacs.processing.headers import Made, Provenance
from pacs.processing.outputs import Blending, Mark, Presentation
from pacs.processing.series import rescale

_POINTS = {"point": 1, "text": 1, "circle": 2, "ellipse": 4}


def presentation(output: Presentation, images: Sequence[Dataset], provenance: Provenance, index: int) -> Made:
    """Write a Grayscale Softcopy Presentation State over `images`, one data set for each image of `output.of`."""
    if len({rescale(one) for one in images}) > 1:
        raise NotApplicable("a presentation needs images of one rescale slope and intercept")
    wholes = _wholes(images)
    layer = pr.GraphicLayer(layer_name="RESULT", order=1, display_color=hd.color.CIELabColor.from_rgb(*output.color_rgb))
    window = None
    if output.window is not None:
        window = [headers.voi(*output.window, pr.SoftcopyVOILUTTransformation)]
    dataset = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=wholes,
        content_label="PRESENTATION",
        content_description=output.description[:64],
        graphic_layers=[layer] if output.marks else None,
        graphic_annotations=[_annotation(mark, images, layer, provenance, index) for mark in output.marks] or None,
        voi_lut_transformations=window,
        concept_name=None,
        **headers.equipment(provenance, index, wholes[0], output.description),
    )
    del dataset.DeviceSerialNumber  # highdicom asks for it; here it is optional (PS3.3 C.7.5.1), and what is optional goes
    return _finished(dataset, wholes[0], provenance)


def blending(output: Blending, under: Sequence[Dataset], over: Sequence[Dataset], provenance: Provenance, index: int) -> Made:
    """Write an Advanced Blending Presentation State: `under` in grey, `over` in colours."""
    frames = {str(one[0].get("FrameOfReferenceUID") or "") for one in (under, over)}
    if len(frames) != 1 or "" in frames:
        raise NotApplicable("blending needs two series of one frame of reference")
    below, above = _wholes(under), _wholes(over)
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    inputs = [
        pr.AdvancedBlending(
            referenced_images=images,
            blending_input_number=number,
            voi_lut_transformations=[headers.voi(center, width, pr.SoftcopyVOILUTTransformation)],
            palette_color_lut_transformation=_palette(colours),
        )
        for number, images, (center, width), colours in (
            (1, below, output.under_window, grey),
            (2, above, output.over_window, hot() if output.colours is None else output.colours),
        )
    ]
    display = pr.BlendingDisplay(
        blending_mode="FOREGROUND",
        blending_display_inputs=[pr.BlendingDisplayInput(1), pr.BlendingDisplayInput(2)],
        relative_opacity=min(max(output.opacity, 0.0), 1.0),
    )
    dataset = pr.AdvancedBlendingPresentationState(
        referenced_images=[*below, *above],
        blending=inputs,
        blending_display=[display],
        content_label="BLENDING",
        content_description=output.description[:64],
        **headers.equipment(provenance, index, below[0], output.description),
    )
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
        headers.put(
            dataset, keyword, below[0].get(keyword)
        )  # highdicom leaves this module out; PS3.3 Table A.33.7-1 demands it
    return _finished(dataset, below[0], provenance)


def hot() -> NDArray[np.uint8]:
    """Black over red and yellow to white, (256, 3)."""
    ramp = np.arange(256)[:, None] * 3 - np.array([0, 256, 512])
    return np.clip(ramp, 0, 255).astype(np.uint8)


def _wholes(images: Sequence[Dataset]) -> list[Dataset]:
    """The stored objects that images belong to, each once, fit for highdicom."""
    unique = {str(whole.SOPInstanceUID): whole for whole in (headers.whole_of(one) for one in images)}
    return [headers.complete(one) for one in unique.values()]


def _annotation(
    mark: Mark, images: Sequence[Dataset], layer: pr.GraphicLayer, provenance: Provenance, index: int
) -> pr.GraphicAnnotation:
    if not 0 <= mark.image < len(images):
        raise TypeError("Mark.image is not an index of the images")
    if len(mark.at) < 2 if mark.figure == "polyline" else len(mark.at) != _POINTS.get(mark.figure):
        raise TypeError(f"a {mark.figure} has another number of places")
    image = images[mark.image]
    # C.10.5.1.2: PIXEL counts from the corner of the first pixel, arrays from its centre.
    points = np.array([(column + 0.5, row + 0.5) for row, column in mark.at], np.float64)
    points = np.clip(points, 0, (int(image.Columns), int(image.Rows)))
    figures, texts = None, None
    if mark.figure != "text":
        figures = [pr.GraphicObject(mark.figure.upper(), points, units="PIXEL", is_filled=mark.is_filled)]
    if mark.text:
        anchor = (float(points[0, 0]), float(points[0, 1]))
        texts = [pr.TextObject(mark.text, units="PIXEL", anchor_point=anchor)]
    return pr.GraphicAnnotation(
        referenced_images=_wholes([image]),
        graphic_layer=layer,
        referenced_frame_number=image.number if isinstance(image, Frame) else None,
        graphic_objects=figures,
        text_objects=texts,
    )


def _palette(colours: NDArray[np.uint8]) -> hd.PaletteColorLUTTransformation:
    if colours.shape != (256, 3):
        raise TypeError("Blending.colours is an array (256, 3) of uint8")
    return hd.PaletteColorLUTTransformation(
        *(
            hd.PaletteColorLUT(first_mapped_value=0, lut_data=np.ascontiguousarray(colours[:, part], np.uint8), color=color)
            for part, color in enumerate(("red", "green", "blue"))
        )
    )


def _finished(dataset: Dataset, source: Dataset, provenance: Provenance) -> Made:
    headers.copy_image_attributes(dataset, source)
    headers.finish(dataset, source, provenance)
    # C.11.10: when it was made; the source's date, as for everything else.
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = headers.content_moment(source)
    return Made(dataset)
