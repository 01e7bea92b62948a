"""The phantoms that people can ask for by name, with lesions, noise, motion and a defect; each with what is true of it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.dicom.uids import uid_of
from pacs.phantoms import petct
from pacs.phantoms.abdomen import abdomen
from pacs.phantoms.base import read
from pacs.phantoms.breast import mammogram
from pacs.phantoms.chest import NODULES, airways, chest, lungs
from pacs.phantoms.defects import DEFECTS, moving, noisy
from pacs.phantoms.head import TISSUES, head, tissues
from pacs.phantoms.inserts import thigh, tube
from pacs.phantoms.pet import SPHERES, hot_spheres, pet_ct
from pacs.phantoms.projection import radiograph
from pacs.phantoms.sinogram import sinogram
from pacs.phantoms.ultrasound import BANNER_ROWS, ultrasound


@dataclass(frozen=True, slots=True)
class Wish:
    """What a phantom is asked for. `noise` is a standard deviation in stored values, `motion` in mm; None is the usual."""

    lesions: int | None = None
    noise: float | None = None
    motion_mm: float = 0.0
    defect: str | None = None
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Made:
    """The images by series, label masks of the first series with their names, and further facts."""

    series: list[list[Dataset]]
    labels: NDArray[Any] | None = field(default=None, repr=False)
    names: Mapping[int, str] = field(default_factory=dict)
    truth: Mapping[str, Any] = field(default_factory=dict)


def make(name: str, wish: Wish | None = None) -> Made:
    """Return a phantom. Its UIDs follow from name and wish: the same wish makes the same study, another one another study.

    Raises
    ------
    KeyError
        Where there is no phantom, or no defect, of that name.
    """
    wish = wish or Wish()
    made = PHANTOMS[name][1](wish)
    series = made.series
    if wish.motion_mm:
        series = [moving(one, wish.motion_mm) for one in series]
    if wish.noise is not None:
        series = [noisy(one, wish.noise, wish.seed) for one in series]
    if wish.defect is not None:
        series = [DEFECTS[wish.defect][1](series[0]), *series[1:]]
    own = f"{name}|{wish}"
    for number, images in enumerate(series):
        for index, one in enumerate(images):
            for keyword, part in (
                ("StudyInstanceUID", ""),
                ("FrameOfReferenceUID", "frame"),
                ("SeriesInstanceUID", f"{number}"),
                ("SOPInstanceUID", f"{number}|{index}"),
            ):
                if one.get(keyword):
                    setattr(one, keyword, uid_of(hashlib.sha256(f"{own}|{part}".encode()).digest()))
    return replace(made, series=series)


def _ct_chest(wish: Wish) -> Made:
    nodules = NODULES[: wish.lesions]
    found = [{"kind": "nodule", "at_mm": place, "diameter_mm": diameter} for place, diameter in nodules]
    return Made([chest(nodules=nodules)], truth={"lesions": found})


def _ct_lungs(wish: Wish) -> Made:
    datasets, labels = lungs()
    return Made([read(datasets)], labels, {1: "Right lung", 2: "Left lung"})


def _ct_abdomen(wish: Wish) -> Made:
    datasets, labels = abdomen()
    return Made([datasets], labels, {1: "Liver", 2: "Lesion"})


def _ct_thigh(wish: Wish) -> Made:
    datasets, labels = thigh()
    return Made([datasets], labels, {1: "Bone", 2: "Fat", 3: "Muscle"})


def _ct_airways(wish: Wish) -> Made:
    datasets, lumen = airways()
    return Made([datasets], lumen.astype(np.uint8), {1: "Airways"})


def _ct_tube(wish: Wish) -> Made:
    datasets, truth = tube()
    facts = {"length_mm": truth.length, "radius_mm": truth.radius, "bend_mm": truth.bend}
    line = [truth.at(float(angle)) for angle in np.linspace(0, truth.angle, 13)]
    return Made([datasets], truth={**facts, "line_mm": line})


def _ct_head(wish: Wish) -> Made:
    datasets, labels = tissues("CT")
    return Made([datasets], labels, TISSUES)


def _mr_tissues(wish: Wish) -> Made:
    datasets, labels = tissues("MR")
    return Made([datasets], labels, TISSUES)


def _pet_ct(wish: Wish) -> Made:
    ct, pt, hot = pet_ct()
    return Made([read(ct), read(pt)], truth={"lesions": [{"kind": "hot spot", "at_mm": hot}]})


def _pet_ct_chest(wish: Wish) -> Made:
    images: dict[str, list[Dataset]] = {}
    for name, one in petct.study():
        images.setdefault(name, []).append(one)
    nodule = {"kind": "nodule", "at_mm": petct.NODULE_MM, "diameter_mm": 2 * petct.NODULE_RADIUS_MM, "suv": petct.NODULE_SUV}
    return Made(list(images.values()), petct.lungs(petct.CT_GRID).astype(np.uint8), {1: "Lungs"}, {"lesions": [nodule]})


def _pet(wish: Wish) -> Made:
    found = [{"kind": "sphere", "at_mm": place, "diameter_mm": 2 * radius, "suv": suv} for place, radius, suv in SPHERES]
    return Made([hot_spheres(fwhm_mm=6.0)], truth={"lesions": found})


def _mr_head(wish: Wish) -> Made:
    datasets, _, white, whole = head()
    return Made([datasets], np.where(white, 1, np.where(whole, 2, 0)).astype(np.uint8), {1: "White matter", 2: "Rest of head"})


def _cr(wish: Wish) -> Made:
    return Made([read([radiograph()])])


def _dx(wish: Wish) -> Made:
    return Made([read([radiograph(modality="DX")])])


def _mg(wish: Wish) -> Made:
    one, found = mammogram(lesions=2 if wish.lesions is None else wish.lesions, seed=wish.seed)
    return Made([[one]], truth={"lesions": found})


def _us(wish: Wish) -> Made:
    return Made([[ultrasound(seed=wish.seed)]], truth={"banner_rows": BANNER_ROWS})


def _sinogram(wish: Wish) -> Made:
    return Made([[sinogram(seed=wish.seed)]], truth={"arc_deg": 180})


PHANTOMS: Mapping[str, tuple[str, Callable[[Wish], Made]]] = {
    "ct-chest": ("A small chest CT of 1.5 mm slices, with vessels and nodules of known size", _ct_chest),
    "ct-lungs": ("A chest CT of 6 mm slices with labelled lungs, a trachea and a table", _ct_lungs),
    "ct-abdomen": ("An upper abdomen with contrast medium, with a labelled liver and a lesion in it", _ct_abdomen),
    "ct-thigh": ("A thigh with labelled bone, fat and muscle", _ct_thigh),
    "ct-airways": ("A chest CT whose labelled trachea parts into bronchi, one with a hole in its wall", _ct_airways),
    "ct-head": ("A head CT on a head rest, with labelled tissues, skull and fluid", _ct_head),
    "ct-tube": ("A bent tube in water, its length, radius and line known", _ct_tube),
    "pet-ct": ("A coarse CT and a PET on another grid with one hot spot", _pet_ct),
    "pet-ct-chest": ("What `pacs demo` sends: chest CT with labelled lungs, PET with a hot nodule", _pet_ct_chest),
    "pet-spheres": ("A PET with three spheres of known SUV, blurred by 6 mm", _pet),
    "mr-head": ("A shaded T1-like head with labelled white matter", _mr_head),
    "mr-tissues": ("A shaded T1-like head with labelled white and grey matter, fluid, skull and fat", _mr_tissues),
    "cr": ("A computed radiograph: a ramp with two discs", _cr),
    "dx": ("A digital radiograph for presentation: a ramp with two discs", _dx),
    "mammogram": ("A left cranio-caudal mammogram with masses and calcifications", _mg),
    "ultrasound": ("An ultrasound sector with a name burned into its banner", _us),
    "sinogram": ("Projection data of a slice, to be reconstructed", _sinogram),
}
"""Name -> what it is, and its maker."""
