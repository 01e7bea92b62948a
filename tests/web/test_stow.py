"""STOW-RS (PS3.18 10.5): what is answered is what happened, part by part."""

import socket
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx
import making
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from serving import Served, stow_body

from pacs.archive import Archive


def reasons(answer: httpx.Response, sequence: str = "00081198") -> list[int]:
    """Return the failure reasons of an answer."""
    items: list[dict[str, Any]] = answer.json().get(sequence, {}).get("Value", [])
    return [item["00081197"]["Value"][0] for item in items]


def stored(answer: httpx.Response) -> list[str]:
    """Return the SOP Instance UIDs that were stored."""
    return [item["00081155"]["Value"][0] for item in answer.json().get("00081199", {}).get("Value", [])]


def test_w13_all_stored_is_200_and_what_is_named_can_be_fetched(served: Served) -> None:
    """The answer names the archive's own UIDs in the order sent, and its URLs work; no sent UID or name is in it."""
    answer = served.stow(*making.ct_series(3, study_uid="1.2.3.1", series_uid="1.2.3.1.1"))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    items = answer.json()["00081199"]["Value"]
    assert len(items) == 3
    for item in items:
        assert served.client.get(item["00081190"]["Value"][0], headers={"Accept": "application/dicom"}).status_code == 200
    assert served.client.get(answer.json()["00081190"]["Value"][0] + "/metadata").status_code == 200
    assert "1.2.3.1.1" not in answer.text
    assert not any(planted in answer.text for planted in making.PLANTED)


def test_w13_some_failed_is_202_with_the_reason_of_each(served: Served) -> None:
    """One good, one without a study, one that is no DICOM: the good one is stored, the others have reasons."""
    broken = making.part10(making.dataset(instance=41))[:-5000]
    body, content_type = stow_body([making.part10(making.dataset(instance=40)), broken, b"this is no DICOM"])

    answer = served.client.post("/dicom-web/studies", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == 202
    assert len(stored(answer)) == 1
    assert reasons(answer) == [0xC000]
    assert reasons(answer, "0008119A") == [0xC000]


def test_w13_none_stored_is_400_for_what_is_no_dicom(served: Served) -> None:
    """All failed for syntax: 400."""
    body, content_type = stow_body([b"nothing", b"to see"])

    answer = served.client.post("/dicom-web/studies", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == 400
    assert len(reasons(answer, "0008119A")) == 2


def test_w14_an_instance_of_another_study_fails_and_the_rest_is_stored(served: Served) -> None:
    """`POST /studies/{uid}` refuses what is not of this study (A900), and that alone is 409."""
    mine = making.dataset(study_uid="1.2.3.2", series_uid="1.2.3.2.1")
    other = making.dataset(study_uid="1.2.3.3", series_uid="1.2.3.3.1")

    answer = served.stow(mine, other, path="/studies/1.2.3.2")
    alone = served.stow(other, path="/studies/1.2.3.2")

    assert (answer.status_code, len(stored(answer)), reasons(answer)) == (202, 1, [0xA900])
    assert (alone.status_code, stored(alone), reasons(alone)) == (409, [], [0xA900])


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"x", 415),
        ('multipart/related; type="application/dicom+json"; boundary=x', b"--x\r\n\r\n[]\r\n--x--", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("multipart/related; type=application/dicom", b"--x\r\n\r\n\r\n--x--", 400),
        ("multipart/related; type=application/dicom; boundary=y", b"--x\r\n\r\n\r\n--x--", 400),
        ("", b"x", 415),
    ],
)
def test_w13_bodies_that_cannot_be_read(served: Served, content_type: str, body: bytes, status: int) -> None:
    """415 for other types, 400 for a message that is not what it says."""
    answer = served.client.post("/dicom-web/studies", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == status


def test_w15_without_the_final_boundary_whole_parts_are_stored(served: Served) -> None:
    """The part in which the message broke off fails; those before it are reported as stored."""
    files = [making.part10(making.dataset(instance=number, study_uid="1.2.3.4", series_uid="1.2.3.4.1")) for number in (1, 2)]
    body, content_type = stow_body(files)

    answer = served.client.post("/dicom-web/studies", content=body[:-3000], headers={"Content-Type": content_type})

    assert answer.status_code == 202
    assert len(stored(answer)) == 1
    assert len(reasons(answer, "0008119A")) == 1


def test_w15_chunked_transfer_in_small_pieces(served: Served) -> None:
    """A body without a length, in odd pieces."""
    body, content_type = stow_body([making.part10(making.dataset(instance=number)) for number in (1, 2, 3)])

    def pieces() -> Any:
        for at in range(0, len(body), 777):
            yield body[at : at + 777]

    answer = served.client.post("/dicom-web/studies", content=pieces(), headers={"Content-Type": content_type})

    assert answer.status_code == 200
    assert len(stored(answer)) == 3


def test_a_single_file_may_come_without_multipart(served: Served) -> None:
    """Content-Type application/dicom is one Part 10 file."""
    answer = served.client.post(
        "/dicom-web/studies", content=making.part10(making.dataset(instance=9)), headers={"Content-Type": "application/dicom"}
    )

    assert answer.status_code == 200


def test_w17_a_resend_is_stored_once(served: Served) -> None:
    """The same instance twice, in one message and in two, is one instance."""
    ds = making.dataset(study_uid="1.2.3.5", series_uid="1.2.3.5.1")

    first, second = served.stow(ds, ds), served.stow(ds)

    assert first.status_code == second.status_code == 200
    assert set(stored(first)) == set(stored(second))
    study = first.json()["00081190"]["Value"][0]
    assert len(served.client.get(f"{study}/instances").json()) == 1


def test_the_association_ends_with_the_request(served: Served) -> None:
    """The series is complete by evidence, not by silence: nothing is left open."""
    answer = served.stow(making.dataset(study_uid="1.2.3.6", series_uid="1.2.3.6.1"))

    with Archive.opened(served.settings, writer="other") as archive:
        study = answer.json()["00081190"]["Value"][0].rpartition("/")[2]
        settled = archive.index.settled(4e9, settle_s=1, quiet_s=1e12, study_settle_s=1)
    assert study in {one.study_instance_uid for one in settled}


def test_a_body_over_the_limit_is_413(served: Served) -> None:
    """A declared length over web.maximum_upload_mb is refused before a byte is read."""
    head = "POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/dicom\r\n"
    head += f"Content-Length: {5 << 40}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.settings.web.port), 10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


def test_a_real_client_can_store(served: Served) -> None:
    """dicomweb-client stores pydicom data sets and reads the answer."""
    ds = making.dataset(study_uid="1.2.3.7", series_uid="1.2.3.7.1")
    answer = DICOMwebClient(served.dicomweb).store_instances([pydicom.dcmread(BytesIO(making.part10(ds)))])

    assert len(answer.ReferencedSOPSequence) == 1
    assert "FailedSOPSequence" not in answer


def test_large_instances_wait_for_each_other_and_all_arrive(served: Served) -> None:
    """Three uploads of 70 MB each at once, of which two may be in memory: all are stored."""
    frame = np.zeros((2048, 2048), "<i2")

    def send(number: int) -> int:
        ds = making.dataset(study_uid=f"1.2.3.8.{number}", series_uid=f"1.2.3.8.{number}.1", frame=frame, NumberOfFrames=9)
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.20"
        ds.PixelData = frame.tobytes() * 9
        return served.stow(ds).status_code

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(send, range(3))) == [200, 200, 200]
