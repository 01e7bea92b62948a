"""What `pacs processors new` writes: a plug-in that works as it stands, and its test."""

from pathlib import Path

from pacs.model.errors import ConfigurationError
from pacs.processing.api import NAME

PLUGIN = '''"""NAME: say here what it does, from which paper, and where it ends."""

from collections.abc import Iterator
from typing import Annotated

import numpy as np

from pacs.processing import Measurements, NotApplicable, Range, Segment, Segmentation, Series, Value, codes, processor


@processor("NAME", version="0.1.0", makes=("SEG", "SR"), when={"Modality": "CT"})
def FUNCTION(
    series: Series, *, threshold: Annotated[float, Range(-1000, 3000, "HU"), "what is above it is labelled"] = 250.0
) -> Iterator[Segmentation | Measurements]:
    """Label what is denser than a threshold, and measure its volume."""
    geometry = series.geometry()
    labels = (series.array() > threshold).astype(np.uint8)
    if not labels.any():
        raise NotApplicable("nothing is as dense as the threshold")
    segmentation = Segmentation(series, labels, {1: Segment("Bone", codes.SCT.Bone)}, "NAME")
    yield segmentation
    volume_ml = float(labels.sum() * np.prod(geometry.spacing_mm) / 1000)
    yield Measurements(segmentation, {1: [Value(codes.SCT.Volume, volume_ml, codes.UCUM.CubicCentimeter)]}, "Volume")
'''

TEST = '''"""NAME on a phantom of known truth: run it with `pytest FILE`."""

import numpy as np
from MODULE import FUNCTION

from pacs.phantoms import stack
from pacs.processing.trial import try_out


def test_it_measures_what_was_put_in() -> None:
    """A block of 10 x 10 x 4 voxels of 2 x 2 x 5 mm, 900 HU in water, is 8 mL."""
    volume = np.zeros((8, 40, 40))
    volume[2:6, 10:20, 10:20] = 900

    trial = try_out(FUNCTION, stack(volume, (5, 2, 2)))

    assert trial.succeeded, trial.reason + trial.trace
    assert [one.Modality for one in trial.results] == ["SEG", "SR"]
    assert "8" in str(trial.results[1])


def test_it_refuses_what_it_is_not_for() -> None:
    """Where nothing is dense, the job is skipped, with the reason."""
    assert try_out(FUNCTION, stack(np.zeros((8, 40, 40)), (5, 2, 2))).state == "skipped"
'''


def write(name: str, folder: Path) -> tuple[Path, Path]:
    """Write plug-in and test into a folder; returns their paths.

    Raises `ConfigurationError` for a name that is none, and where a file is there already.
    """
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{name} is not a name of lower-case letters, digits and hyphens")
    module = name.replace("-", "_")
    plugin, test = folder / f"{module}.py", folder / f"test_{module}.py"
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in ((plugin, PLUGIN), (test, TEST)):
        if path.exists():
            raise ConfigurationError(f"{path} is there already; choose another name or another folder")
        filled = text.replace("NAME", name).replace("FUNCTION", module).replace("MODULE", module).replace("FILE", test.name)
        path.write_text(filled, encoding="utf-8")
    return plugin, test
