"""Is the series whole, and are its pixels fit to be worked on: each question with an answer, how sure, and why.

Sources: Immerkaer J, Comput Vis Image Underst 64 (1996) 300-302 (noise); Mortamet B et al., "Automatic quality assessment
in structural brain magnetic resonance imaging", Magn Reson Med 62 (2009) 365-372, and Esteban O et al., "MRIQC", PLoS ONE
12 (2017) e0184661 (numbers of an image alone, no truth needed); Kuglin CD, Hines DC, "The phase correlation image alignment
method", Proc IEEE Int Conf Cybernetics and Society (1975) 163-165 (motion); geometry after PS3.3 C.7.6.2.1.1.

Asked are: missing, duplicate, uneven and tilted slices; values that do not look like the modality; clipped values; noise;
slices without content; metal; of CT, motion between slices, which lie beside what both neighbours show. Motion within a slice,
and in MR, looks otherwise and is not asked for. A defect is a hint to look, not a verdict: what is normal depends on protocol
and body part.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing import Code, Finding, NotApplicable, Range, Report, Run, Series, noise, private_code, processor

FINE, DEFECT = private_code("NODEFECT", "No defect found"), private_code("DEFECT", "Defect found")
OVERALL = private_code("QUALITY", "Quality")
QUESTIONS = {
    name: private_code(f"QC{name.upper()}", meaning)
    for name, meaning in {
        "missing": "Missing slices",
        "duplicate": "Duplicate slices",
        "spacing": "Spacing of slices",
        "tilt": "Tilted gantry",
        "modality": "Values fit the modality",
        "clipping": "Clipped values",
        "noise": "Noise",
        "black": "Slices without content",
        "metal": "Metal",
        "motion": "Motion between slices",
    }.items()
}
METAL_HU = 2500.0
MOTION_SIZE = 256
"""Pixels across, at most, of the images that motion is looked for in."""


@dataclass(frozen=True)
class Plane:
    """What is kept of one image: its digest and some numbers, so that one image at a time is in memory."""

    digest: str
    low: float
    high: float
    spread: float
    at_low: float
    at_high: float
    near_high: float
    noise: float
    signal: float
    metal_mm2: float
    sample: NDArray[np.float32]
    small: NDArray[np.float32]


@processor(
    "quality-control", version="1.1.0", makes=("SR",), when={"Modality": ["CT", "MR", "PT", "CR", "DX", "MG"]}, memory_mb=4096
)
def quality_control(
    series: Series,
    run: Run,
    *,
    noise_hu: Annotated[float, Range(1, 500, "HU"), "CT: more noise is a defect"] = 60.0,
    noise_share: Annotated[float, Range(0.01, 1), "elsewhere: more noise than this share of the signal is a defect"] = 0.2,
    clipped_percent: Annotated[float, Range(0, 50, "%"), "more pixels than this at the end of the range are a defect"] = 0.5,
    metal_mm3: Annotated[float, Range(0, 100000, "mm3"), "CT: more above 2500 HU is a defect"] = 100.0,
    motion_mm: Annotated[float, Range(0.5, 20, "mm"), "CT: slices that lie further beside their neighbours are a defect"] = 1.5,
) -> Iterator[Report]:
    """Missing, duplicate, uneven or tilted slices, wrong values, clipping, noise, empty slices, metal, motion."""
    if series.modality not in ("CT", "MR", "PT", "CR", "DX", "MG"):
        raise NotApplicable("made for CT, MR, PT, CR, DX and MG")
    if "LOCALIZER" in series.text("ImageType"):
        raise NotApplicable("not for localizers")
    planes = []
    for index, frame in enumerate(series.frames()):
        planes.append(look(frame, series, index))
        run.progress(0.9 * (index + 1) / len(series), "looking")
    findings = []
    if series.modality in ("CT", "MR", "PT"):
        findings += list(_stack(series, planes))
    findings += judged(series, planes, noise_hu=noise_hu, noise_share=noise_share, clipped_percent=clipped_percent)
    if series.modality == "CT":
        findings += [_metal(series, planes, metal_mm3), _motion(series, planes, motion_mm)]
    yield Report(series, [overall(findings), *findings], "Quality control")


def judged(
    series: Series, planes: Sequence[Plane], *, noise_hu: float = 60.0, noise_share: float = 0.2, clipped_percent: float = 0.5
) -> list[Finding]:
    """Return what single images tell, all of a series or a sample: values, clipping, noise, content."""
    return [
        _modality(series, planes),
        _clipping(series, planes, clipped_percent),
        _noise(series, planes, noise_hu, noise_share),
        _black(planes),
    ]


def overall(findings: Sequence[Finding]) -> Finding:
    """Return the one finding that sums up the others."""
    bad = [one.question.meaning.lower() for one in findings if one.answer is DEFECT]
    unknown = sum(one.answer is None for one in findings)
    reason = ", ".join(bad) if bad else f"{len(findings) - unknown} questions without a defect, {unknown} without an answer"
    sure = max((one.certainty for one in findings if one.answer is DEFECT), default=0.9)
    return Finding(OVERALL, DEFECT if bad else FINE, sure, reason)


def look(frame: NDArray[np.float32], series: Series, index: int) -> Plane:
    """Return what is kept of one image in modality units."""
    low, high = float(frame.min()), float(frame.max())
    spacing = series.datasets[index].get("PixelSpacing") or [1.0, 1.0]
    foreground = frame > frame.mean()
    shrink = max(1, round(max(frame.shape) / MOTION_SIZE))
    near = frame >= high - 0.02 * (high - low)
    return Plane(
        digest=hashlib.sha256(np.ascontiguousarray(frame).tobytes()).hexdigest(),
        low=low,
        high=high,
        spread=float(frame.std()),
        at_low=float((frame == low).mean()),
        at_high=float((frame == high).mean()),
        near_high=float(near.mean()),
        noise=noise(frame),
        signal=float(np.median(frame[foreground])) if foreground.any() else low,
        metal_mm2=float((frame > METAL_HU).sum()) * float(spacing[0]) * float(spacing[1]),
        sample=frame[::8, ::8].copy(),
        small=cv2.resize(frame, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA) if shrink > 1 else frame,
    )


def _stack(series: Series, planes: Sequence[Plane]) -> Iterator[Finding]:
    """Missing, duplicate, uneven, tilted."""
    places = _places(series)
    if places is None or len(series) < 3:
        why = "fewer than three slices" if len(series) < 3 else "positions or orientations are missing or differ"
        for name in ("missing", "spacing", "tilt"):
            yield Finding(QUESTIONS[name], None, 0.0, why)
        yield _duplicates(planes, np.zeros(0))
        return
    along, sideways = places
    gaps = np.diff(along)
    apart = gaps[gaps > 1e-3]
    gap = float(np.median(apart)) if apart.size else 0.0
    lost = int(sum(max(round(one / gap) - 1, 0) for one in apart)) if gap else 0
    if not gap:
        yield Finding(QUESTIONS["missing"], None, 0.0, "all slices lie at one place")
    elif lost:
        holes = int((apart > 1.5 * gap).sum())
        yield Finding(QUESTIONS["missing"], DEFECT, 0.95, f"{lost} missing in {holes} gaps of a stack {gap:.3g} mm apart")
    else:
        yield Finding(
            QUESTIONS["missing"], FINE, 0.95, f"{len(series)} slices {gap:.3g} mm apart without a gap; the ends cannot be known"
        )
    yield _duplicates(planes, gaps)
    whole = apart[apart < 1.5 * gap] if gap else apart
    uneven = float(np.abs(whole / gap - 1).max()) if gap and whole.size else 0.0
    answer = DEFECT if uneven > 0.01 + 1e-3 / max(gap, 1e-3) else FINE
    yield Finding(QUESTIONS["spacing"], answer, 0.95, f"spacing deviates from its median by at most {100 * uneven:.2g} %")
    shear = float(np.degrees(np.arctan2(np.abs(sideways).max() / max(len(gaps), 1), gap))) if gap else 0.0
    told = abs(series.number("GantryDetectorTilt") or 0.0)
    if shear > 0.5:
        yield Finding(QUESTIONS["tilt"], DEFECT, 0.95, f"each slice is shifted sideways against the last: {shear:.1f} degrees")
    elif told > 0.5:
        yield Finding(QUESTIONS["tilt"], DEFECT, 0.6, "the header tells a tilt that the positions do not show")
    else:
        yield Finding(QUESTIONS["tilt"], FINE, 0.95, "slices lie straight above each other")


def _places(series: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Places along the normal, and how far each slice is shifted sideways against the first (mm)."""
    if any(not one.get("ImagePositionPatient") or not one.get("ImageOrientationPatient") for one in series.datasets):
        return None
    orientation = np.array(series.first.ImageOrientationPatient, float)
    if any(not np.allclose(np.array(one.ImageOrientationPatient, float), orientation, atol=1e-3) for one in series.datasets):
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    places = np.array([[float(v) for v in one.ImagePositionPatient] for one in series.datasets])
    along = places @ normal
    sideways = np.linalg.norm((places - places[0]) - np.outer(along - along[0], normal), axis=1)
    return along, sideways


def _duplicates(planes: Sequence[Plane], gaps: NDArray[np.float64]) -> Finding:
    same_place = int((gaps <= 1e-3).sum())
    digests = [one.digest for one in planes if one.spread > 0]
    same_pixels = len(digests) - len(set(digests))
    if same_place or same_pixels:
        return Finding(
            QUESTIONS["duplicate"],
            DEFECT,
            0.95,
            f"{same_place} at a place already taken, {same_pixels} with pixels already seen",
        )
    return Finding(QUESTIONS["duplicate"], FINE, 0.95, "no two slices share a place or their pixels")


def _modality(series: Series, planes: Sequence[Plane]) -> Finding:
    question = QUESTIONS["modality"]
    values = np.concatenate([one.sample.ravel() for one in planes])
    low, high = float(values.min()), float(values.max())
    if series.modality == "CT":
        air, soft = float(((values < -900) & (values > -1300)).mean()), float(((values > -200) & (values < 300)).mean())
        if low >= 0 and air == 0:
            return Finding(question, DEFECT, 0.8, "no value below zero: not Hounsfield units, or the rescale was lost")
        if soft < 0.02:
            return Finding(question, DEFECT, 0.7, f"only {100 * soft:.1f} % of the pixels are as dense as soft tissue")
        return Finding(question, FINE, 0.8, f"{100 * air:.0f} % air, {100 * soft:.0f} % soft tissue")
    if low < 0 and series.modality in ("MR", "PT"):
        air = float(((values < -900) & (values > -1300)).mean())
        if air > 0.05:
            return Finding(question, DEFECT, 0.8, f"{100 * air:.0f} % of the pixels at -1000: looks like CT")
        if series.modality == "PT" and float((values < 0).mean()) > 0.2:
            return Finding(question, DEFECT, 0.6, "a fifth of the activity is below zero")
    if high <= low:
        return Finding(question, DEFECT, 0.9, "all pixels have one value")
    return Finding(question, FINE, 0.6, "nothing speaks against it")


def _clipping(series: Series, planes: Sequence[Plane], most_percent: float) -> Finding:
    question = QUESTIONS["clipping"]
    top = max(one.high for one in planes)
    at_top = 100 * float(np.mean([one.at_high if one.high == top else 0.0 for one in planes]))
    close = 100 * float(np.mean([one.near_high if one.high == top else 0.0 for one in planes]))
    bottom = min(one.low for one in planes)
    at_bottom = 100 * float(np.mean([one.at_low if one.low == bottom else 0.0 for one in planes]))
    # A spike: the last value holds most of the last fiftieth of the range.
    if at_top > most_percent and at_top > 0.5 * close:
        return Finding(question, DEFECT, 0.85, f"{at_top:.2g} % of the pixels have the largest value")
    # Background lies at the lower end in CT, MR and PET, as air does in some radiographs; half an image is more than that.
    if series.modality in ("CR", "DX") and at_bottom > 50:
        return Finding(question, DEFECT, 0.6, f"{at_bottom:.0f} % of the pixels have the smallest value")
    return Finding(question, FINE, 0.85, f"{at_top:.2g} % of the pixels at the upper end")


def _noise(series: Series, planes: Sequence[Plane], noise_hu: float, noise_share: float) -> Finding:
    question = QUESTIONS["noise"]
    full = [one for one in planes if one.spread > 0]
    if not full:
        return Finding(question, None, 0.0, "no image has content")
    sigma = float(np.median([one.noise for one in full]))
    if series.modality == "CT":
        answer = DEFECT if sigma > noise_hu else FINE
        return Finding(question, answer, 0.8, f"standard deviation {sigma:.3g} HU; the limit is {noise_hu:g} HU")
    signal = float(np.median([one.signal - one.low for one in full]))
    share = sigma / signal if signal > 0 else 0.0
    answer = DEFECT if share > noise_share else FINE
    return Finding(question, answer, 0.7, f"{100 * share:.3g} % of the signal; the limit is {100 * noise_share:g} %")


def _black(planes: Sequence[Plane]) -> Finding:
    typical = float(np.median([one.spread for one in planes]))
    empty = [index for index, one in enumerate(planes) if one.spread < 1e-6 or one.spread < 0.02 * typical]
    if empty:
        return Finding(QUESTIONS["black"], DEFECT, 0.9, f"{len(empty)} of {len(planes)} images have no content")
    return Finding(QUESTIONS["black"], FINE, 0.9, "every image has content")


def _metal(series: Series, planes: Sequence[Plane], most_mm3: float) -> Finding:
    thickness = series.number("SpacingBetweenSlices") or series.number("SliceThickness") or 1.0
    volume = sum(one.metal_mm2 for one in planes) * thickness
    answer: Code = DEFECT if volume > most_mm3 else FINE
    return Finding(QUESTIONS["metal"], answer, 0.8, f"{volume:.0f} mm3 above {METAL_HU:g} HU; the limit is {most_mm3:g} mm3")


def _motion(series: Series, planes: Sequence[Plane], most_mm: float) -> Finding:
    """Each slice against the mean of both neighbours: what is anatomy changes evenly, so that hardly a shift remains."""
    question = QUESTIONS["motion"]
    places = _places(series)
    spacing = series.first.get("PixelSpacing")
    if places is None or not spacing or len(planes) < 5 or len({one.small.shape for one in planes}) > 1:
        return Finding(question, None, 0.0, "fewer than five slices, or sizes or positions are missing or differ")
    gaps = np.diff(places[0])
    usual = float(np.median(gaps))
    pixel = float(spacing[0]) * int(series.first.Rows) / planes[0].small.shape[0]
    window = cv2.createHanningWindow(planes[0].small.shape[::-1], cv2.CV_32F)
    low, high = np.percentile(np.concatenate([one.sample.ravel() for one in planes]), (1, 99.5))
    small = [np.clip(one.small, low, high).astype(np.float32) for one in planes]
    shifts = []
    for index in range(1, len(planes) - 1):
        if not 0.5 * usual < gaps[index - 1] < 1.5 * usual or not 0.5 * usual < gaps[index] < 1.5 * usual:
            continue
        (right, down), response = cv2.phaseCorrelate(small[index], (small[index - 1] + small[index + 1]) / 2, window)
        # A weak peak tells of other content, not of the same content elsewhere.
        shifts.append(float(np.hypot(right, down)) * pixel if response > 0.6 else 0.0)
    if len(shifts) < 3:
        return Finding(question, None, 0.0, "too few slices lie between two neighbours")
    beside = sum(shift > most_mm for shift in shifts)
    reason = (
        f"{beside} of {len(shifts)} slices lie more than {most_mm:g} mm beside their neighbours, at most {max(shifts):.1f} mm"
    )
    return Finding(question, DEFECT if beside >= max(2, 0.05 * len(shifts)) else FINE, 0.8, reason)
