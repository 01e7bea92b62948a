"""What `petct-fusion` is measured on, and what comes out."""

from pathlib import Path

import numpy as np
from pydicom import dcmread

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs_of_study, place_of, values_of
from processors.petct_fusion import petct_fusion
from processors.uptake import suv_factor


def score() -> Measured:
    """Find the hot spot after resampling, and reckon its SUV by hand."""
    ct, pet, spot = phantoms.pet_ct()
    ct, pet = phantoms.read(ct), phantoms.read(pet)
    images, overlay = outputs_of_study(petct_fusion, [ct, pet])
    values = values_of(images, Series(pet))
    factor = suv_factor(pet)
    # 80 kg, 370 MBq, an hour after injection, half-life 6588 s.
    by_hand = 80000 / (3.7e8 * 2 ** (-3600 / 6588))
    scores: Scores = {
        "shift of a hot spot (mm)": round(float(np.linalg.norm(place_of(values, images.geometry, 500) - np.asarray(spot))), 2),
        "voxel of the CT (mm)": 4.0,
        "SUV for 1 kBq/mL, by hand": round(1000 * by_hand, 4),
        "SUV for 1 kBq/mL": round(1000 * factor, 4),
    }
    middle = len(ct) // 2
    blends = list(overlay.pixels)
    shown = [grey(Series(ct).frame(middle), 40, 400), 255 - grey(values[middle], 8000, 16000), blends[middle]]
    caption = "CT, PET on its grid, and the blend"
    return Measured(scores, beside(*shown), caption, "a coarse CT and a PET on another grid with one hot spot")


def on_public(folder: Path) -> Measured | None:
    """Fuse a real PET/CT, and compare its SUV with the Real World Value Mapping that came with it."""
    study = folder / "petct_acrin042"
    if not study.is_dir():
        return None
    ct, pet = ([dcmread(path) for path in sorted((study / name).iterdir())] for name in ("CT", "PT_AC"))
    _, overlay = outputs_of_study(petct_fusion, [ct, pet])
    factor = suv_factor(pet)
    slopes = {
        float(one.RealWorldValueSlope)
        for path in sorted((study / "RWV").iterdir())
        for item in dcmread(path).ReferencedImageRealWorldValueMappingSequence
        for one in item.RealWorldValueMappingSequence
        if one.MeasurementUnitsCodeSequence[0].CodeValue == "{SUVbw}g/ml"
    }
    # The maps are of both PET series; one of them is the corrected one's.
    mapped = min(slopes, key=lambda slope: abs(slope - factor))
    scores: Scores = {
        "SUV for 1 kBq/mL": round(1000 * factor, 5),
        "by the Real World Value Mapping": round(1000 * mapped, 5),
        "difference (%)": round(100 * (factor / mapped - 1), 3),
    }
    blends = list(overlay.pixels)
    shown = [blends[round(len(blends) * share)] for share in (0.35, 0.5, 0.65)]
    return Measured(scores, beside(*shown), "Three slices, blended", "ACRIN-NSCLC-FDG-PET-042")
