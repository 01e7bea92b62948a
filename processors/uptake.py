"""Standardized uptake values: the factor from the values of a PET to SUV, by weight, lean or ideal weight, or body surface.

Sources: Zasadny KR, Wahl RL, "Standardized uptake values of normal tissues at PET with 2-[fluorine-18]-fluoro-2-deoxy-D-
glucose: variations with body weight and a method for correction", Radiology 189 (1993) 847-850 (ideal weight); James WPT,
"Research on obesity" (HMSO 1976) and Janmahasatian S et al., "Quantification of lean bodyweight", Clin Pharmacokinet 44 (2005)
1051-1065 (lean weight); Du Bois D, Du Bois EF, Arch Intern Med 17 (1916) 863-871 (surface). Attributes: PS3.3 C.8.9.1, C.8.9.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset

from pacs.processing import Code, NotApplicable, codes

PHILIPS = "Philips PET Private Group"
"""Its (7053,xx00) is the factor from counts to SUV by body weight; PS3.15 Table E.3.10-1 has it as safe."""


@dataclass(frozen=True)
class Variant:
    """A kind of SUV: its quantity and unit (PS3.16 CID 85), and Units and SUV Type of a PET series (PS3.3 C.8.9.1)."""

    quantity: Code
    unit: Code
    units: str
    suv_type: str


VARIANTS: Mapping[str, Variant] = {
    "bw": Variant(codes.DCM.Suvbw, codes.UCUM.StandardizedUptakeValueBodyWeight, "GML", "BW"),
    "lbm": Variant(codes.DCM.SuvlbmJanma, codes.UCUM.StandardizedUptakeValueLeanBodyMassJanma, "GML", "LBMJANMA"),
    "lbm-james": Variant(
        codes.DCM.SuvlbmJames128, codes.UCUM.StandardizedUptakeValueLeanBodyMassJames128Multiplier, "GML", "LBMJAMES128"
    ),
    "bsa": Variant(codes.DCM.Suvbsa, codes.UCUM.StandardizedUptakeValueBodySurfaceArea, "CM2ML", "BSA"),
    "ibw": Variant(codes.DCM.Suvibw, codes.UCUM.StandardizedUptakeValueIdealBodyWeight, "GML", "IBW"),
}
_KINDS = {variant.suv_type: kind for kind, variant in VARIANTS.items()}


def suv_factor(images: Sequence[Dataset], kind: str = "bw") -> float:
    """Return the factor from modality values of a PET series to SUV of a kind (g/mL; bsa: cm2/mL).

    Units BQML; GML and CM2ML are SUV already, of the kind that SUV Type names; CNTS with Philips' own factor. The dose is
    decayed to the start of the series, unless the images are corrected to the time of administration (Decay Correction ADMIN).

    Raises `NotApplicable` where the header does not suffice; the reason says what is missing.
    """
    first = images[0]
    units = first.get("Units")
    if units in ("GML", "CM2ML"):
        of = _KINDS.get(str(first.get("SUVType") or "BW"))
        if of is None:
            raise NotApplicable("no SUV: its values are SUV of a kind that is not known (SUV Type)")
        return 1.0 if of == kind else size(first, kind) / size(first, of)
    if units == "CNTS":
        own = first.private_block(0x7053, PHILIPS) if (0x7053, 0x0010) in first else None
        factor = float(own[0x00].value) if own is not None and 0x00 in own else 0.0
        if factor <= 0:
            raise NotApplicable("no SUV: its values are counts")
        return factor if kind == "bw" else factor * size(first, kind) / size(first, "bw")
    if units != "BQML":
        raise NotApplicable("no SUV: its values are neither activity nor SUV (Units)")
    return size(first, kind) / _dose_at_scan(images)


def size(pet: Dataset, kind: str) -> float:
    """Return what the dose is shared among: grams, or cm2 of body surface. Raises `NotApplicable` where it is not told."""
    weight, height = _number(pet.get("PatientWeight")), 100 * _number(pet.get("PatientSize"))
    sex = str(pet.get("PatientSex") or "")
    if kind != "ibw" and not 0.5 <= weight <= 500:
        raise NotApplicable("no SUV: the patient's weight is missing or cannot be")
    if kind == "bw":
        return weight * 1000
    if not 30 <= height <= 250:
        raise NotApplicable("no SUV: the patient's size is missing or cannot be")
    if kind == "bsa":
        return float(71.84 * weight**0.425 * height**0.725)
    if sex not in ("M", "F"):
        raise NotApplicable("no SUV: the patient's sex is missing")
    man = sex == "M"
    if kind == "lbm":
        index = weight / (height / 100) ** 2
        grams = 9270e3 * weight / (6680 + 216 * index) if man else 9270e3 * weight / (8780 + 244 * index)
    elif kind == "lbm-james":
        ratio = (weight / height) ** 2
        grams = 1000 * (1.10 * weight - 128 * ratio if man else 1.07 * weight - 148 * ratio)
    else:
        grams = 1000 * (48.0 + 1.06 * (height - 152) if man else 45.5 + 0.91 * (height - 152))
    if grams <= 0:
        raise NotApplicable("no SUV: the formula does not hold for a patient of this weight and size")
    return grams


def _dose_at_scan(images: Sequence[Dataset]) -> float:
    """Return the dose (Bq) that was left at the time to which the images are corrected."""
    first = images[0]
    items = first.get("RadiopharmaceuticalInformationSequence") or [Dataset()]
    dose, half_life = _number(items[0].get("RadionuclideTotalDose")), _number(items[0].get("RadionuclideHalfLife"))
    if dose <= 0 or half_life <= 0:
        raise NotApplicable("no SUV: dose or half-life is missing")
    if first.get("DecayCorrection") == "ADMIN":
        return dose
    start = _moment(first.get("SeriesDate"), first.get("SeriesTime"))
    if first.get("DecayCorrection") != "START" or start is None:
        raise NotApplicable("no SUV: it is not said to which time the decay was corrected")
    acquired = [_moment(one.get("AcquisitionDate"), one.get("AcquisitionTime")) for one in images]
    # Series Time may have been written by a later reconstruction; the scan itself began when the first image was acquired.
    start = min([start, *(one for one in acquired if one is not None)])
    injected = _injection(items[0], start)
    elapsed = (start - injected).total_seconds() if injected is not None else -1.0
    if not 0 <= elapsed < 20 * half_life:
        raise NotApplicable("no SUV: the time of the injection is missing, or not before the scan")
    return float(dose * 2 ** (-elapsed / half_life))


def _injection(item: Dataset, start: datetime) -> datetime | None:
    moment = str(item.get("RadiopharmaceuticalStartDateTime") or "")
    if moment:
        return _moment(moment[:8], moment[8:])
    injected = _moment(f"{start:%Y%m%d}", item.get("RadiopharmaceuticalStartTime"))
    if injected is not None and injected > start:
        injected -= timedelta(days=1)  # injected before midnight, scanned after it
    return injected


def _moment(date: Any, time: Any) -> datetime | None:
    digits = str(time or "").partition(".")[0].partition("+")[0].partition("-")[0]
    if not date or len(digits) < 4:
        return None
    try:
        return datetime.strptime(f"{date}{digits[:6].ljust(6, '0')}", "%Y%m%d%H%M%S")
    except ValueError:
        return None


def _number(value: Any) -> float:
    return float(value or 0)
