"""Every kind of output through the archive, and enhanced multi-frame objects as inputs of every kind."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import highdicom as hd
import judges
import making
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.job import JobState
from pacs.processing import Images, NotApplicable, Series
from pacs.processing.derive import Provenance, derive, encode
from pacs.processing.registry import discover, survey
from pacs.processing.runner import run_job
from pacs.processing.schedule import ask
from pacs.processing.validate import findings
from pacs.retrieve import data_set

PLUGIN = '''
from collections.abc import Iterator
import numpy as np
from pacs.processing import (
    Blending, Finding, Map, Mark, Measurements, Output, Presentation, Probabilities, Report, Segment, Segmentation,
    Series, Unplaced, Value, codes, processor,
)

@processor("everything", version="1", makes=("SEG", "PR"))
def everything(series: Series) -> Iterator[Output]:
    """One of each kind."""
    values = series.array()
    labels = (values > values.mean()).astype(np.uint8)
    segments = {1: Segment("Bright", codes.SCT.Organ)}
    numbers = Map(series, values / 3, codes.SCT.Mean, codes.UCUM.NoUnits, "a third")
    images = numbers.images(description="in 16 bits")
    binary = Segmentation(series, labels, segments, "binary")
    yield binary
    yield Measurements(binary, {1: [Value(codes.SCT.Volume, 1.5, codes.UCUM.CubicCentimeter)]}, "numbers")
    yield Segmentation(series, labels, segments, "label map", encoding="labelmap")
    yield Probabilities(series, labels * 0.5, list(segments.values()), "fractions")
    yield numbers
    yield images
    yield Presentation(series, "window", window=(40, 400), marks=[Mark(1, "circle", [(5, 5), (5, 9)], "here")])
    yield Blending(series, images, "blended", under_window=(40, 400), over_window=(0, 100))
    flat = [values.mean(axis=0).astype(np.int16)]
    yield Unplaced(flat, [series.datasets], "flat", slope=1.0, intercept=0.0, rescale_type="HU", spacing_mm=(1.0, 2.0))
    yield Report(series, [Finding(codes.DCM.AcquisitionPlane, codes.SCT.Axial, 0.5, "so")], "findings")
'''


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "processors"
    folder.mkdir(parents=True)
    (folder / "everything.py").write_text(PLUGIN)
    return folder


@pytest.fixture
def archive(plugins: Path) -> Iterator[Archive]:
    with making.archive(plugins.parent) as opened:
        yield opened


def through(archive: Archive, datasets: list[Dataset]) -> list[Dataset]:
    """What the archive gives out after the processor has run on a series, as files."""
    for one in datasets:
        ingest(archive, making.received(one))
    archive.index.end_association("a1")
    study = archive.index.studies()[0].study_instance_uid
    (series,) = archive.index.series_of(study)
    spec = discover(archive.settings.plugins_path)["everything"]
    job_id = ask(archive.index, spec, {}, study, [series.series_instance_uid])
    assert job_id is not None
    run_job(archive, {"everything": spec}, job_id, worker="test")
    job = archive.index.jobs.get(job_id)
    assert (job.state, job.reason) == (JobState.SUCCEEDED, "")
    found = []
    for stored in archive.index.locate(study_instance_uids=[study]):
        parts = data_set(archive, stored, [ExplicitVRLittleEndian])
        one = dcmread(BytesIO(b"".join(bytes(buffer) for buffer in parts.buffers)), force=True)
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found.append(one)
    return found


def enhanced_ct(planes: np.ndarray, *, upside_down: bool = False) -> Dataset:
    """Return an Enhanced CT of planes 5 mm apart at 2 mm pixels, its frames from foot to head or the other way about."""
    one = making.dataset(frame=planes[0])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "InstanceNumber",
                    "RescaleSlope", "RescaleIntercept", "RescaleType", "KVP", "PixelData"):  # fmt: skip
        delattr(one, keyword)
    order = range(len(planes))[::-1] if upside_down else range(len(planes))
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    one.InstanceNumber = 1
    one.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    one.NumberOfFrames = len(planes)
    one.AcquisitionDateTime = "20240229101500"
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = [made(PixelSpacing=[2, 2], SliceThickness=5, SpacingBetweenSlices=5)]
    shared.PlaneOrientationSequence = [made(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelValueTransformationSequence = [made(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")]
    shared.CTXRayDetailsSequence = [made(KVP=100)]
    shared.CTImageFrameTypeSequence = [made(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]
    for at, z in enumerate(order):
        content = made(StackID="1", InStackPositionNumber=at + 1, DimensionIndexValues=[1, at + 1])
        frames.append(
            made(FrameContentSequence=[content], PlanePositionSequence=[made(ImagePositionPatient=[-60, -60, 5.0 * z])])
        )
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = frames
    organization = f"{one.StudyInstanceUID}.55"
    one.DimensionOrganizationSequence = [made(DimensionOrganizationUID=organization)]
    one.DimensionIndexSequence = [
        made(DimensionOrganizationUID=organization, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111)
        for pointer in (0x00209056, 0x00209057)
    ]
    one.add_new(0x7FE00010, "OW", np.stack([planes[z] for z in order]).astype("<i2").tobytes())
    return one


def made(**attributes: object) -> Dataset:
    """A data set of these attributes."""
    one = Dataset()
    for keyword, value in attributes.items():
        setattr(one, keyword, value)
    return one


def read(one: Dataset) -> Dataset:
    again = dcmread(BytesIO(making.encode(one)), force=True)
    again.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return again


def at(numbers: Dataset, place: Sequence[float]) -> np.ndarray:
    """The plane of a Parametric Map that begins at a place, as highdicom finds it."""
    opened = hd.pm.ParametricMap.from_dataset(numbers)
    index = np.linalg.inv(opened.get_volume_geometry().affine) @ [*map(float, place), 1]
    return opened.get_volume().array[round(index[0])]


PLANES = np.stack([making.pixels(seed=number) + 10 * number for number in range(4)])


def test_every_kind_is_stored_and_comes_back(archive: Archive, tmp_path: Path) -> None:
    """De-identified, encoded, sealed and retrieved: no judge finds an error, in one object or across the study."""
    found = through(archive, making.ct_series(3))

    assert sorted({str(one.Modality) for one in found}) == ["CT", "OT", "PR", "SEG", "SR"]
    assert not any(word.encode() in encode(one) for one in found for word in making.PLANTED)
    paths = judges.written(tmp_path / "out", found)
    assert {str(path): judges.errors(path) for path in paths if judges.errors(path)} == {}
    assert judges.errors_together(paths) == []
    (numbers,) = (one for one in found if "FloatPixelData" in one)
    source = Series([one for one in found if one.Modality == "CT" and one.ImageType[0] == "ORIGINAL"])
    for image, plane in zip(source.datasets, source.array(), strict=True):
        assert np.allclose(at(numbers, image.ImagePositionPatient), plane / 3)


@pytest.mark.parametrize("upside_down", [False, True])
def test_an_enhanced_ct_is_a_volume(upside_down: bool) -> None:
    """Geometry and rescale come from the functional groups; slices are in order whatever the order of the frames."""
    series = Series([read(enhanced_ct(PLANES, upside_down=upside_down))])

    assert (len(series), series.modality, series.number("KVP")) == (4, "CT", 100)
    assert series.geometry().spacing_mm == (5, 2, 2)
    assert series.geometry().origin == (-60, -60, 0)
    assert np.array_equal(series.array(), PLANES.astype(np.float32))
    assert len(series.instances) == 1


@pytest.mark.parametrize("upside_down", [False, True])
def test_every_kind_can_be_made_of_an_enhanced_ct(upside_down: bool, plugins: Path, tmp_path: Path) -> None:
    """Results lie where the source lies, name the multi-frame object and its frames, and no judge finds an error."""
    whole = read(enhanced_ct(PLANES, upside_down=upside_down))
    series, known = Series([whole]), {str(whole.SOPInstanceUID)}
    found = {}
    for one in derive(survey(plugins)[0]["everything"].function(series), Provenance("a" * 64, "everything", "1")):
        assert findings(one, encode(one.dataset), known, str(whole.StudyInstanceUID)) == []
        known.add(str(one.dataset.SOPInstanceUID))
        found[f"{one.dataset.SeriesDescription} {one.dataset.get('InstanceNumber')}"] = one.dataset

    paths = judges.written(tmp_path / "out", list(found.values()))
    assert {str(path): judges.errors(path) for path in paths if judges.errors(path)} == {}
    third = found["in 16 bits (research use) 2"]
    assert str(third.SOPClassUID) == "1.2.840.10008.5.1.4.1.1.2"
    assert third.SourceImageSequence[0].ReferencedSOPClassUID == whole.SOPClassUID
    numbers = next(one for one in found.values() if "FloatPixelData" in one)
    for z in range(4):
        assert np.allclose(at(numbers, (-60, -60, 5 * z)), PLANES[z] / 3, atol=1e-3)


def as_mr(one: Dataset) -> Dataset:
    """The same frames as an Enhanced MR: two echo times' worth of macros, an inversion-prepared gradient echo."""
    one.SOPClassUID, one.Modality = "1.2.840.10008.5.1.4.1.1.4.1", "MR"
    shared = one.SharedFunctionalGroupsSequence[0]
    del shared.CTXRayDetailsSequence, shared.CTImageFrameTypeSequence
    shared.MRImageFrameTypeSequence = [made(FrameType=["ORIGINAL", "PRIMARY", "T1", "NONE"])]
    shared.MREchoSequence = [made(EffectiveEchoTime=3.5)]
    shared.MRTimingAndRelatedParametersSequence = [made(RepetitionTime="2000", FlipAngle="9", EchoTrainLength=1)]
    one.EchoPulseSequence, one.Spoiling = "GRADIENT", "RF"
    shared.MRModifierSequence = [made(InversionRecovery="YES", InversionTimes=900.0)]
    one.VolumetricProperties = "VOLUME"
    return one


def as_pet(one: Dataset) -> Dataset:
    """The same frames as an Enhanced PET in Bq/ml."""
    one.SOPClassUID, one.Modality = "1.2.840.10008.5.1.4.1.1.130", "PT"
    shared = one.SharedFunctionalGroupsSequence[0]
    del shared.CTXRayDetailsSequence, shared.CTImageFrameTypeSequence
    shared.PixelValueTransformationSequence = [made(RescaleSlope=2, RescaleIntercept=0, RescaleType="US")]
    unit = made(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Becquerels per milliliter")
    shared.RealWorldValueMappingSequence = [made(MeasurementUnitsCodeSequence=[unit])]
    one.DecayCorrected, one.AttenuationCorrected, one.ScatterCorrected = "YES", "YES", "NO"
    return one


def test_an_enhanced_mr_is_read_as_mr_images(plugins: Path, tmp_path: Path) -> None:
    """Echo time, sequence and variant stand where processors of MR images look; results are valid MR images."""
    whole = read(as_mr(enhanced_ct(PLANES)))
    series = Series([whole])

    first = series.first
    assert (series.number("EchoTime"), series.number("RepetitionTime"), series.number("FlipAngle")) == (3.5, 2000, 9)
    assert (list(first.ScanningSequence), first.SequenceVariant, first.MRAcquisitionType) == (["GR", "IR"], "SP", "3D")
    assert series.number("InversionTime") == 900
    images = Images([PLANES[number].astype(np.int16) for number in range(4)], like=series.datasets, description="same")
    results = [one.dataset for one in derive([images], Provenance("a" * 64, "x", "1"))]
    assert {str(one.SOPClassUID) for one in results} == {"1.2.840.10008.5.1.4.1.1.4"}
    assert [judges.errors(path) for path in judges.written(tmp_path / "out", results)] == [[]] * 4


def test_an_enhanced_pet_is_read_as_pet_images() -> None:
    """Units, corrections and rescale are those of PET images."""
    series = Series([read(as_pet(enhanced_ct(PLANES)))])

    assert (series.first.Units, series.first.DecayCorrection, list(series.first.CorrectedImage)) == (
        "BQML",
        "START",
        ["DECY", "ATTN"],
    )
    assert np.array_equal(series.array(), PLANES.astype(np.float32) * 2)


def test_an_enhanced_ct_goes_through_the_archive(archive: Archive) -> None:
    """De-identified and compressed on the way in, read frame by frame by the processor."""
    found = through(archive, [enhanced_ct(PLANES)])

    assert len(found) == 1 + 4 + 9


def test_two_multi_frame_objects_are_not_labelled_together() -> None:
    """Their frames have no common order, so a segmentation is refused, with the reason."""
    first, second = read(enhanced_ct(PLANES)), read(enhanced_ct(PLANES))
    second.SOPInstanceUID += ".2"

    with pytest.raises(NotApplicable, match="one multi-frame object"):
        Series([first, second]).in_stored_order(np.zeros((8, 64, 64)))
