"""Exports for model builders: volumes and masks in place, patients in one split, the same files for the same seed."""

import json
from collections.abc import Iterator
from pathlib import Path

import making
import numpy as np
import pytest
import SimpleITK as sitk
import zarr
from pydicom import dcmread
from typer.testing import CliRunner

from pacs import phantoms
from pacs.archive import Archive
from pacs.cli.app import app
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError
from pacs.model.job import JobState
from pacs.processing.export import MANIFEST, Plan, export
from pacs.processing.registry import discover
from pacs.processing.runner import run_job
from pacs.processing.schedule import ask

PATIENTS = 6


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive with a thigh that has a segmentation, and small series of further patients."""
    with making.archive(tmp_path_factory.mktemp("home")) as opened:
        for one in phantoms.thigh()[0]:
            ingest(opened, making.received(one, association="thigh"))
        opened.index.end_association("thigh")
        study = opened.index.studies()[0].study_instance_uid
        (series,) = opened.index.series_of(study)
        found = discover(None)
        job = ask(opened.index, found["ct-tissues"], {}, study, [series.series_instance_uid])
        assert job is not None and run_job(opened, found, job, worker="test") is JobState.SUCCEEDED
        for number in range(1, PATIENTS):
            uid = f"{making.STUDY_UID}.7{number}"
            for one in making.ct_series(3, study_uid=uid, series_uid=f"{uid}.1", patient_id=f"P{number}", Modality="CT"):
                ingest(opened, making.received(one, association=f"a{number}"))
            opened.index.end_association(f"a{number}")
        yield opened


def test_volumes_and_masks_lie_in_place(archive: Archive, tmp_path: Path) -> None:
    """The volume is in Hounsfield units on the source's grid; the mask is on the same grid and says who made it."""
    rows = list(export(archive, tmp_path / "x", Plan(masks_only=True)))
    files = {row["kind"]: row for row in rows if "file" in row}
    image, mask = (sitk.ReadImage(str(tmp_path / "x" / files[kind]["file"])) for kind in ("image", "mask"))
    assert image.GetSize() == mask.GetSize() == (96, 96, 8)
    assert image.GetOrigin() == mask.GetOrigin() == pytest.approx((-95.0, -95.0, 0.0))
    values, labels = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(mask)
    meanings = {number: one["label"] for number, one in files["mask"]["labels"].items()}
    fat = next(int(number) for number, name in meanings.items() if name == "Fat")
    assert values[labels == fat].mean() == pytest.approx(-105, abs=10)
    assert files["mask"]["labels"]["1"]["made_by"].startswith("ct-tissues")
    assert sum("left_out" in row for row in rows) == PATIENTS - 1, "series without a segmentation are told of"
    assert [json.loads(line) for line in (tmp_path / "x" / MANIFEST).read_text().splitlines()] == json.loads(json.dumps(rows))


def test_the_same_plan_writes_the_same_values(archive: Archive, tmp_path: Path) -> None:
    """Splits, resampling and augmentation follow from the seed; another seed makes other variants."""
    plan = Plan("zarr", {"Modality": "CT"}, {"train": 0.5, "test": 0.5}, spacing_mm=4.0, window=(-200, 200), augment=1)

    def volumes(name: str, chosen: Plan) -> dict[str, np.ndarray]:
        rows = list(export(archive, tmp_path / name, chosen))
        return {row["file"]: np.asarray(zarr.open_group(tmp_path / name / row["file"])["image"]) for row in rows}

    once, again = volumes("a", plan), volumes("b", plan)
    assert once.keys() == again.keys() and len(once) == 2 * PATIENTS
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert all(volume.min() >= 0 and volume.max() <= 1 for name, volume in once.items() if "_1" not in name)
    other = volumes("c", Plan("zarr", {"Modality": "CT"}, spacing_mm=4.0, window=(-200, 200), augment=1, seed=2))
    variants = [{Path(name).parts[-2]: one for name, one in found.items() if "_1" in name} for found in (once, other)]
    assert not any(np.array_equal(one, variants[1][uid]) for uid, one in variants[0].items())


def test_a_patient_has_one_split(archive: Archive) -> None:
    """Whoever else is there; shares come out about right over many patients."""
    plan = Plan(splits={"train": 0.7, "val": 0.1, "test": 0.2})
    found = [plan.split_of(f"patient {number}") for number in range(2000)]
    assert found.count("train") == pytest.approx(1400, abs=80)
    assert found.count("test") == pytest.approx(400, abs=60)


def test_dicom_is_written_as_it_is(archive: Archive, tmp_path: Path) -> None:
    """Files with their masks beside them; nothing of the planted identity in any."""
    rows = list(export(archive, tmp_path / "x", Plan("dicom", {"Rows": 96})))
    assert sorted({row["kind"] for row in rows}) == ["image", "mask"]
    for row in rows:
        content = (tmp_path / "x" / row["file"]).read_bytes()
        assert not any(word.encode() in content for word in making.PLANTED)
        assert dcmread(tmp_path / "x" / row["file"]).PatientID == row["patient_id"]


@pytest.mark.parametrize(
    "wrong",
    [{"format": "jpeg"}, {"format": "dicom", "augment": 1}, {"splits": {"train": 0.5}}, {"window": (0.0, 1.0), "zscore": True}],
)
def test_a_plan_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigurationError):
        Plan(**wrong)  # type: ignore[arg-type]


def test_command_tells_what_it_wrote(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a file for scripts; a second export into the same folder is refused."""
    monkeypatch.setenv("PACS_HOME", str(archive.settings.home))
    arguments = ["export", str(tmp_path / "x"), "--where", "Modality=CT", "--split", "train=1", "--zscore", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert len([line for line in result.stdout.splitlines() if '"file"' in line]) == PATIENTS + 1
    assert CliRunner().invoke(app, arguments).exit_code == 1
