"""What a series shows: region, plane, contrast, its phase, MR weighting, view, grey scale; and whether its values can be right.

Sources: Gueld MO et al., "Quality of DICOM header information for image categorization", Proc SPIE 4685 (2002) 280-287 (headers
err, so pixels are asked where they can answer); region and weighting as `processors.regions` and `processors.weightings` say;
plane by PS3.3 C.7.6.2.1.1; symmetry of frontal chest radiographs: Lehmann TM et al., "Automatic categorization of medical
images for content-based retrieval and data mining", Comput Med Imaging Graph 29 (2005) 143-155; values and quality as in
`quality-control`, on a sample of the images.

The header of the source is not rewritten. "Undetermined" is an answer, and so is a low certainty: only what two witnesses agree
on, or what the header states outright, is given with more than 0.9. Region of MR and PET comes from words alone. Contrast is
what the header says: that no agent is named proves nothing. Limbs are told from necks by the missing windpipe, so a neck whose
windpipe is outside the images is taken for a limb.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing import Code, Finding, NotApplicable, Range, Report, Run, Series, codes, private_code, processor
from processors.quality_control import OVERALL, QUESTIONS, Plane, judged, look, overall
from processors.regions import Slice, region_of, slice_of
from processors.weightings import weighting_of

PLANE = codes.DCM.AcquisitionPlane
CONTRAST = codes.DCM.ContrastAdministered
PHASE = codes.DCM.ContrastPhase
VIEW = codes.DCM.ImageView
INVERTED = private_code("INVERTED", "Inverted grey scale")
SCT = codes.SCT
VIEWS: Mapping[str, Code] = {
    "PA": SCT.PosteroAnterior,
    "AP": SCT.AnteroPosterior,
    "LL": SCT.LeftLateral,
    "RL": SCT.RightLateral,
    "CC": SCT.CranioCaudal,
    "MLO": Code("399368009", "SCT", "medio-lateral oblique"),
    "ML": Code("399260004", "SCT", "medio-lateral"),
    "LM": SCT.LateroMedial,
}
FRONTAL, LATERAL = private_code("FRONTAL", "Frontal"), private_code("LATERAL", "Lateral")
PLANES: Mapping[str, Code] = {
    "axial": SCT.Axial,
    "coronal": SCT.Coronal,
    "sagittal": SCT.Sagittal,
    "oblique": private_code("OBLIQUE", "Oblique"),
}
PHASES: Mapping[str, tuple[str, Code]] = {
    "none": (r"\b(WITHOUT|W/O|NON ?CONTRAST|NATIVE?|UNENHANCED|PLAIN)\b", private_code("NATIVE", "Without contrast")),
    "arterial": (r"\bART(ERIAL)?\b|\bCTA\b", private_code("ARTERIAL", "Arterial")),
    "venous": (r"\bPORTAL\b|\bVENOUS\b|\bPV\b|\bPORT\b", private_code("PORTALVENOUS", "Portal venous")),
    "late": (r"\bDELAY(ED)?\b|\bLATE\b|\bTARDIF\b", private_code("DELAYED", "Delayed")),
}
SECONDS = (("arterial", 15, 45), ("venous", 55, 110), ("late", 150, 1200))
"""After the start of the injection; between them the phases run into each other."""


@processor(
    "classify-series",
    version="2.0.0",
    makes=("SR",),
    when={"Modality": ["CT", "MR", "PT", "CR", "DX", "MG"]},
    memory_mb=4096,
)
def classify_series(
    series: Series,
    run: Run,
    *,
    slices: Annotated[int, Range(8, 200), "images that are looked at, evenly spread"] = 40,
    least_certainty: Annotated[float, Range(0, 1), "below it the answer is undetermined"] = 0.4,
) -> Iterator[Report]:
    """Body region, plane, contrast, weighting, view, plausible values and quality, each with its certainty and the reasons."""
    if series.modality not in ("CT", "MR", "PT", "CR", "DX", "MG"):
        raise NotApplicable("made for CT, MR, PT, CR, DX and MG")
    if not series.first.get("PixelData"):
        raise NotApplicable("its objects hold no pixels")
    cuts, planes, middle, why = _look(series, run, slices)
    findings = [region_of(series, cuts)]
    if series.modality in ("CT", "MR", "PT"):
        findings.append(plane_of(series))
    if series.modality in ("CT", "MR"):
        findings += [contrast_of(series), phase_of(series)]
    if series.modality == "MR":
        findings.append(weighting_of(series))
    if series.modality in ("CR", "DX", "MG"):
        findings += [view_of(series, middle), inversion_of(series, middle)]
    if planes:
        seen = judged(series, planes)
        findings += [one for one in seen if one.question == QUESTIONS["modality"]] + [overall(seen)]
    else:
        findings += [Finding(question, None, 0.0, why) for question in (QUESTIONS["modality"], OVERALL)]
    yield Report(
        series,
        [
            one if one.certainty >= least_certainty else Finding(one.question, None, one.certainty, one.reason)
            for one in findings
        ],
        "What it shows",
    )


def plane_of(series: Series) -> Finding:
    """Plane from Image Orientation (Patient): the axis nearest to the slice normal; PS3.3 C.7.6.2.1.1."""
    orientations = {
        tuple(round(float(v), 2) for v in one.ImageOrientationPatient)
        for one in series.datasets
        if one.get("ImageOrientationPatient")
    }
    if not orientations:
        return Finding(PLANE, None, 0.0, "no Image Orientation (Patient)")
    names = set()
    for one in orientations:
        normal = np.abs(np.cross(one[:3], one[3:]))
        axis = int(np.argmax(normal))
        names.add(("sagittal", "coronal", "axial")[axis] if normal[axis] > 0.8 else "oblique")
    if len(names) > 1:
        return Finding(PLANE, None, 0.2, f"several planes: {', '.join(sorted(names))}")
    name = names.pop()
    return Finding(PLANE, PLANES[name], 0.99, "from Image Orientation (Patient)")


def contrast_of(series: Series) -> Finding:
    """Whether a contrast agent was given, as far as the header says."""
    yes, no = SCT.Yes, SCT.No
    agent = series.text("ContrastBolusAgent").strip()
    if agent and not re.search(r"\b(NONE|NO|WITHOUT|W/O)\b", agent.upper()):
        return Finding(CONTRAST, yes, 0.95, "a contrast agent is named")
    if series.first.get("ContrastBolusAgentSequence"):
        return Finding(CONTRAST, yes, 0.95, "a contrast agent is coded")
    words = _words(series, "SeriesDescription", "ProtocolName", "StudyDescription")
    if re.search(r"\b(POST|CE|GD|GAD\w*|\+C|C\+|CONTRAST|KM|ARTERIAL|PORTAL|VENOUS)\b", words) and not re.search(
        r"\b(WITHOUT|W/?O|NON|NO|PRE|NATIVE?)\b", words
    ):
        return Finding(CONTRAST, yes, 0.7, "words of the description")
    if re.search(r"\b(WITHOUT|W/?O|NON ?CONTRAST|NATIVE?|UNENHANCED|PLAIN)\b", words):
        return Finding(CONTRAST, no, 0.7, "words of the description")
    if agent:
        return Finding(CONTRAST, no, 0.8, "the agent's field says none")
    return Finding(CONTRAST, None, 0.3, "no agent is named, which does not prove that none was given")


def phase_of(series: Series) -> Finding:
    """Phase of the contrast agent: from the series' own words, else from the time since the injection began."""
    if _is(contrast_of(series), SCT.No):
        return Finding(PHASE, PHASES["none"][1], 0.7, "no contrast agent")
    for keyword in ("SeriesDescription", "ProtocolName"):
        words = _words(series, keyword)
        named = [code for pattern, code in PHASES.values() if re.search(pattern, words)]
        if len(named) == 1:
            return Finding(PHASE, named[0], 0.7, "words of the description")
        if named:
            return Finding(PHASE, None, 0.3, "the description names several phases")
    passed = _seconds_since_injection(series)
    if passed is None:
        return Finding(PHASE, None, 0.1, "neither words nor the time of the injection tell")
    for name, first, last in SECONDS:
        if first <= passed <= last:
            return Finding(PHASE, PHASES[name][1], 0.6, f"{passed:.0f} s after the injection began")
    return Finding(PHASE, None, 0.3, f"{passed:.0f} s after the injection began lies between the phases")


def view_of(series: Series, shown: NDArray[np.float32] | None = None) -> Finding:
    """Radiographic view from View Position, the view code, or words; of a chest also from the image's symmetry."""
    position = series.text("ViewPosition").upper().strip()
    if position in VIEWS:
        return Finding(VIEW, VIEWS[position], 0.9, "View Position")
    items = series.first.get("ViewCodeSequence") or []
    if items and items[0].get("CodeValue"):
        item = items[0]
        code = Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.get("CodeMeaning") or "View"))
        return Finding(VIEW, code, 0.9, "View Code Sequence")
    words = _words(series, "SeriesDescription", "ProtocolName", "StudyDescription")
    for name in ("MLO", "CC", "PA", "AP"):
        if re.search(rf"\b{name}\b", words):
            return Finding(VIEW, VIEWS[name], 0.7, "words of the description")
    if re.search(r"\bLAT(ERAL)?\b", words):
        return Finding(VIEW, LATERAL, 0.7, "words of the description")
    if shown is None or series.modality == "MG" or not _is(region_of(series, ()), SCT.Chest):
        return Finding(VIEW, None, 0.1, "neither View Position nor words tell")
    alike = symmetry(shown)
    reason = f"left and right halves correlate with {alike:.2f}"
    # Frontal chests reach 0.9, lateral ones 0.75; what is less alike may as well be turned or ill.
    return Finding(VIEW, FRONTAL, 0.6, reason) if alike > 0.85 else Finding(VIEW, None, 0.3, reason)


def inversion_of(series: Series, shown: NDArray[np.float32] | None) -> Finding:
    """Whether air beside the body would be shown bright: corners of the image against its middle."""
    if shown is None:
        return Finding(INVERTED, None, 0.0, "no pixels to look at")
    small = cv2.resize(shown, (100, 100), interpolation=cv2.INTER_AREA)
    corners = [small[rows, columns] for rows in (slice(0, 8), slice(92, 100)) for columns in (slice(0, 8), slice(92, 100))]
    # Where the corner lies among all grey levels; collimators leave corners at either end, so most of them must agree.
    middles = [float(np.median(one)) for one in corners]
    ranks = [float((small < one).mean() + (small <= one).mean()) / 2 for one in middles]
    dark, bright = sum(one < 0.3 for one in ranks), sum(one > 0.7 for one in ranks)
    reason = f"{dark} dark and {bright} bright corners as shown"
    if dark >= 3 and not bright:
        return Finding(INVERTED, SCT.No, 0.6 + 0.1 * (dark == 4), reason)
    if bright >= 3 and not dark:
        return Finding(INVERTED, SCT.Yes, 0.6, reason)
    return Finding(INVERTED, None, 0.3, reason)


def symmetry(shown: NDArray[np.float32]) -> float:
    """Return the correlation of an image with its mirror image, at the axis where it is largest."""
    small = cv2.GaussianBlur(cv2.resize(shown, (64, 64), interpolation=cv2.INTER_AREA), (0, 0), 1.5)
    best = -1.0
    for axis in range(24, 41):
        reach = min(axis, 64 - axis)
        one, other = small[8:56, axis - reach : axis], small[8:56, axis : axis + reach][:, ::-1]
        if one.std() > 0 and other.std() > 0:
            best = max(best, float(np.corrcoef(one.ravel(), other.ravel())[0, 1]))
    return best


def _look(series: Series, run: Run, slices: int) -> tuple[list[Slice], list[Plane], NDArray[np.float32] | None, str]:
    """Return make-up of axial CT slices, quality of all, the middle image as it is shown, and why there is none of these."""
    if "LOCALIZER" in series.text("ImageType"):
        return [], [], None, "not asked of localizers"
    chosen = np.unique(np.linspace(0, len(series) - 1, slices).round().astype(int))
    is_axial = series.modality == "CT" and _is(plane_of(series), SCT.Axial)
    cuts, planes = [], []
    middle: NDArray[np.float32] | None = None
    try:
        for done, index in enumerate(int(one) for one in chosen):
            frame = series.frame(index)
            planes.append(look(frame, series, index))
            spacing = series.datasets[index].get("PixelSpacing")
            if is_axial and spacing:
                factor = max(1, round(3.0 / float(spacing[0])))
                small = cv2.resize(frame, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
                cut = slice_of(small, float(spacing[0]) * factor)
                cuts += [] if cut is None else [cut]
            if done == len(chosen) // 2:
                is_inverse = series.datasets[index].get("PhotometricInterpretation") == "MONOCHROME1"
                middle = -frame if is_inverse else frame
            run.progress(0.9 * (done + 1) / len(chosen), "looking at images")
    except NotApplicable as reason:
        # The header still tells something.
        return [], [], None, str(reason)
    return cuts, planes, middle, ""


def _seconds_since_injection(series: Series) -> float | None:
    injected, acquired = series.text("ContrastBolusStartTime"), series.text("AcquisitionTime")
    if not re.match(r"\d{6}", injected) or not re.match(r"\d{6}", acquired):
        return None
    start, end = (3600 * int(one[:2]) + 60 * int(one[2:4]) + float(one[4:]) for one in (injected, acquired))
    return end - start


def _is(finding: Finding, code: Code) -> bool:
    return finding.answer is not None and finding.answer == code


def _words(series: Series, *keywords: str) -> str:
    return " ".join(series.text(keyword) for keyword in keywords).upper()
