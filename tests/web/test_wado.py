"""WADO-RS (PS3.18 10.4): what comes back is what was stored, in a form that the caller asked for."""

from io import BytesIO
from typing import Any

import making
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from serving import CINE_SERIES, Served

from pacs.model.errors import InvalidQuery, NotFound
from pacs.web.accept import parse_media_type
from pacs.web.multipart import Part, Reader
from pacs.web.wado import frame_numbers

EXPLICIT_LE, HTJ2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.202"


def parts(answer: Any) -> list[Part]:
    """Take a multipart answer apart."""
    name, parameters = parse_media_type(answer.headers["content-type"])
    assert (answer.status_code, name) == (200, "multipart/related"), answer.text
    reader = Reader(parameters["boundary"], maximum_part_bytes=1 << 30)
    found = list(reader.feed(answer.content))
    assert reader.ended
    return found


def place(served: Served, **match: str) -> str:
    """Return the path of the first instance that matches."""
    first = served.client.get("/dicom-web/instances", params=match).json()[0]
    return str(first["00081190"]["Value"][0]).removeprefix(served.url)


@pytest.fixture
def ct(filled: Served) -> str:
    """Path of CT slice 3."""
    return place(filled, ModalitiesInStudy="OT", SeriesDescription="AX LUNG 5mm", InstanceNumber="3")


@pytest.fixture
def movie(filled: Served) -> str:
    """Path of the multi-frame image."""
    return place(filled, SeriesDescription="cine")


def test_w6_default_is_explicit_little_endian_with_the_pixels_as_sent(filled: Served, ct: str) -> None:
    """Whoever names no transfer syntax gets Explicit VR Little Endian; every pixel is the one that was sent."""
    (part,) = parts(filled.client.get(ct, headers={"Accept": 'multipart/related; type="application/dicom"'}))

    ds = pydicom.dcmread(BytesIO(part.body))
    assert ds.file_meta.TransferSyntaxUID == EXPLICIT_LE
    assert part.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT_LE}"
    assert part.headers["content-location"].endswith(ct)
    assert np.array_equal(ds.pixel_array, making.pixels(seed=3))
    assert not any(planted.encode() in bytes(part.body) for planted in making.PLANTED)


def test_w6_star_is_as_stored_and_a_named_syntax_is_made(filled: Served, ct: str) -> None:
    """`transfer-syntax=*` sends what is stored; Implicit Little Endian and HTJ2K are made or served by name."""
    for asked, given in (("*", HTJ2K), (HTJ2K, HTJ2K), ("1.2.840.10008.1.2", "1.2.840.10008.1.2"), (EXPLICIT_LE, EXPLICIT_LE)):
        accept = f"multipart/related; type=application/dicom; transfer-syntax={asked}"
        (part,) = parts(filled.client.get(ct, headers={"Accept": accept}))
        assert pydicom.dcmread(BytesIO(part.body), stop_before_pixels=True).file_meta.TransferSyntaxUID == given


def test_w6_q_values_decide(filled: Served, ct: str) -> None:
    """The higher quality wins, whatever the order."""
    accept = (
        f"multipart/related; type=application/dicom; transfer-syntax={EXPLICIT_LE}; q=0.3, "
        f"multipart/related; type=application/dicom; transfer-syntax={HTJ2K}; q=0.9"
    )
    (part,) = parts(filled.client.get(ct, headers={"Accept": accept}))

    assert pydicom.dcmread(BytesIO(part.body), stop_before_pixels=True).file_meta.TransferSyntaxUID == HTJ2K


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("", "text/html"),
        ("", "multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50"),
        ("/metadata", "application/dicom+xml"),
        ("/frames/1", 'multipart/related; type="image/jp2"'),
        ("/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.90"),
        ("/rendered", "image/gif"),
    ],
)
def test_w6_impossible_is_406(filled: Served, ct: str, path: str, accept: str) -> None:
    """What cannot be made is said so."""
    assert filled.client.get(ct + path, headers={"Accept": accept}).status_code == 406


def test_w6_one_instance_comes_as_one_file_where_asked(filled: Served, ct: str) -> None:
    """Accept application/dicom without multipart: a Part 10 file, as a browser saves it."""
    answer = filled.client.get(ct, headers={"Accept": "application/dicom"})

    assert answer.headers["content-type"].startswith("application/dicom")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert pydicom.dcmread(BytesIO(answer.content)).Rows == 64


def test_the_query_parameter_overrides_the_header(filled: Served, ct: str) -> None:
    """`?accept=` comes before Accept (8.3.3.1)."""
    answer = filled.client.get(ct, params={"accept": "application/dicom"}, headers={"Accept": "text/html"})

    assert answer.headers["content-type"].startswith("application/dicom")


def test_w6_series_and_study_have_all_their_instances_once(filled: Served, ct: str) -> None:
    """Five in the series, seven in the study, every one with its own location."""
    for path, count in ((ct.partition("/instances")[0], 5), (ct.partition("/series")[0], 7)):
        found = parts(
            filled.client.get(path, headers={"Accept": "multipart/related; type=application/dicom; transfer-syntax=*"})
        )
        assert len(found) == len({part.headers["content-location"] for part in found}) == count


def test_w8_metadata_is_the_whole_data_set_without_bulk(filled: Served, ct: str) -> None:
    """No group 2, Pixel Data as a URI that works, the stored transfer syntax, no planted identity."""
    answer = filled.client.get(f"{ct}/metadata")
    (found,) = answer.json()

    assert not [tag for tag in found if tag.startswith("0002")]
    assert list(found) == sorted(found)
    assert found["00280010"]["Value"] == [64]
    assert found["00083002"]["Value"] == [HTJ2K]
    assert not any(planted in answer.text for planted in making.PLANTED)
    pixels = filled.client.get(found["7FE00010"]["BulkDataURI"], headers={"Accept": "application/octet-stream"})
    assert pixels.content == making.pixels(seed=3).tobytes()


def test_w8_metadata_of_a_study_lists_every_instance(filled: Served, ct: str) -> None:
    """One JSON array, zipped where the client takes it."""
    path = ct.partition("/series")[0] + "/metadata"
    plain = filled.client.get(path, headers={"Accept-Encoding": "identity"})
    zipped = filled.client.get(path, headers={"Accept-Encoding": "gzip"})

    assert len(plain.json()) == 7
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.json() == plain.json()


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-99", 206, (0, 100)),
        ("bytes=8000-", 206, (8000, 8192)),
        ("bytes=-92", 206, (8100, 8192)),
        ("bytes=9000-", 416, None),
        ("bytes=abc", 200, (0, 8192)),
    ],
)
def test_w8_ranges_of_bulk_data(filled: Served, ct: str, asked: str, status: int, span: tuple[int, int] | None) -> None:
    """206 with what was asked, 416 past the end, 200 for what is no range."""
    answer = filled.client.get(f"{ct}/bulkdata/7FE00010", headers={"Accept": "application/octet-stream", "Range": asked})

    assert answer.status_code == status
    if span:
        assert answer.content == making.pixels(seed=3).tobytes()[span[0] : span[1]]


def test_w8_bulk_data_that_is_not_there_is_404(filled: Served, ct: str) -> None:
    """No such element 404, a malformed path 400."""
    accept = {"Accept": "application/octet-stream"}
    assert filled.client.get(f"{ct}/bulkdata/00091001", headers=accept).status_code == 404
    assert filled.client.get(f"{ct}/bulkdata/0009", headers=accept).status_code == 400


def test_w7_frames_keep_the_order_asked_for(filled: Served, movie: str) -> None:
    """`3,1` is three, then one; bytes are the frames that were sent; 0 and 5 are not there."""
    accept = {"Accept": f'multipart/related; type="application/octet-stream"; transfer-syntax={EXPLICIT_LE}'}
    found = parts(filled.client.get(f"{movie}/frames/3,1", headers=accept))

    assert [bytes(part.body) for part in found] == [bytes([120]) * 1280, bytes([40]) * 1280]
    assert len(parts(filled.client.get(f"{movie}/frames/2-", headers=accept))) == 3
    assert filled.client.get(f"{movie}/frames/0", headers=accept).status_code == 404
    assert filled.client.get(f"{movie}/frames/5", headers=accept).status_code == 404
    assert filled.client.get(f"{movie}/frames/x", headers=accept).status_code == 400


def test_w7_frames_as_stored_say_what_they_are(filled: Served, ct: str) -> None:
    """OHIF's request: octets, `transfer-syntax=*` unquoted; the part says image/jphc and the syntax."""
    accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    (part,) = parts(filled.client.get(f"{ct}/frames/1", headers={"Accept": accept}))
    (jphc,) = parts(filled.client.get(f"{ct}/frames/1", headers={"Accept": 'multipart/related; type="image/jphc"'}))

    assert part.headers["content-type"] == f"image/jphc; transfer-syntax={HTJ2K}"
    assert bytes(part.body[:4]) == b"\xff\x4f\xff\x51"
    assert bytes(jphc.body) == bytes(part.body)


def test_w7_one_frame_may_come_alone(filled: Served, ct: str) -> None:
    """application/octet-stream without multipart: one frame, native."""
    answer = filled.client.get(f"{ct}/frames/1", headers={"Accept": "application/octet-stream"})

    assert answer.content == making.pixels(seed=3).tobytes()


def test_w9_etags(filled: Served, ct: str) -> None:
    """304 for what the client has; the series' tag changes when a late instance arrives, the instance's does not."""
    series = ct.partition("/instances")[0]
    accept = {"Accept": "application/dicom"}
    tag, series_tag = (
        filled.client.get(ct, headers=accept).headers["etag"],
        filled.client.get(f"{series}/metadata").headers["etag"],
    )

    assert filled.client.get(ct, headers={**accept, "If-None-Match": tag}).status_code == 304
    assert filled.client.get(f"{series}/metadata", headers={"If-None-Match": series_tag}).status_code == 304
    assert filled.stow(making.dataset(instance=6)).status_code == 200
    assert filled.client.get(ct, headers={**accept, "If-None-Match": tag}).status_code == 304
    assert filled.client.get(f"{series}/metadata", headers={"If-None-Match": series_tag}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/studies/1.2.3.99", "/studies/1.2.3.99/metadata", "/studies/1.2.3.99/series/1/instances/1/frames/1"]
)
def test_w20_what_is_not_there_is_404(filled: Served, path: str) -> None:
    """404, and 400 for what is no UID."""
    assert filled.client.get(f"/dicom-web{path}").status_code == 404
    assert filled.client.get(f"/dicom-web{path.replace('1.2.3.99', 'x')}").status_code == 400


def test_a_real_client_can_retrieve(filled: Served, ct: str, movie: str) -> None:
    """dicomweb-client fetches study, series, instance, metadata, frames and bulk data."""
    client = DICOMwebClient(filled.dicomweb)
    _, _, _, study, _, series, _, instance = movie.split("/")

    assert len(client.retrieve_study_metadata(study)) >= 7
    assert len(client.retrieve_series(study, series)) == 1
    ds = client.retrieve_instance(study, series, instance)
    assert ds.NumberOfFrames == 4
    assert client.retrieve_instance_frames(study, series, instance, [2]) == [bytes([80]) * 1280]
    jpeg_ls = (("image/jls", "1.2.840.10008.1.2.4.80"),)
    assert client.retrieve_instance_frames(study, series, instance, [2], media_types=jpeg_ls)[0][:2] == b"\xff\xd8"
    (found,) = client.retrieve_series_metadata(study, series)
    native = b"".join(bytes([number * 40]) * 1280 for number in (1, 2, 3, 4))
    assert client.retrieve_bulkdata(found["7FE00010"]["BulkDataURI"])[0] == native
    assert client.retrieve_instance_rendered(study, series, instance, media_types=("image/png",))[:4] == b"\x89PNG"
    assert series != CINE_SERIES


def test_frame_lists() -> None:
    """Order, ranges and bounds."""
    assert frame_numbers("3,1,4-", 6) == [3, 1, 4, 5, 6]
    for text in ("", "a", "1,,2", "-3", "1--2"):
        with pytest.raises(InvalidQuery):
            frame_numbers(text, 9)
    for text in ("0", "7", "1-7", "3-2"):
        with pytest.raises(NotFound):
            frame_numbers(text, 6)
