"""What shows a face besides head series loses it where they did; and what nobody can tell of goes to quarantine."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import highdicom as hd
import making
import making_head
import numpy as np
import pytest
from deid.deidentifying import code
from processing.held_heads import clean, methods, reasons, send, visible
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from pacs.deid.face import Region, Said, find
from pacs.dicom import part10
from pacs.ingest import ingest, ingest_derived
from pacs.model.instance import Origin, Received

SEG, LABELMAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
PET, DOSE = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.481.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
CHEST = {"BodyPartExamined": "CHEST", "SeriesDescription": "Lung", "StudyDescription": "CT chest"}
FACELESS = {"deid__policy": "research-faceless"}


@cache
def head() -> making_head.Head:
    return making_head.head("MR", pixel_mm=4.0, slice_mm=8.0)


@cache
def region() -> Region:
    found = find(head().planes, head().floats(), modality="MR", said=Said.HEAD)
    assert found is not None
    return found


def cut(made: making_head.Head) -> np.ndarray:
    return np.stack([region().mask(plane) for plane in made.planes])


def images() -> list[Dataset]:
    return making_head.datasets(head())


def segmentation(kind: str, number: int, source: list[Dataset], **overrides: object) -> Dataset:
    """Skin and brain of the head as two segments, as another vendor's tool sends them."""
    described = [
        hd.seg.SegmentDescription(
            segment_number=nth,
            segment_label=label,
            segmented_property_category=Code("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=meaning,
            algorithm_type="MANUAL",
        )
        for nth, (label, meaning) in enumerate(
            (("Skin", Code("39937001", "SCT", "Skin")), ("Brain", Code("12738006", "SCT", "Brain"))), start=1
        )
    ]
    labels = np.stack([head().skin & ~head().brain, head().brain], axis=-1)
    pixels = np.where(head().brain, 2, head().skin).astype(np.uint8) if kind == "LABELMAP" else labels
    made = hd.seg.Segmentation(
        source_images=source,
        pixel_array=pixels.astype(np.float32) * 0.5 if kind == "FRACTIONAL" else pixels.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=f"{making.SERIES_UID}.66.{number}",
        series_number=66,
        sop_instance_uid=f"{making.SERIES_UID}.66.{number}.1",
        instance_number=1,
        manufacturer="Phantom Works",
        manufacturer_model_name="Outliner",
        software_versions="1",
        device_serial_number="1",
    )
    for keyword, value in {"BodyPartExamined": "HEAD", "ContentLabel": f"NUMBER{number}", **overrides}.items():
        setattr(made, keyword, value)
    return made


def segments(ds: Dataset) -> np.ndarray:
    """The two segments in the head's grid, 0 and 1, whatever the encoding."""
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    out = np.zeros((*head().skin.shape, 2), np.uint8)
    heights = [plane.position[2] for plane in head().planes]
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        at = int(np.argmin(np.abs(np.array(heights) - float(group.PlanePositionSequence[0].ImagePositionPatient[2]))))
        if ds.SOPClassUID == LABELMAP:
            out[at, ..., 0], out[at, ..., 1] = frame == 1, frame == 2
        else:
            out[at, ..., group.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1] = frame > 0
    return out


def pet(**overrides: object) -> tuple[making_head.Head, list[Dataset]]:
    """Coronal PET of the same head, coarser and wider: skin takes up as brain does."""
    made = making_head.head("CT", "coronal", pixel_mm=5.0, slice_mm=7.0, field_mm=360.0)
    activity = (made.skin * 700 + made.brain * 900).astype("<i2")
    slices = making_head.datasets(
        making_head.Head("PT", made.planes, activity, made.brain, made.parts, made.skin),
        series_uid=making.SERIES_UID + ".128",
        SOPClassUID=PET,
        RescaleSlope="2.5",
        Units="BQML",
        DecayCorrection="START",
        CorrectedImage=["ATTN", "DECY"],
        SeriesDescription="PET",
        **overrides,
    )
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = "370000000", "6586.2"
    drug.RadiopharmaceuticalStartDateTime = "20240229090000"
    drug.RadionuclideCodeSequence = [code("C-111A1", "SRT", "^18^Fluorine")]
    for ds in slices:
        del ds.RescaleType, ds.KVP
        ds.RadiopharmaceuticalInformationSequence = [drug]
    return made, slices


def dose() -> tuple[making_head.Head, Dataset]:
    """A dose grid over the head: all of its planes in one image, by their offsets (PS3.3 C.8.8.3.2)."""
    made = making_head.head("CT", pixel_mm=6.0, slice_mm=8.0)
    first = making_head.Head("RTDOSE", made.planes[:1], made.frames[:1], made.brain, made.parts, made.skin)
    (grid,) = making_head.datasets(first, series_uid=making.SERIES_UID + ".481", SOPClassUID=DOSE)
    grid.NumberOfFrames, grid.PixelRepresentation = len(made.planes), 0
    grid.GridFrameOffsetVector = [8.0 * number for number in range(len(made.planes))]
    grid.DoseUnits, grid.DoseType, grid.DoseSummationType, grid.DoseGridScaling = "GY", "PHYSICAL", "PLAN", "0.001"
    grid.add_new(0x7FE00010, "OW", (made.skin * 5000).astype("<u2").tobytes())
    return made, grid


@cache
def jaw() -> making_head.Head:
    return making_head.head("MR", pixel_mm=4.0, slice_mm=8.0, slab_mm=(-110, -60))


def jaw_images() -> list[Dataset]:
    return making_head.datasets(jaw(), series_uid=making.SERIES_UID + ".8", SeriesDescription="FACE ADC")


SENT: Mapping[str, Mapping[str, object]] = {
    "binary": {},
    "fractional": {},
    "labelmap": {},
    "chest beside": CHEST,
    "chest alone": {**CHEST, "FrameOfReferenceUID": "1.2.840.99999.5.5"},
    "no head": {"FrameOfReferenceUID": "1.2.840.99999.5.6"},
    "no word left": {
        "FrameOfReferenceUID": "1.2.840.99999.5.7",
        "BodyPartExamined": "",
        "StudyDescription": "Chest TMJ",
    },
}


@cache
def sent(name: str) -> Dataset:
    """One of the segmentations that are sent, named here."""
    kind = name.upper() if name in ("fractional", "labelmap") else "BINARY"
    return segmentation(kind, list(SENT).index(name), images(), **SENT[name])


@dataclass(frozen=True)
class Outcome:
    """What became of a study that came in parts: first shapes, then the head, then, after a restart, other shapes."""

    held: tuple[int, int]
    shown: list[Dataset]
    reasons: list[str]
    database: bytes
    before_cleaning: int

    def __getitem__(self, name: str) -> Dataset:
        """The segmentation that was sent by this name."""
        (found,) = (ds for ds in self.shown if ds.get("ContentLabel") == f"NUMBER{list(SENT).index(name)}")
        return found


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    home = tmp_path_factory.mktemp("shapes") / "home"
    with making.archive(home, **FACELESS) as archive:
        send(archive, [sent("binary"), dose()[1], *pet()[1]], "a1")
        first = len(visible(archive))
        send(archive, images(), "a2")
        before = len(visible(archive))
        clean(archive)
        shown = visible(archive)
    database = b"".join(file.read_bytes() for file in home.glob("index.db*"))
    with making.archive(home, **FACELESS) as archive:
        send(archive, [*jaw_images(), *(sent(name) for name in SENT if name != "binary")], "a3")
        second = len(visible(archive)) - len(shown)
        clean(archive)
        return Outcome((first, second), visible(archive), reasons(archive), database, before)


def test_until_the_head_is_done_nothing_is_shown(outcome: Outcome) -> None:
    """Neither what came before the head, nor what came after it and has yet to be cut."""
    assert outcome.held == (0, 0) and outcome.before_cleaning == 0
    assert sum(ds.SOPClassUID == MR for ds in outcome.shown) == len(head().frames) + len(jaw().frames)


@pytest.mark.parametrize("kind", ["binary", "fractional", "labelmap"])
def test_trap_36_a_segmentation_loses_the_face_of_its_frame_of_reference(kind: str, outcome: Outcome) -> None:
    """Empty where the face was, and the same everywhere else, whether it came before the head or (the others) after it."""
    came, after = sent(kind), outcome[kind]
    before = segments(came)

    assert (before[..., 0] & cut(head())).any()
    assert np.array_equal(segments(after), before & ~cut(head())[..., None])
    assert np.array_equal(segments(after)[..., 1], head().brain)
    for name, part in head().parts.items():
        assert segments(after)[part].mean() < 0.02, name
    assert "113102" in methods(after) and after.RecognizableVisualFeatures == "NO"
    assert len(after.PixelData) == len(came.PixelData) and len(after.SegmentSequence) == len(came.SegmentSequence)


def test_trap_25_pet_of_another_grid_loses_the_face_and_computes_the_same_suv(outcome: Outcome) -> None:
    """Coronal, coarser, wider: where the face was there is no activity, elsewhere every count and every SUV input stays."""
    made, slices = pet()
    after = [ds for ds in outcome.shown if ds.SOPClassUID == PET]

    counts = np.stack([np.frombuffer(ds.PixelData, "<i2").reshape(ds.Rows, ds.Columns) for ds in after])
    before = made.skin * 700 + made.brain * 900
    assert np.array_equal(counts, np.where(cut(made), 0, before))
    for name, part in made.parts.items():
        assert (counts[part] == 0).mean() > 0.95, name
    assert np.array_equal(counts[made.brain], before[made.brain])
    for ds, came in zip(after, slices, strict=True):
        drug, given = (one.RadiopharmaceuticalInformationSequence[0] for one in (ds, came))
        assert (ds.RescaleSlope, ds.RescaleIntercept, ds.Units, ds.PatientWeight) == (2.5, 0, "BQML", came.PatientWeight)
        assert (drug.RadionuclideTotalDose, drug.RadionuclideHalfLife) == (
            given.RadionuclideTotalDose,
            given.RadionuclideHalfLife,
        )
        assert "113102" in methods(ds)


def test_a_dose_grid_is_zero_where_the_face_was(outcome: Outcome) -> None:
    """And nowhere else."""
    (after,) = (ds for ds in outcome.shown if ds.SOPClassUID == DOSE)
    made, _ = dose()

    values = np.frombuffer(after.PixelData, "<u2").reshape(made.skin.shape)
    assert np.array_equal(values, np.where(cut(made), 0, made.skin * 5000))


def test_without_a_head_series_nobody_can_tell_and_it_goes_to_quarantine(outcome: Outcome) -> None:
    """A head of another frame of reference is no help; nor is a chest, where cleaning took the word for the neck away."""
    assert len(outcome.reasons) == 2
    assert all("no head series of its frame of reference" in reason for reason in outcome.reasons)


def test_a_shape_that_names_another_part_is_cut_where_a_head_shares_its_frame_only(outcome: Outcome) -> None:
    """The pixels of a head know better than words; where there is none, words do."""
    beside, alone = outcome["chest beside"], outcome["chest alone"]

    assert np.array_equal(segments(beside), segments(sent("binary")) & ~cut(head())[..., None])
    assert np.array_equal(segments(alone), segments(sent("binary")))
    assert "113102" not in methods(alone) and "RecognizableVisualFeatures" not in alone


def test_a_series_that_is_no_whole_head_is_cut_where_the_head_of_its_frame_was(outcome: Outcome) -> None:
    """A map of the jaws alone leaves a doubt; by the frame of reference it is known where its face lies."""
    after = [ds for ds in outcome.shown if ds.get("SeriesDescription") == "FACE ADC"]

    volume = np.stack([np.frombuffer(ds.PixelData, "<i2").reshape(ds.Rows, ds.Columns) for ds in after])
    assert np.array_equal(volume[~cut(jaw())], jaw().frames[~cut(jaw())])
    for name in ("mouth", "chin"):
        part = jaw().parts[name]
        assert (volume[part] != jaw().frames[part]).mean() > 0.95, name
    assert all("113102" in methods(ds) for ds in after)


def test_trap_64_where_a_face_lies_is_in_the_database_sealed_only(outcome: Outcome) -> None:
    """And it survives a restart: what came after it was cut all the same."""
    assert b'"matrix"' in region().to_bytes()
    assert b"face_region" in outcome.database and b'"matrix"' not in outcome.database


def test_what_was_made_here_comes_from_masked_images_and_is_left_alone(outcome: Outcome, tmp_path: Path) -> None:
    """Its sources are what is shown; it is neither held nor changed, whatever its class and the policy."""
    source = [ds for ds in outcome.shown if ds.SOPClassUID == MR and ds.get("SeriesDescription") != "FACE ADC"]
    made = segmentation("BINARY", 9, source)
    with making.archive(tmp_path / "home", **FACELESS) as archive:
        (stored,) = ingest_derived(archive, [making.received(made, origin=Origin.PROCESSOR)], finishing=None)
        (after,) = visible(archive)

    assert stored.pending == () and np.array_equal(segments(after), segments(made))


def test_where_no_series_tells_it_is_quarantine_for_all_and_words_are_not_believed(tmp_path: Path) -> None:
    """A jaw whose head nobody saw: somewhere in that frame is a face, so what says chest there is in doubt, too."""
    with making.archive(tmp_path / "home", **FACELESS) as archive:
        send(archive, [sent("chest beside"), *jaw_images()])
        clean(archive)

        assert visible(archive) == []
        said = reasons(archive)
    assert sum("neither its own series nor another" in reason for reason in said) == len(jaw().frames)
    assert sum("could not be located in its frame" in reason for reason in said) == 1 == len(said) - len(jaw().frames)


def test_trap_66_an_equal_segmentation_sent_again_changes_nothing(tmp_path: Path) -> None:
    """Held or passed: it is known, and no further job is made."""
    received = making.received(sent("chest alone"))
    with making.archive(tmp_path / "home", **FACELESS) as archive:
        first, again = ingest(archive, received), ingest(archive, received)
        archive.index.end_association("a1")
        clean(archive)

        assert (first.fresh, again.fresh, ingest(archive, received).fresh) == (True, False, False)
        assert clean(archive) == []
        assert len(visible(archive)) == 1


def test_a_head_that_comes_late_tells_of_what_comes_after(tmp_path: Path) -> None:
    """Crown first, face later: the later and larger look at the same series is the one that counts."""
    every = images()
    crown = [ds for ds in every if float(ds.ImagePositionPatient[2]) > 50]
    with making.archive(tmp_path / "home", **FACELESS) as archive:
        send(archive, crown, "a1")
        clean(archive)
        assert len(visible(archive)) == len(crown)
        send(archive, [*(ds for ds in every if ds not in crown), sent("labelmap")], "a2")
        clean(archive)
        (after,) = visible(archive, LABELMAP)

    assert np.array_equal(segments(after), segments(sent("labelmap")) & ~cut(head())[..., None])


def test_real_brains_keep_their_segment_and_pet_loses_what_the_mr_lost(
    shared_data: Path, tmp_path: Path, long_run: bool
) -> None:
    """Averages of real heads: a SEG of the brain keeps every voxel; PET is cut where its MR was, and nowhere else."""
    folders = {"gt_brain_spm152": "SEG", "pet_mr_spm_templates": "PT"}
    for name, modality in list(folders.items())[: 2 if long_run else 1]:
        paths = sorted((shared_data / name).rglob("*.dcm"))
        came = [dcmread(path) for path in paths]
        with making.archive(tmp_path / name, **FACELESS) as archive:
            for parts in (part10.split(path.read_bytes()) for path in paths):
                ingest(archive, Received(parts.data_set, parts.transfer_syntax_uid, Origin.IMPORT, "import", association="i"))
            archive.index.end_association("i")
            clean(archive)
            assert reasons(archive) == []
            before = {archive.deidentifier.pseudonymous_uid(ds.SOPInstanceUID): ds for ds in came}
            shown = visible(archive)
        assert len(shown) == len(came) and all("113102" in methods(ds) for ds in shown)
        changed = {ds.SOPInstanceUID: ds.pixel_array != before[ds.SOPInstanceUID].pixel_array for ds in shown}
        cut_of = {str(ds.ImagePositionPatient): changed[ds.SOPInstanceUID] for ds in shown if ds.Modality == "MR"}
        assert sum(map(np.count_nonzero, cut_of.values())) > 50_000
        for ds in shown:
            if ds.Modality == "SEG":
                assert not changed[ds.SOPInstanceUID].any() and np.count_nonzero(ds.pixel_array) == 238_955
            elif ds.Modality == modality:
                outside = changed[ds.SOPInstanceUID] & ~cut_of[str(ds.ImagePositionPatient)]
                # Noise may by chance be what was there before.
                assert np.count_nonzero(outside) <= 20
                assert not ds.pixel_array[changed[ds.SOPInstanceUID]].any()
