"""Studies whose truth is known: what the demo sends, the tests check and `pacs score` measures on; `pacs phantom` writes them.

Everything is made of formulas and seeded noise: the same every time, no data set behind it, nobody's images. A function returns
data sets as a processor gets them (written, and read again), and what is true of them.
"""

from pacs.phantoms.abdomen import abdomen
from pacs.phantoms.base import dataset, encode, mesh, pixels, read, stack
from pacs.phantoms.chest import NODULES, PLAQUES, airways, chest, lungs
from pacs.phantoms.head import MR, head, tissues
from pacs.phantoms.inserts import Tube, bead, calcium, thigh, tissue, tube
from pacs.phantoms.pet import FRAME_OF_REFERENCE, SPHERES, STUDY, hot_spheres, pet_ct
from pacs.phantoms.projection import FAINT, faint, radiograph

__all__ = [
    "FAINT",
    "FRAME_OF_REFERENCE",
    "MR",
    "NODULES",
    "PLAQUES",
    "SPHERES",
    "STUDY",
    "Tube",
    "abdomen",
    "airways",
    "bead",
    "calcium",
    "chest",
    "dataset",
    "encode",
    "faint",
    "head",
    "hot_spheres",
    "lungs",
    "mesh",
    "pet_ct",
    "pixels",
    "radiograph",
    "read",
    "stack",
    "thigh",
    "tissue",
    "tissues",
    "tube",
]
