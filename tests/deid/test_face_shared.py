"""The shared heads lose their face below the brow, and the one with a known brain keeps all of it; bodies lose nothing."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from pacs.deid import head
from pacs.deid.face import Plane, Region, Said, find
from pacs.deid.planes import gather


def load(folder: Path) -> tuple[list[Plane], list[np.ndarray]]:
    """Return the planes of a folder's images and their frames in modality units."""
    planes, frames = [], []
    for path in sorted(folder.iterdir()):
        ds = pydicom.dcmread(path)
        if "ImagePositionPatient" not in ds:
            continue
        position, direction = ([float(v) for v in ds[k].value] for k in ("ImagePositionPatient", "ImageOrientationPatient"))
        spacing = [float(v) for v in ds.PixelSpacing]
        shape = (int(ds.Rows), int(ds.Columns))
        thickness = float(ds.get("SliceThickness") or 0)
        planes.append(
            Plane(tuple(position), tuple(direction[:3]), tuple(direction[3:]), (spacing[0], spacing[1]), shape, thickness)
        )
        slope, intercept = float(ds.get("RescaleSlope") or 1), float(ds.get("RescaleIntercept") or 0)
        frames.append(ds.pixel_array.astype(np.float32) * slope + intercept)
    return planes, frames


def face_of(planes: list[Plane], frames: list[np.ndarray]) -> Region:
    found = find(planes, iter(frames), modality="MR", said=Said.HEAD)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "nasion_mm"),
    [
        ("gt_brain_spm152/T1", -42),
        ("pet_mr_spm_templates/T1", -45),
        ("mr_flair_and_pdf/FLAIR", -30),
        ("mr_head_study/SAG_T_1", -23),
        ("mr_head_study/3_PLANE_LOC", -26),
    ],
)
def test_the_front_of_the_face_is_gone(name: str, nasion_mm: float, shared_data: Path) -> None:
    """Whoever looks from the front meets nothing of the skin from the bridge of the nose down: 97 % and more of it is cut.

    The skin is the first voxel above a threshold on each ray from the front within 45 mm of the midline, whatever the pose that
    was found. The height of the nasion, the deepest point between forehead and nose, was read off the midline profile.
    """
    planes, frames = load(shared_data / name)
    region = face_of(planes, frames)

    work = gather(planes, iter(frames))
    cut = gather(planes, (region.mask(plane).astype(np.float32) for plane in planes))
    assert work is not None and cut is not None
    body = head.filled(head._smooth(work.values) > head.body_level(work, "MR")) & work.seen
    met = body.any(axis=1)
    first = body.shape[1] - 1 - np.argmax(body[:, ::-1, :], axis=1)
    s, left = np.nonzero(met)
    height, aside = work.origin[2] + s * 2.5, np.abs(left - np.median(left)) * 2.5
    # An oblique stack shows the nape only in its lowest slices.
    ahead = first[s, left] > np.median(np.nonzero(body)[1])
    front = (height < nasion_mm + 4) & (height > nasion_mm - 75) & (aside < 45) & ahead
    gone = cut.values[s[front], first[s[front], left[front]], left[front]] > 0.5
    assert gone.sum() > 100
    assert gone.mean() > 0.97


def test_not_a_voxel_of_the_known_brain_is_touched(shared_data: Path) -> None:
    """The template's own brain mask and the cut have nothing in common; no tolerance."""
    planes, frames = load(shared_data / "gt_brain_spm152/T1")
    region = face_of(planes, frames)

    segmentation = pydicom.dcmread(next((shared_data / "gt_brain_spm152/SEG").iterdir()))
    cut = {round(plane.position[2]): region.mask(plane) for plane in planes}
    brain = touched = 0
    for frame, group in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        height = round(float(group.PlanePositionSequence[0].ImagePositionPatient[2]))
        brain += int(frame.sum())
        touched += int((cut[height] & (frame > 0)).sum())

    assert brain > 200_000
    assert touched == 0


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("petct_acrin042/CT", "CT"),
        ("ct_chest_nlst101287/CT", "CT"),
        ("ct_abdomen_totalseg/CT", "CT"),
        ("ct_liver_dcmqi/CT", "CT"),
        ("pet_ct_mr_sts012/CT", "CT"),
        ("pet_ct_mr_sts012/MR_T1", "MR"),
        ("mr_thin_fruit_jpegls", "MR"),
    ],
)
def test_bodies_and_fruit_have_no_face(name: str, modality: str, shared_data: Path) -> None:
    """Chest, abdomen, thigh and a fruit are left alone and cause no doubt, though no header helps."""
    planes, frames = load(shared_data / name)

    assert find(planes, iter(frames), modality=modality, said=Said.NOTHING) is None
