"""What a series shows, from its header and, on CT, from its pixels: region, plane, contrast, weighting, view.

Sources: region and tokens after PS3.16 CID 4031 (common anatomic regions); MR weighting by echo and repetition times as in
McRobbie DW et al., "MRI from Picture to Proton", ch. 3, and Gueld MO et al., "Quality of DICOM header information for image
categorization", Proc SPIE 4685 (2002) 280-287, which is why pixels are asked where they can answer and headers alone are never
certain. The source header is not rewritten; "undetermined" is an answer.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing import Code, Finding, NotApplicable, Range, Report, Run, Series, codes, private_code, processor

REGION = Code("363698007", "SCT", "Finding Site")
PLANE = codes.DCM.AcquisitionPlane
CONTRAST = codes.DCM.ContrastAdministered
VIEW = codes.DCM.ImageView
WEIGHTING = private_code("MRWEIGHTING", "MR weighting")

SCT = codes.SCT
REGIONS: Mapping[str, Code] = {
    "head": SCT.Head,
    "neck": SCT.Neck,
    "chest": SCT.Chest,
    "abdomen": SCT.Abdomen,
    "pelvis": SCT.Pelvis,
    "head neck": SCT.HeadAndNeck,
    "neck chest": SCT.NeckAndChest,
    "chest abdomen": SCT.ChestAndAbdomen,
    "abdomen pelvis": SCT.AbdomenAndPelvis,
    "chest abdomen pelvis": SCT.ChestAbdomenAndPelvis,
    "neck chest abdomen": SCT.NeckChestAndAbdomen,
    "neck chest abdomen pelvis": SCT.NeckChestAbdomenAndPelvis,
    "whole body": SCT.EntireBody,
    "breast": SCT.Breast,
    "spine": SCT.Spine,
    "knee": SCT.Knee,
    "hand": SCT.Hand,
    "foot": SCT.Foot,
    "shoulder": SCT.Shoulder,
    "hip": SCT.Hip,
}
# Longer words first: "ABDOMENPELVIS" must not be read as "ABDOMEN".
TOKENS: Sequence[tuple[str, str]] = (
    (r"WHOLE ?BODY|WBODY|\bWB[A-Z]?\b", "whole body"),
    (r"CHEST.?ABD\w*.?PEL\w*|THORAX.?ABD\w*.?PEL\w*|\bCAP\b|\bTAP\b", "chest abdomen pelvis"),
    (r"CHEST.?ABD\w*|THORAX.?ABD\w*", "chest abdomen"),
    (r"ABD\w*.?PEL\w*", "abdomen pelvis"),
    (r"HEAD.?NECK", "head neck"),
    (r"[CTL]-?SPINE|SPINE|LUMBAR|CERVICAL SP", "spine"),
    (r"BREAST|MAMMO", "breast"),
    (r"BRAIN|HEAD|SKULL|CRANI|NEURO", "head"),
    (r"\bNECK\b|LARYNX", "neck"),
    (r"CHEST|THORAX|THORAC|LUNG", "chest"),
    (r"ABDOM|LIVER|KIDNEY|PANCREAS", "abdomen"),
    (r"PELVI|PROSTATE|BLADDER", "pelvis"),
    (r"KNEE", "knee"),
    (r"\bHAND\b", "hand"),
    (r"\bFOOT\b", "foot"),
    (r"SHOULDER", "shoulder"),
    (r"\bHIPS?\b", "hip"),
)
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
PLANES: Mapping[str, Code] = {
    "axial": SCT.Axial,
    "coronal": SCT.Coronal,
    "sagittal": SCT.Sagittal,
    "oblique": private_code("OBLIQUE", "Oblique"),
}


@dataclass(frozen=True)
class Slice:
    """What one CT slice is made of: body area in cm2 and width in mm; lung, bone, fat as shares of the body."""

    area_cm2: float
    width_mm: float
    lung: float
    bone: float
    fat: float


@processor(
    "classify-series",
    version="1.0.0",
    makes=("SR",),
    when={"Modality": ["CT", "MR", "PT", "CR", "DX", "MG"]},
    memory_mb=4096,
)
def classify_series(
    series: Series,
    run: Run,
    *,
    slices: Annotated[int, Range(8, 200), "CT slices that are looked at, evenly spread"] = 40,
    least_certainty: Annotated[float, Range(0, 1), "below it the answer is undetermined"] = 0.4,
) -> Iterator[Report]:
    """Body region, plane, contrast, MR weighting and radiographic view, each with its certainty and the reasons."""
    if series.modality not in ("CT", "MR", "PT", "CR", "DX", "MG"):
        raise NotApplicable("made for CT, MR, PT, CR, DX and MG")
    if "PixelData" not in series.first:
        raise NotApplicable("its objects hold no pixels")
    findings = [_region(series, run, slices)]
    if series.modality in ("CT", "MR", "PT"):
        findings.append(plane_of(series))
    if series.modality in ("CT", "MR"):
        findings.append(contrast_of(series))
    if series.modality == "MR":
        findings.append(weighting_of(series))
    if series.modality in ("CR", "DX", "MG"):
        findings.append(view_of(series))
    yield Report(
        series,
        [
            one if one.certainty >= least_certainty else Finding(one.question, None, one.certainty, one.reason)
            for one in findings
        ],
        "What it shows",
    )


def region_of_text(text: str) -> str:
    """Return the region that words name, "" where none does."""
    upper = re.sub(r"[^A-Z0-9]+", " ", text.upper()).strip()
    return next((region for pattern, region in TOKENS if re.search(pattern, upper)), "")


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
    words = _words(series)
    if re.search(r"\b(POST|CE|GD|GAD\w*|\+C|C\+|CONTRAST|KM|ARTERIAL|PORTAL|VENOUS)\b", words) and not re.search(
        r"\b(WITHOUT|W/?O|NON|NO|PRE|NATIVE?)\b", words
    ):
        return Finding(CONTRAST, yes, 0.7, "words of the description")
    if re.search(r"\b(WITHOUT|W/?O|NON ?CONTRAST|NATIVE?|UNENHANCED)\b", words):
        return Finding(CONTRAST, no, 0.7, "words of the description")
    if agent:
        return Finding(CONTRAST, no, 0.8, "the agent's field says none")
    return Finding(CONTRAST, None, 0.3, "no agent is named, which does not prove that none was given")


def weighting_of(series: Series) -> Finding:
    """MR weighting from words first, then from sequence and times (TE, TR, TI in ms)."""
    words = (
        f"{_words(series)} {series.text('SequenceName').upper()} {' '.join(series.text('ImageType').upper().split(chr(92)))}"
    )
    named = (
        (r"\bADC\b", "ADC", "Apparent diffusion coefficient"),
        (r"DWI|DIFF|TRACEW|EP_B|\bB ?1000\b", "DWI", "Diffusion weighted"),
        (r"FLAIR|DARK.?FL|TIRM_DF", "FLAIR", "FLAIR"),
        (r"STIR", "STIR", "STIR"),
        (r"\bTOF\b|FI3D_TOF", "TOF", "Time of flight angiography"),
        (r"\bSWI\b|SWAN|VENOBOLD", "SWI", "Susceptibility weighted"),
        (r"T2 ?\*|T2 ?STAR|\bFFE\b.*T2", "T2STAR", "T2* weighted"),
        (r"\bLOC\w*\b|SCOUT|SURVEY|PLANE_?LOC", "LOCALIZER", "Localizer"),
    )
    for pattern, value, meaning in named:
        if re.search(pattern, words):
            return Finding(WEIGHTING, private_code(value, meaning), 0.85, "words of description, sequence or image type")
    times = _weighting_by_times(series)
    for pattern, value in ((r"\bT1", "T1"), (r"\bT2", "T2"), (r"\bPD\b|PROTON", "PD")):
        if re.search(pattern, words):
            agrees = times is not None and times[0] == value
            return Finding(
                WEIGHTING,
                private_code(value, f"{value} weighted"),
                0.95 if agrees else 0.7,
                "words of the description" + (" and echo and repetition times agree" if agrees else ""),
            )
    if times is None:
        return Finding(WEIGHTING, None, 0.1, "neither words nor times tell")
    meaning = {"FLAIR": "FLAIR", "T2STAR": "T2* weighted"}.get(times[0], f"{times[0]} weighted")
    return Finding(WEIGHTING, private_code(times[0], meaning), times[1], times[2])


def view_of(series: Series) -> Finding:
    """Radiographic view from View Position, the view code, or words."""
    position = series.text("ViewPosition").upper().strip()
    if position in VIEWS:
        return Finding(VIEW, VIEWS[position], 0.9, "View Position")
    items = series.first.get("ViewCodeSequence") or []
    if items and items[0].get("CodeValue"):
        item = items[0]
        code = Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.get("CodeMeaning") or "View"))
        return Finding(VIEW, code, 0.9, "View Code Sequence")
    words = _words(series)
    for name in ("MLO", "CC", "PA", "AP"):
        if re.search(rf"\b{name}\b", words):
            return Finding(VIEW, VIEWS[name], 0.7, "words of the description")
    if re.search(r"\bLAT(ERAL)?\b", words):
        return Finding(VIEW, private_code("LATERAL", "Lateral"), 0.7, "words of the description")
    return Finding(VIEW, None, 0.1, "neither View Position nor words tell")


def slice_of(hounsfield: NDArray[np.float32], pixel_mm: float) -> Slice | None:
    """Reckon what one CT slice is made of; None where there is no body in it."""
    solid = cv2.morphologyEx((hounsfield > -300).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    outline = (parts == largest).astype(np.uint8)
    outside = np.pad(1 - outline, 1, constant_values=1)
    _, holes = cv2.connectedComponents(outside, connectivity=4)
    body = (outline > 0) | ((holes != holes[0, 0]) & (outside > 0))[1:-1, 1:-1]
    area = int(body.sum())
    area_cm2 = area * pixel_mm**2 / 100
    if area_cm2 < 20:
        return None
    inside = hounsfield[body]
    return Slice(
        area_cm2=area_cm2,
        width_mm=float(stats[largest, cv2.CC_STAT_WIDTH]) * pixel_mm,
        lung=float(((inside > -960) & (inside < -500)).mean()),
        bone=float((inside > 200).mean()),
        fat=float(((inside > -190) & (inside < -30)).mean()),
    )


def region_of_slices(found: Sequence[Slice], covered_mm: float) -> tuple[str, float, str]:
    """Return region, certainty and reason from the make-up of evenly spread slices."""
    if not found:
        return "", 0.0, "no body in the images"
    kinds = [_kind(one) for one in found]
    share = {kind: kinds.count(kind) / len(kinds) for kind in ("head", "neck", "chest", "belly")}
    # Five centimetres of a region count as a region, else a chest CT would always have a neck and an abdomen, too.
    enough = max(0.15, min(0.5, 80 / max(covered_mm, 1)))
    there = [kind for kind in ("head", "neck", "chest", "belly") if share[kind] >= enough]
    told = ", ".join(f"{kind} {share[kind]:.0%}" for kind in share if share[kind])
    if not there:
        return "", 0.2, f"slices look like {told}"
    if "head" in there and "belly" in there:
        return "whole body", 0.7, f"slices look like {told}"
    if there == ["belly"]:
        return ("abdomen pelvis" if covered_mm > 350 else "abdomen"), 0.55, f"slices look like {told}"
    # The belly of a long scan reaches the pelvis: from the diaphragm to the pelvic floor is some 40 cm.
    belly_mm = share["belly"] * covered_mm
    words = [one for one in there if one != "belly"] + (["abdomen"] if "belly" in there else [])
    if belly_mm > 330:
        words.append("pelvis")
    name = " ".join(words)
    return (name, 0.75, f"slices look like {told}") if name in REGIONS else (words[0], 0.5, f"slices look like {told}")


def _kind(one: Slice) -> str:
    if one.lung > 0.10 and one.area_cm2 > 250:
        return "chest"
    if one.area_cm2 < 330 and one.width_mm < 230:
        return "head" if one.bone > 0.13 else "neck"
    return "belly"


def _region(series: Series, run: Run, slices: int) -> Finding:
    named = region_of_text(series.text("BodyPartExamined"))
    source = "Body Part Examined"
    if not named:
        named, source = region_of_text(_words(series)), "words of the description"
    if not named and series.modality == "MG":
        named, source = "breast", "the modality"
    seen, certainty, reason = ("", 0.0, "")
    if series.modality == "CT" and "LOCALIZER" not in series.text("ImageType") and series.has_pixels and len(series) > 4:
        seen, certainty, reason = _look(series, run, slices)
    if named and seen:
        agree = bool(set(named.split()) & set(seen.split())) or "whole body" in (named, seen)
        wider = max((named, seen), key=lambda one: (one == "whole body", len(one.split())))
        if agree and named == "whole body":
            return Finding(REGION, REGIONS[seen], 0.7, f"{source} say whole body, the pixels less; {reason}")
        if agree:
            return Finding(REGION, REGIONS[wider], 0.95 if named == seen else 0.8, f"{source}; {reason}")
        return Finding(REGION, REGIONS[named], 0.5, f"{source} against the pixels; {reason}")
    if seen:
        return Finding(REGION, REGIONS[seen], certainty, reason)
    if named:
        return Finding(REGION, REGIONS[named], 0.8 if source == "Body Part Examined" else 0.6, source)
    return Finding(REGION, None, certainty, reason or "the header names no region")


def _look(series: Series, run: Run, slices: int) -> tuple[str, float, str]:
    try:
        geometry = series.geometry()
    except NotApplicable as reason:
        return "", 0.0, str(reason)
    if abs(geometry.normal[2]) < 0.8:
        return "", 0.0, "not axial, so the pixels were not asked"
    chosen = np.unique(np.linspace(0, len(series) - 1, slices).round().astype(int))
    found = []
    for done, index in enumerate(chosen):
        plane = series.frame(int(index))
        factor = max(1, round(3.0 / geometry.spacing_mm[1]))
        small = cv2.resize(plane, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        one = slice_of(small, geometry.spacing_mm[1] * factor)
        if one is not None:
            found.append(one)
        run.progress(0.9 * (done + 1) / len(chosen), "looking at slices")
    return region_of_slices(found, geometry.spacing_mm[0] * (len(series) - 1))


def _weighting_by_times(series: Series) -> tuple[str, float, str] | None:
    echo, repetition, inversion = series.number("EchoTime"), series.number("RepetitionTime"), series.number("InversionTime")
    flip, sequence = series.number("FlipAngle"), series.text("ScanningSequence").upper()
    if echo is None or repetition is None:
        return None
    if "IR" in sequence and inversion is not None and inversion > 1500 and echo > 60:
        return "FLAIR", 0.8, "inversion recovery with long TI and TE"
    if "GR" in sequence and "SE" not in sequence:
        if echo > 12 and (flip is None or flip <= 35):
            return "T2STAR", 0.6, "gradient echo with long TE"
        return ("T1", 0.6, "gradient echo with short TE") if echo <= 12 else None
    if repetition < 1000 and echo < 35:
        return "T1", 0.75, "short TR and TE"
    if repetition >= 1500 and echo > 60:
        return "T2", 0.75, "long TR and TE"
    if repetition >= 1500 and echo < 45:
        return "PD", 0.6, "long TR and short TE"
    return None


def _words(series: Series) -> str:
    return " ".join(series.text(keyword) for keyword in ("SeriesDescription", "ProtocolName", "StudyDescription")).upper()
