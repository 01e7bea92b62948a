"""One picture of what went in and what came out, for the author of a processor: a tile for each series."""

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.processing.series import Series

TILE = 320
PER_ROW = 4
Picture = NDArray[np.uint8]
_COLOURS = ((255, 90, 60), (60, 200, 90), (80, 140, 255), (255, 210, 60), (220, 90, 230), (60, 220, 220))


def sheet(sources: Sequence[Series], results: Sequence[Dataset]) -> Picture:
    """Return the tiles as one RGB picture: the middle image of each source, then each result series at its fullest place."""
    tiles = [_titled(_grey(source, len(source) // 2), f"in: {source.modality} {len(source)}") for source in sources]
    series: dict[str, list[Dataset]] = {}
    for one in results:
        series.setdefault(str(one.SeriesInstanceUID), []).append(one)
    for images in series.values():
        title = f"{images[0].Modality} {images[0].get('SeriesDescription', '')}"
        tiles.append(_titled(_tile(sources[0], images), title))
    blank = np.zeros((TILE + 22, TILE, 3), np.uint8)
    tiles += [blank] * (-len(tiles) % min(PER_ROW, len(tiles)))
    across = min(PER_ROW, len(tiles))
    rows = [np.concatenate(tiles[at : at + across], axis=1) for at in range(0, len(tiles), across)]
    return np.concatenate(rows, axis=0)


def _tile(source: Series, images: Sequence[Dataset]) -> Picture:
    first = images[0]
    if first.Modality == "SEG":
        return _labelled(source, first)
    if "FloatPixelData" in first:
        planes = first.pixel_array.reshape(-1, int(first.Rows), int(first.Columns))
        middle = planes[len(planes) // 2]
        low, high = np.percentile(planes, (1, 99.5))
        return np.asarray(cv2.applyColorMap(_bytes(middle, low, max(high, low + 1e-6)), cv2.COLORMAP_INFERNO)[..., ::-1])
    if "PixelData" in first:
        middle = images[len(images) // 2]
        if int(middle.SamplesPerPixel) == 3:
            return np.asarray(middle.pixel_array, np.uint8)
        shown = Series(images)
        return _grey(shown, len(shown) // 2)
    return _words(_told(first))


def _grey(series: Series, index: int) -> Picture:
    values = series.frame(index)
    one = series.datasets[index]
    center, width = one.get("WindowCenter"), one.get("WindowWidth")
    if center not in (None, "") and width not in (None, ""):
        middle, wide = (float(v[0] if hasattr(v, "__iter__") and not isinstance(v, str) else v) for v in (center, width))
        low, high = middle - wide / 2, middle + wide / 2
    else:
        low, high = (float(v) for v in np.percentile(values, (1, 99.5)))
    grey = _bytes(values, low, max(high, low + 1e-6))
    return np.repeat((255 - grey if one.get("PhotometricInterpretation") == "MONOCHROME1" else grey)[..., None], 3, axis=2)


def _bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled: NDArray[np.uint8] = np.clip((values.astype(np.float32) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return scaled


def _labelled(source: Series, segmentation: Dataset) -> Picture:
    frames = segmentation.pixel_array.reshape(-1, int(segmentation.Rows), int(segmentation.Columns))
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    places: dict[int, list[tuple[int, NDArray[Any]]]] = {}
    for frame, group in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        number = 0  # a label map holds its numbers in the pixels
        for of in (shared, group):
            for item in of.get("SegmentIdentificationSequence") or []:
                number = int(item.ReferencedSegmentNumber)
        places.setdefault(_index(source, shared, group), []).append((number, frame))
    if not places:
        return _grey(source, len(source) // 2)
    fullest = max(places, key=lambda at: sum(int((frame > 0).sum()) for _, frame in places[at]))
    picture = _grey(source, fullest)
    for number, frame in places[fullest]:
        for label in [number] if number else [int(one) for one in np.unique(frame) if one]:
            mask = frame > 0 if number else frame == label
            colour = np.array(_COLOURS[(label - 1) % len(_COLOURS)])
            picture[mask] = (0.55 * picture[mask] + 0.45 * colour).astype(np.uint8)
    return picture


def _index(source: Series, shared: Dataset, group: Dataset) -> int:
    """Which image of the source a frame lies on."""
    place = next((item.ImagePositionPatient for of in (group, shared) for item in of.get("PlanePositionSequence") or []), None)
    if place is None or not source.first.get("ImagePositionPatient"):
        return 0
    away = [np.linalg.norm(np.array(one.ImagePositionPatient, float) - np.array(place, float)) for one in source.datasets]
    return int(np.argmin(away))


def _told(dataset: Dataset) -> Iterable[str]:
    """The measured numbers and coded answers of a report, or what a presentation state is."""
    if "ContentSequence" not in dataset:
        yield str(dataset.get("ContentDescription", "") or dataset.get("ContentLabel", ""))
        return
    for item in _items(dataset):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if item.get("ConceptNameCodeSequence") else ""
        if item.ValueType == "NUM" and item.get("MeasuredValueSequence"):
            measured = item.MeasuredValueSequence[0]
            yield f"{name}: {measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
        elif item.ValueType == "CODE" and item.RelationshipType == "CONTAINS":
            yield f"{name}: {item.ConceptCodeSequence[0].CodeMeaning}"
        elif item.ValueType == "TEXT" and name in ("Tracking Identifier", "Comment"):
            yield f"- {item.TextValue}"


def _items(dataset: Dataset) -> Iterable[Dataset]:
    for item in dataset.get("ContentSequence") or []:
        yield item
        yield from _items(item)


def _words(lines: Iterable[str]) -> Picture:
    picture = np.zeros((TILE, TILE, 3), np.uint8)
    for number, line in enumerate(list(lines)[:16]):
        _put(picture, line, 18 + 19 * number)
    return picture


def _titled(picture: Picture, title: str) -> Picture:
    scale = TILE / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    tile = np.zeros((TILE + 22, TILE, 3), np.uint8)
    top, left = 22 + (TILE - size[1]) // 2, (TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    _put(tile, title, 15)
    return tile


def _put(picture: Picture, text: str, at: int) -> None:
    shown = text.encode("ascii", "replace").decode()[:46]
    cv2.putText(picture, shown, (4, at), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (235, 235, 235), 1, cv2.LINE_AA)
