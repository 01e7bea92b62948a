"""How an MR series is weighted: from the words of its own description, its sequence and image type, and from its times.

Sources: McRobbie DW et al., "MRI from Picture to Proton", ch. 3 (echo and repetition times), ch. 8 (inversion: fluid has no
signal at TI = T1 ln(2 / (1 + exp(-TR / T1)))). That sequence, variant, times, flip angle and image type tell most is also what
trained classifiers of MR headers rest on.
"""

import re

import numpy as np

from pacs.processing import Finding, Series, private_code

WEIGHTING = private_code("MRWEIGHTING", "MR weighting")
NAMES = {
    "LOCALIZER": "Localizer",
    "ADC": "Apparent diffusion coefficient",
    "DWI": "Diffusion weighted",
    "FLAIR": "FLAIR",
    "STIR": "STIR",
    "MRA": "Angiography",
    "SWI": "Susceptibility weighted",
    "T2STAR": "T2* weighted",
    "T1": "T1 weighted",
    "T2": "T2 weighted",
    "PD": "PD weighted",
}
WORDS = (
    (r"\bLOC\b|LOCALI[SZ]ER|SCOUT|SURVEY|PILOT|PLANE LOC", "LOCALIZER"),
    (r"\bADC\b|APPARENT DIFF", "ADC"),
    (r"DWI|DIFF|TRACEW|\bEP B|\bB ?1000\b", "DWI"),
    (r"FLAIR|DARK.?FL|TIRM DF", "FLAIR"),
    (r"STIR", "STIR"),
    (r"\bTOF\b|\bMRA\b|ANGIO", "MRA"),
    (r"\bSWI\b|SWAN|VENOBOLD", "SWI"),
    (r"T2 ?\*|T2 ?STAR|\bFFE\b.*T2", "T2STAR"),
)
WEIGHTS = ((r"\bT ?1(?!\d)", "T1"), (r"\bT ?2(?!\d)", "T2"), (r"\bPD\b|PROTON", "PD"))
FLUID_T1_MS = 4200.0
"""T1 of cerebrospinal fluid; it hardly depends on the field."""


def weighting_of(series: Series) -> Finding:
    """MR weighting from the series' words first, then from sequence and times (TE, TR, TI in ms)."""
    # The study's description is left out: it speaks of other series, too.
    for keywords in (("SeriesDescription", "ImageType"), ("ProtocolName", "SequenceName")):
        words = _words(" ".join(series.text(keyword) for keyword in keywords))
        for pattern, value in WORDS:
            if re.search(pattern, words):
                return _finding(value, 0.85, "words of description, sequence or image type")
        times = _by_times(series)
        for pattern, value in WEIGHTS:
            if re.search(pattern, words):
                if times is not None and times[0] == value:
                    return _finding(value, 0.95, "words of the description, and echo and repetition times agree")
                return _finding(value, 0.7, "words of the description")
    if _crosses(series):
        return _finding("LOCALIZER", 0.7, "few slices in several planes")
    return _finding(*times) if times else Finding(WEIGHTING, None, 0.1, "neither words nor times tell")


def _finding(value: str, certainty: float, reason: str) -> Finding:
    return Finding(WEIGHTING, private_code(value, NAMES[value]), certainty, reason)


def _by_times(series: Series) -> tuple[str, float, str] | None:
    echo, repetition, inversion = series.number("EchoTime"), series.number("RepetitionTime"), series.number("InversionTime")
    flip, sequence = series.number("FlipAngle"), series.text("ScanningSequence").upper()
    if echo is None or repetition is None or echo <= 0 or repetition <= echo:
        return None
    if "IR" in sequence and inversion:
        null = FLUID_T1_MS * np.log(2 / (1 + np.exp(-repetition / FLUID_T1_MS)))
        if abs(inversion / null - 1) < 0.2 and echo > 60:
            return "FLAIR", 0.8, "inversion recovery at the TI that nulls fluid, long TE"
        if 80 < inversion < 260 and repetition > 1500:
            return "STIR", 0.7, "inversion recovery at the TI that nulls fat"
    if "GR" in sequence and "SE" not in sequence:
        if echo > 12 and (flip is None or flip <= 35):
            return "T2STAR", 0.6, "gradient echo with long TE"
        return ("T1", 0.6, "gradient echo with short TE") if echo <= 12 else None
    if "SE" in sequence and repetition < 150:
        return None  # a spin echo has no time to recover: a header with a mistake
    if repetition < 1000 and echo < 35:
        return "T1", 0.75, "short TR and TE"
    if repetition >= 1500 and echo > 60:
        return "T2", 0.75, "long TR and TE"
    if repetition >= 1500 and echo < 45:
        return "PD", 0.6, "long TR and short TE"
    return None


def _crosses(series: Series) -> bool:
    """Whether slices lie in planes at right angles, as only those of localizers do."""
    normals = []
    for one in series.datasets:
        if one.get("ImageOrientationPatient"):
            orientation = np.array(one.ImageOrientationPatient, float)
            normals.append(np.cross(orientation[:3], orientation[3:]))
    return len(normals) > 1 and float(np.abs(np.array(normals) @ normals[0]).min()) < 0.1 and len(normals) <= 60


def _words(text: str) -> str:
    return re.sub(r"[^A-Z0-9*+]+", " ", text.upper()).strip()
