"""The main job: a study goes in by DCMTK, is processed, is found and comes back, bit for bit, under another identity."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import dcmtk
import numpy as np
import pydicom
import pytest
from whole import Server, free_port, running

from pacs.phantoms import petct

AET = "MINIPACS"


@pytest.fixture(scope="module")
def modality(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """A PET/CT study as a modality would hold it."""
    return petct.write(tmp_path_factory.mktemp("modality"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, modality: dict[str, list[Path]]) -> Iterator[Server]:
    """A server that has taken the study in, by storescu, and processed it."""
    with running(tmp_path_factory.mktemp("main") / "home") as up:
        run("echoscu", "-aec", AET, "127.0.0.1", str(up.dicom_port))
        for paths in modality.values():
            run("storescu", "-aec", AET, "-R", "127.0.0.1", str(up.dicom_port), *map(str, paths))
        up.pacs("jobs", "--wait", "--timeout", "240")
        yield up


def run(tool: str, *arguments: str, cwd: Path | None = None) -> str:
    """Run a DCMTK tool; it must succeed."""
    done = subprocess.run([dcmtk.tool(tool), *arguments], capture_output=True, text=True, timeout=240, cwd=cwd)
    assert done.returncode == 0, f"{tool}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_every_job_succeeded(server: Server) -> None:
    """Each of the four kinds ran on its own, and none failed."""
    jobs = server.rows("jobs", "--wait")

    assert {job["processor"] for job in jobs} == {"enhance", "ct-lungs", "petct-fusion", "classify-series"}
    assert {job["state"] for job in jobs} == {"succeeded"}, jobs
    assert all(job["attempt"] == 1 and job["version"] and job["study_instance_uid"] for job in jobs)


def test_the_study_is_listed_under_its_new_identity(server: Server, modality: dict[str, list[Path]]) -> None:
    """One study, two source series, derived ones beside them, nothing of the old identity."""
    (study,) = server.rows("studies")
    original = pydicom.dcmread(modality["CT"][0], stop_before_pixels=True)

    assert set(study) == {
        "study_instance_uid",
        "patient_id",
        "patient_name",
        "study_date",
        "modalities",
        "series",
        "instances",
        "derived_series",
    }
    assert study["study_instance_uid"] != original.StudyInstanceUID and study["study_instance_uid"].startswith("2.25.")
    assert study["patient_id"] not in ("", original.PatientID)
    assert study["study_date"] not in ("", original.StudyDate)
    assert study["derived_series"] >= 5 and study["series"] == study["derived_series"] + 2
    assert {"CT", "PT", "SEG", "SR"} <= set(study["modalities"])


def test_nothing_that_comes_back_may_tell_who_it_is(server: Server, tmp_path: Path) -> None:
    """Sources and what every default processor made of them: `pacs deid check` has nothing to say of any file."""
    (study,) = server.rows("studies")
    server.pacs("get", study["study_instance_uid"], "-o", str(tmp_path))

    checked = server.pacs("deid", "check", str(tmp_path))

    assert checked.stdout.startswith(f"{study['instances']} files judged, 0 with findings: nothing found; 0 files")


def test_findscu_finds_it_and_getscu_brings_it_back(server: Server, modality: dict[str, list[Path]], tmp_path: Path) -> None:
    """DCMTK finds the study under its new identity and retrieves every object; pixels are bit-equal to those sent."""
    (study,) = server.rows("studies")
    port = str(server.dicom_port)
    found = run(
        *("findscu", "-S", "-aec", AET, "-k", "QueryRetrieveLevel=STUDY", "-k", f"PatientID={study['patient_id']}"),
        *("-k", "StudyInstanceUID", "-k", "NumberOfStudyRelatedInstances", "127.0.0.1", port),
    )
    assert study["study_instance_uid"] in found

    run(
        *("getscu", "-S", "-aec", AET, "-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={study['study_instance_uid']}", "-od", str(tmp_path), "127.0.0.1", port),
    )

    back = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    assert len(back) == study["instances"]
    sources = {(one.Modality, one.InstanceNumber): one for one in back if one.SeriesNumber in (2, 3)}
    for path in (path for paths in modality.values() for path in paths):
        sent = pydicom.dcmread(path)
        assert np.array_equal(sources[sent.Modality, sent.InstanceNumber].pixel_array, sent.pixel_array)


def test_movescu_moves_it_to_a_peer_added_a_moment_ago(server: Server, tmp_path: Path) -> None:
    """`pacs peers add` takes effect at once: the next C-MOVE reaches the new destination."""
    (study,) = server.rows("studies")
    port = free_port()
    with subprocess.Popen(
        [dcmtk.tool("storescp"), "-od", str(tmp_path), "-aet", "WORKSTATION", str(port)], stderr=subprocess.DEVNULL
    ) as receiver:
        try:
            server.pacs("peers", "add", "WORKSTATION", "127.0.0.1", str(port))
            server.pacs("peers", "echo", "WORKSTATION")
            run(
                *("movescu", "-S", "-aec", AET, "-aem", "WORKSTATION", "-k", "QueryRetrieveLevel=STUDY"),
                *("-k", f"StudyInstanceUID={study['study_instance_uid']}", "127.0.0.1", str(server.dicom_port)),
            )
        finally:
            receiver.terminate()
            receiver.wait()

    assert len(list(tmp_path.iterdir())) == study["instances"]


def test_pacs_get_writes_files_that_any_viewer_opens(server: Server, tmp_path: Path) -> None:
    """`pacs get` writes uncompressed Part 10 files; pydicom decodes each that has pixels."""
    (study,) = server.rows("studies")

    written = server.rows("get", study["study_instance_uid"], "-o", str(tmp_path))

    assert len(written) == study["instances"]
    for row in written:
        ds = pydicom.dcmread(row["path"])
        assert ds.StudyInstanceUID == study["study_instance_uid"]
        if "PixelData" in ds:
            assert ds.pixel_array.size


def test_an_equal_resend_changes_nothing(server: Server, modality: dict[str, list[Path]]) -> None:
    """Sending the series again is answered 0000 and makes neither instance nor job."""
    studies, jobs = server.rows("studies"), server.rows("jobs")

    run("storescu", "-aec", AET, "127.0.0.1", str(server.dicom_port), *map(str, modality["CT"][:5]))
    done = server.pacs("import", str(modality["CT"][5]))

    assert "1 already here" in done.stdout
    server.pacs("jobs", "--wait", "--timeout", "60")
    assert server.rows("studies") == studies
    assert server.rows("jobs") == jobs


def test_derived_objects_name_their_sources_and_makers(server: Server, tmp_path: Path) -> None:
    """Every derived object is in the same study and says which algorithm, version and parameters made it, and from what."""
    (study,) = server.rows("studies")
    made = {uid for job in server.rows("jobs") for uid in job["output_series_instance_uids"]}
    rows = server.rows("get", study["study_instance_uid"], "-o", str(tmp_path))
    objects = [pydicom.dcmread(row["path"]) for row in rows]
    sources = {one.SOPInstanceUID for one in objects if one.SeriesInstanceUID not in made}

    derived = [one for one in objects if one.SeriesInstanceUID in made]

    assert len({one.SeriesInstanceUID for one in derived}) == study["derived_series"]
    for one in derived:
        assert one.PatientID == study["patient_id"]
        equipment = one.ContributingEquipmentSequence[-1]
        assert equipment.ManufacturerModelName and equipment.SoftwareVersions
        assert referenced(one) & sources, one.SOPClassUID


def referenced(ds: pydicom.Dataset) -> set[str]:
    """Return every Referenced SOP Instance UID, at any depth."""
    return {str(element.value) for element in ds.iterall() if element.keyword == "ReferencedSOPInstanceUID"}
