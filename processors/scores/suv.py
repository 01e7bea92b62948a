"""What `suv` is measured on, and what comes out."""

from pathlib import Path

import numpy as np
from pydicom import dcmread

from pacs import phantoms
from pacs.processing import Images, Map, Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, values_of
from processors.suv import suv

HEIGHT_M = 1.8
DOSE = 3.7e8 * 2 ** (-3600 / 6588)
BY_HAND = {
    # A man of 80 kg and 1.80 m, body mass index 24.691; an hour after 370 MBq of a half-life of 6588 s.
    "bw": 80000 / DOSE,
    "lbm": 9270e3 * 80 / (6680 + 216 * 80 / 1.8**2) / DOSE,
    "lbm-james": 1000 * (1.10 * 80 - 128 * (80 / 180) ** 2) / DOSE,
    "bsa": 1e4 * 0.007184 * 80**0.425 * 180**0.725 / DOSE,
    "ibw": 1000 * (48.0 + 1.06 * 28) / DOSE,
}
"""The factor from Bq/mL, reckoned apart from the code."""


def score() -> Measured:
    datasets = phantoms.hot_spheres()
    for one in datasets:
        one.PatientSize = f"{HEIGHT_M}"
    series = Series(datasets)
    activity = series.array().astype(np.float64)
    scores: Scores = {}
    for kind, factor in BY_HAND.items():
        numbers, images = outputs(suv, datasets, by=kind)
        assert isinstance(numbers, Map) and isinstance(images, Images)
        truth = activity * factor
        scores[f"{kind}: hottest voxel, by hand"] = round(float(truth.max()), 4)
        scores[f"{kind}: map, largest error (%)"] = round(100 * float(np.abs(numbers.values - truth).max() / truth.max()), 5)
        written = values_of(images, series)
        scores[f"{kind}: series, largest error (% of the hottest)"] = round(
            100 * float(np.abs(written - truth).max() / truth.max()), 5
        )
    numbers, _ = outputs(suv, datasets)
    shown = [255 - grey(numbers.values.max(axis=axis)[::-1], 5, 10) for axis in (1, 2)]
    return Measured(
        scores,
        beside(*shown),
        "Maximum projections of the map, SUV 0 to 10",
        "spheres of SUV 10, 6 and 3; a man of 80 kg, 1.80 m",
    )


def on_public(folder: Path) -> Measured | None:
    """Two real PET: one against the Real World Value Mapping that came with it, one that is SUV already."""
    acrin, sarcoma = folder / "petct_acrin042", folder / "pet_ct_mr_sts012" / "PET"
    if not acrin.is_dir() or not sarcoma.is_dir():
        return None
    datasets = [dcmread(path) for path in sorted((acrin / "PT_AC").iterdir())]
    numbers, images = outputs(suv, datasets)
    mapped = [
        float(one.RealWorldValueSlope)
        for path in sorted((acrin / "RWV").iterdir())
        for item in dcmread(path).ReferencedImageRealWorldValueMappingSequence
        for one in item.RealWorldValueMappingSequence
        if one.MeasurementUnitsCodeSequence[0].CodeValue == "{SUVbw}g/ml"
    ]
    series = Series(datasets)
    raw = series.array()
    hottest = np.unravel_index(int(raw.argmax()), raw.shape)
    # The maps are of both PET series of the study; the one of these images is the nearer.
    truth = float(raw[hottest]) * min(mapped, key=lambda slope: abs(slope * raw[hottest] - numbers.values[hottest]))
    scores: Scores = {
        "ACRIN: SUV of the hottest voxel": round(float(numbers.values[hottest]), 4),
        "ACRIN: by the Real World Value Mapping that came with it": round(truth, 4),
        "ACRIN: difference (%)": round(100 * (float(numbers.values[hottest]) / truth - 1), 4),
        "ACRIN: series of 16 bits, difference there (%)": round(100 * float(values_of(images, series)[hottest] / truth - 1), 4),
    }
    already = [dcmread(path) for path in sorted(sarcoma.iterdir())]
    same, _ = outputs(suv, already)
    scores["STS_012, SUV already: largest change"] = round(float(np.abs(same.values - Series(already).array()).max()), 6)
    shown = 255 - grey(numbers.values.max(axis=1)[::-1], 5, 10)
    return Measured(scores, beside(shown), "Maximum projection from the front, SUV 0 to 10", "ACRIN-NSCLC-FDG-PET-042, STS_012")
