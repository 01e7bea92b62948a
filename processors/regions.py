"""Which part of the body a series shows: from the words of its header, on axial CT also from what its slices are made of.

Sources: regions and words after PS3.16 CID 4031 (common anatomic regions); headers name a wrong region in one of six series
(Gueld MO et al., "Quality of DICOM header information for image categorization", Proc SPIE 4685 (2002) 280-287), which is why
words alone are never certain, and why words that the pixels contradict lead to no answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing import Code, Finding, Series, codes
from pacs.processing.masks import filled

REGION = Code("363698007", "SCT", "Finding Site")
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
    "heart": SCT.Heart,
    "spine": SCT.Spine,
    "shoulder": SCT.Shoulder,
    "hip": SCT.Hip,
    "extremity": SCT.Extremity,
    "upper limb": SCT.UpperLimb,
    "hand": SCT.Hand,
    "lower limb": SCT.LowerLimb,
    "thigh": SCT.Thigh,
    "knee": SCT.Knee,
    "lower leg": SCT.LowerLeg,
    "ankle": SCT.AnkleJoint,
    "foot": SCT.Foot,
}
# Longer words first: "ABDOMENPELVIS" must not be read as "ABDOMEN".
TOKENS: Sequence[tuple[str, str]] = (
    (r"WHOLE ?BODY|WBODY|\bWB[A-Z]?\b", "whole body"),
    (r"CHEST.?ABD\w*.?PEL\w*|THORAX.?ABD\w*.?PEL\w*|\bCAP\b|\bTAP\b", "chest abdomen pelvis"),
    (r"CHEST.?ABD\w*|THORAX.?ABD\w*|THORACO.?ABD\w*", "chest abdomen"),
    (r"ABD\w*.?PEL\w*", "abdomen pelvis"),
    (r"HEAD.?NECK", "head neck"),
    (r"[CTL]-?SPINE|SPINE|LUMBAR|CERVICAL SP", "spine"),
    (r"BREAST|MAMMO", "breast"),
    (r"BRAIN|HEAD|SKULL|CRANI|NEURO", "head"),
    (r"\bNECK\b|LARYNX|CAROTID", "neck"),
    (r"\bHEART\b|CARDIAC|CORONARY", "heart"),
    (r"CHEST|THORAX|THORAC|LUNG", "chest"),
    (r"ABDOM|LIVER|KIDNEY|PANCREAS", "abdomen"),
    (r"PELVI|PROSTATE|BLADDER", "pelvis"),
    (r"THIGH|FEMUR", "thigh"),
    (r"KNEE", "knee"),
    (r"ANKLE", "ankle"),
    (r"LOWER ?LEG|TIBIA|\bCALF\b", "lower leg"),
    (r"LOWER ?(EXTREMIT|LIMB)|\bLEGS?\b", "lower limb"),
    (r"\bHAND\b|WRIST", "hand"),
    (r"UPPER ?(EXTREMIT|LIMB)|\bARM\b|ELBOW|HUMERUS", "upper limb"),
    (r"\bFOOT\b", "foot"),
    (r"SHOULDER", "shoulder"),
    (r"\bHIPS?\b", "hip"),
    (r"EXTREMIT", "extremity"),
)
_LIMB = {"extremity", "abdomen", "abdomen pelvis"}
"""What slices of limbs look like; two thighs that touch are as wide as a belly."""
INSIDE: Mapping[str, set[str]] = {
    "breast": {"chest", "chest abdomen"},
    "heart": {"chest", "chest abdomen"},
    "spine": set(REGIONS),
    "shoulder": {"neck", "chest", "neck chest", "extremity", "abdomen"},
    "hip": _LIMB,
} | dict.fromkeys(("extremity", "upper limb", "hand", "lower limb", "thigh", "knee", "lower leg", "ankle", "foot"), _LIMB)
"""Parts, and the regions that slices of them may look like."""
KINDS = ("head", "neck", "chest", "belly", "limb")
WHOLE_BODY_MM = 1000.0
ONE_REGION_MM = 400.0
"""Along the body: a stack that is longer shows more than a head, a neck, a chest, an abdomen or a pelvis alone."""


@dataclass(frozen=True)
class Slice:
    """What one CT slice is made of: body area in cm2, width in mm; the rest are shares of the body.

    `air` is every gas inside, `skull` what bone encloses, and `cut` the share of the image's border that the body takes up.
    """

    area_cm2: float
    width_mm: float
    lung: float
    bone: float
    fat: float
    air: float = 0.0
    skull: float = 0.0
    cut: float = 0.0


def region_of_text(text: str) -> str:
    """Return the region that words name, "" where none does."""
    upper = re.sub(r"[^A-Z0-9]+", " ", text.upper()).strip()
    return next((region for pattern, region in TOKENS if re.search(pattern, upper)), "")


def region_of(series: Series, cuts: Sequence[Slice]) -> Finding:
    """Region from Body Part Examined, else from words, compared with what CT slices look like (`cuts`, in their order)."""
    covered = stack_mm(series)
    named, source, sure = _named(series, covered)
    seen, certainty, reason = region_of_slices(cuts, covered or 0.0) if cuts else ("", 0.0, "")
    if named and seen:
        if named in INSIDE and seen in INSIDE[named]:
            return Finding(REGION, REGIONS[named], 0.8 if sure > 0.7 else 0.7, f"{source}; {reason}")
        if set(named.split()) & set(seen.split()) or "whole body" in (named, seen):
            wider = max((named, seen), key=lambda one: (one == "whole body", len(one.split())))
            return Finding(REGION, REGIONS[wider], 0.95 if named == seen else 0.8, f"{source}; {reason}")
        return Finding(REGION, None, 0.3, f"{source} and the pixels contradict each other; {reason}")
    if seen:
        return Finding(REGION, REGIONS[seen], certainty, reason)
    if named:
        return Finding(REGION, REGIONS[named] if sure >= 0.5 else None, sure, source)
    return Finding(REGION, None, certainty, reason or source)


def slice_of(hounsfield: NDArray[np.float32], pixel_mm: float) -> Slice | None:
    """Reckon what one CT slice is made of; None where there is no body in it."""
    solid = cv2.morphologyEx((hounsfield > -300).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    outline = parts == largest
    body = filled(outline)
    area_cm2 = int(body.sum()) * pixel_mm**2 / 100
    if area_cm2 < 20:
        return None
    inside = hounsfield[body]
    # A closed ring of bone, small gaps (sutures, partial volume) closed.
    ring = cv2.morphologyEx(((hounsfield > 200) & body).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    border = np.concatenate([body[0], body[-1], body[:, 0], body[:, -1]])
    return Slice(
        area_cm2=area_cm2,
        width_mm=float(stats[largest, cv2.CC_STAT_WIDTH]) * pixel_mm,
        lung=float(((inside > -960) & (inside < -500)).mean()),
        bone=float((inside > 200).mean()),
        fat=float(((inside > -190) & (inside < -30)).mean()),
        air=float((inside < -500).mean()),
        skull=float(filled(ring)[body].mean()),
        cut=float(border.mean()),
    )


def region_of_slices(found: Sequence[Slice], covered_mm: float) -> tuple[str, float, str]:
    """Return region, certainty and reason from the make-up of evenly spread slices."""
    whole = [one for one in found if one.cut <= 0.25]
    if not found:
        return "", 0.0, "no body in the images"
    if len(whole) < len(found) / 2:
        return "", 0.2, "the body reaches beyond the images"
    kinds = [_kind(one) for one in whole]
    share = {kind: kinds.count(kind) / len(kinds) for kind in KINDS}
    # Eight centimetres of a region count as a region, else a chest CT would always have a neck and an abdomen, too.
    enough = max(0.15, min(0.5, 80 / max(covered_mm, 1)))
    there = [kind for kind in KINDS if share[kind] >= enough]
    told = "slices look like " + (", ".join(f"{kind} {share[kind]:.0%}" for kind in share if share[kind]) or "no known part")
    # A few slices are a glimpse.
    most = 0.75 if covered_mm > 60 else 0.5
    if there == ["chest"] and most < 0.6 and np.mean([one.lung for one in whole]) < 0.3:
        return "", 0.3, f"{told}, at the base of the lungs, where chest and abdomen meet"
    if there == ["limb"]:
        return "extremity", 0.5, told
    there = [kind for kind in there if kind != "limb"]
    if not there:
        return "", 0.2, told
    if "head" in there and "belly" in there:
        return "whole body", min(0.7, most), told
    if there == ["belly"]:
        return ("abdomen pelvis" if covered_mm > 350 else "abdomen"), min(0.55, most), told
    # The belly of a long scan reaches the pelvis: from the diaphragm to the pelvic floor is some 40 cm.
    words = [one for one in there if one != "belly"] + (["abdomen"] if "belly" in there else [])
    if share["belly"] * covered_mm > 330:
        words.append("pelvis")
    name = " ".join(words)
    return (name, most, told) if name in REGIONS else (words[0], 0.5, told)


def stack_mm(series: Series) -> float | None:
    """Return the length along the body (patient's z, mm) that an axial stack covers; None where the series is none."""
    places, first = [one.get("ImagePositionPatient") for one in series.datasets], series.first.get("ImageOrientationPatient")
    if not first or not all(places):
        return None
    orientation = np.array(first, float)
    if abs(np.cross(orientation[:3], orientation[3:])[2]) < 0.8:
        return None
    heights = [float(place[2]) for place in places if place is not None]
    return max(heights) - min(heights)


def _named(series: Series, covered_mm: float | None) -> tuple[str, str, float]:
    """Return what the header names, where, and how sure that is by itself."""
    is_localizer = series.modality == "CT" and "LOCALIZER" in series.text("ImageType")
    sources = [("Body Part Examined", series.text("BodyPartExamined"), 0.8)]
    if series.modality == "MG":
        sources.append(("the modality", "BREAST", 0.8))
    sources += [
        ("words of the description", f"{series.text('SeriesDescription')} {series.text('ProtocolName')}", 0.6),
        # A study has series of several regions.
        ("words of the study's description", series.text("StudyDescription"), 0.5),
    ]
    why = "the header names no region"
    for source, words, sure in sources:
        named = region_of_text(words)
        if not named:
            continue
        if named == "whole body" and (is_localizer or (covered_mm is not None and covered_mm < WHOLE_BODY_MM)):
            why = f"{source} say whole body, which the images do not cover"
            continue
        if is_localizer and sure < 0.8:
            return named, "a localizer shows more than it is named for", 0.3
        if named in ("head", "neck", "chest", "abdomen", "pelvis") and (covered_mm or 0) > ONE_REGION_MM:
            return named, f"{source}, but the stack is {covered_mm:.0f} mm long, which is more than that", 0.3
        return named, source, sure
    return "", why, 0.0


def _kind(one: Slice) -> str:
    if one.lung > 0.10 and one.area_cm2 > 250:
        return "chest"
    if one.bone < 0.005:
        return "nothing"  # a masked brain, a phantom of water: no part of a body is without bone
    if one.area_cm2 < 330 and one.width_mm < 230:
        if one.skull > 0.45 or (one.bone > 0.13 and one.air > 0.01):
            return "head"
        # Necks have a windpipe, limbs no gas at all.
        return "neck" if one.air > 0.004 else "limb"
    return "belly"
