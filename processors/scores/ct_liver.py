"""What `ct-liver` is measured on, and what comes out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import NotApplicable, Series
from pacs.processing.masks import Mask, volume_ml
from pacs.processing.scoring import Measured, Picture, Scores, beside, dice, grey, hausdorff, outputs, painted
from pacs.processing.truth import read
from processors.ct_liver import LIVER, ct_liver

BOTH, ONLY_FOUND, ONLY_TRUE = (70, 170, 70), (230, 60, 60), (70, 90, 230)
TOTALSEGMENTATOR_LIVER = 5
"""Its number in the label maps of TotalSegmentator 2."""


def score() -> Measured:
    """A liver with contrast medium, without, and six slices of one."""
    scores: Scores = {}
    shown: list[Picture] = []
    for name, hounsfield, slices in (
        ("contrast medium", 110.0, slice(None)),
        ("plain", 60.0, slice(None)),
        ("six slices", 110.0, slice(18, 24)),
    ):
        datasets, labels = phantoms.abdomen(liver=hounsfield, slices=slices)
        series = Series(datasets)
        found = _compared(f"{name}: ", series, labels > 0, scores)
        index = 3 if len(series) < 10 else 21
        shown.append(_painted(series, found, labels > 0, index))
    return Measured(
        scores,
        beside(*shown),
        "With contrast medium, plain, and one of six slices (green agrees, red only found, blue only true)",
        "a liver with a lesion and vessels among ribs, spleen, kidneys, stomach and lung",
    )


def on_public(folder: Path) -> Measured | None:
    """Slices of an abdomen that a network labelled, three that came segmented, a whole liver, and what is no abdomen."""
    torso, chest, thigh = (folder / name for name in ("petct_acrin042/CT", "ct_chest_nlst101287/CT", "pet_ct_mr_sts012/CT"))
    labelled = on_labelled(folder)
    if labelled is None or not all(one.is_dir() for one in (torso, chest, thigh)):
        return None
    scores, shown = labelled
    series = _series(torso)
    segmentation, measurements = outputs(ct_liver, series.datasets)
    scores["torso without contrast medium: volume (mL)"] = measurements.values[LIVER][0].value
    found = segmentation.array() > 0
    shown += [_painted(series, found, found, index) for index in (26, 38)]
    for name, datasets in (
        ("chest and shoulders of that torso", series.datasets[71:]),
        ("upper half of a chest", _series(chest).datasets[72:]),
        ("thigh with a sarcoma", _series(thigh).datasets),
    ):
        scores[f"{name}: voxels taken for liver"] = _claimed(datasets)
    return Measured(
        scores,
        beside(*shown),
        "Two of the abdomen, one of the three slices, and two of the torso (green agrees or has no truth, red only found, blue "
        "only true)",
        "20 slices with a network's labels (TotalSegmentator's example), three with the segmentation that came with them "
        "(dcmqi's example), and without labels ACRIN-NSCLC-FDG-PET-042, NLST 101287 and STS_012",
    )


def on_labelled(folder: Path) -> tuple[Scores, list[Picture]] | None:
    """Return the scores on the slices of which the truth is known, and pictures of them."""
    abdomen, few = folder / "ct_abdomen_totalseg", folder / "ct_liver_dcmqi"
    if not abdomen.is_dir() or not few.is_dir():
        return None
    scores: Scores = {}
    series = _series(abdomen / "CT")
    label_map = sitk.ReadImage(str(abdomen / "labels_nifti" / "example_seg_dicom.nii.gz"))
    labels = sitk.GetArrayFromImage(sitk.Resample(label_map, series.volume(), sitk.Transform(), sitk.sitkNearestNeighbor))
    truth = labels == TOTALSEGMENTATOR_LIVER
    found = _compared("abdomen, 20 slices: ", series, truth, scores)
    shown = [_painted(series, found, truth, index) for index in (2, 17)]
    labelled = read(few)
    (series,) = (one for one in labelled.series if "Liver" in labelled.masks(one))
    truth = labelled.masks(series)["Liver"]
    found = _compared("three slices: ", series, truth, scores)
    return scores, [*shown, _painted(series, found, truth, 1)]


def _compared(prefix: str, series: Series, truth: Mask, scores: Scores) -> Mask:
    segmentation, measurements = outputs(ct_liver, series.datasets)
    found: Mask = segmentation.array() > 0
    geometry = series.geometry()
    volume, mean, cut = (one.value for one in measurements.values[LIVER])
    scores[f"{prefix}Dice"] = round(dice(found, truth), 4)
    scores[f"{prefix}Hausdorff distance, 95 % (mm)"] = round(hausdorff(found, truth, geometry.spacing_mm), 1)
    scores[f"{prefix}volume (mL)"] = volume
    scores[f"{prefix}error of volume (%)"] = round(100 * (volume / volume_ml(truth, geometry) - 1), 2)
    scores[f"{prefix}mean attenuation (HU)"] = mean
    scores[f"{prefix}cross-section at the scan's end (cm2)"] = cut
    return found


def _claimed(datasets: Sequence[Dataset]) -> int:
    """Return how many voxels are taken for liver where there is none; 0 where the series is refused."""
    try:
        return int((outputs(ct_liver, datasets)[0].array() > 0).sum())
    except NotApplicable:
        return 0


def _series(folder: Path) -> Series:
    return Series([dcmread(path) for path in sorted(folder.iterdir())])


def _painted(series: Series, found: Mask, truth: Mask, index: int) -> Picture:
    picture = grey(series.frame(index), 60, 350)
    for mask, color in ((found & truth, BOTH), (found & ~truth, ONLY_FOUND), (truth & ~found, ONLY_TRUE)):
        picture = painted(picture, np.asarray(mask[index]), color)
    return picture
