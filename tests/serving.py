"""A web server that really runs, in front of a real archive; for tests that speak HTTP."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import making
import numpy as np
from pydicom.dataset import Dataset

from pacs.archive import Archive
from pacs.dimse import scu
from pacs.settings import Settings
from pacs.sweep import prepare
from pacs.web import multipart
from pacs.web.server import serve

OTHER_STUDY = "1.2.826.0.1.3680043.8.498.2002"
COLOUR_SERIES = f"{making.STUDY_UID}.7"
CINE_SERIES = f"{making.STUDY_UID}.8"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stow_body(files: list[bytes]) -> tuple[bytes, str]:
    """Return a STOW-RS body and its Content-Type."""
    boundary = multipart.new_boundary()
    body = b"".join(multipart.part_head(boundary, "application/dicom") + file for file in files) + multipart.closing(boundary)
    return body, f'multipart/related; type="application/dicom"; boundary="{boundary}"'


def colour_image() -> Dataset:
    """Return an RGB image: a red, a green and a blue third."""
    frame = np.zeros((48, 60, 3), np.uint8)
    for third in range(3):
        frame[:, third * 20 : (third + 1) * 20, third] = 200
    ds = making.dataset(series_uid=COLOUR_SERIES, frame=np.zeros((48, 60), "<i2"), Modality="OT", SeriesNumber=7)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.4"
    ds.SeriesDescription = "colour"
    ds.BurnedInAnnotation, ds.ImageType = "NO", ["ORIGINAL", "PRIMARY"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.NumberOfFrames = 1
    for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType"):
        delattr(ds, keyword)
    ds.add_new(0x7FE00010, "OB", frame.tobytes())
    return ds


def cine(frames: int = 4) -> Dataset:
    """Return a multi-frame image in which frame n is n * 40 all over."""
    values = np.stack([np.full((32, 40), (n + 1) * 40, np.uint8) for n in range(frames)])
    ds = making.dataset(series_uid=CINE_SERIES, frame=np.zeros((32, 40), "<i2"), Modality="OT", SeriesNumber=8)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.2"
    ds.SeriesDescription = "cine"
    ds.BurnedInAnnotation, ds.ImageType = "NO", ["ORIGINAL", "PRIMARY"]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.NumberOfFrames = frames
    ds.WindowCenter, ds.WindowWidth = "128", "256"
    ds.add_new(0x7FE00010, "OB", values.tobytes())
    return ds


@dataclass
class Served:
    """A server that runs, and a way to talk to it."""

    settings: Settings
    client: httpx.Client = field(repr=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.settings.web.port}"

    @property
    def dicomweb(self) -> str:
        """Its DICOMweb service."""
        return f"{self.url}/dicom-web"

    def stow(self, *sets: Dataset, path: str = "/studies") -> httpx.Response:
        """Store data sets; what is held for a search for text is let go, as the worker would after finding none."""
        body, content_type = stow_body([making.part10(ds) for ds in sets])
        answer = self.client.post(f"/dicom-web{path}", content=body, headers={"Content-Type": content_type})
        if answer.status_code in (200, 202):
            items = answer.json()["00081199"]["Value"]
            with Archive.opened(self.settings, writer="cli") as archive:
                archive.index.release([item["00081155"]["Value"][0] for item in items])
        return answer

    def link(self) -> str:
        """Return the address of a fresh one-time link, as the command line makes it."""
        with Archive.opened(self.settings, writer="cli") as archive:
            return f"{self.url}/sign-in/{archive.index.access.new_link(60)}"


def run(settings: Settings) -> Iterator[Served]:
    """Run a server in a thread until the generator is closed."""
    prepare(settings)
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(settings, stop, scu.verify))
    thread.start()
    client = httpx.Client(base_url=f"http://127.0.0.1:{settings.web.port}", timeout=30)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                client.get("/livez")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
                time.sleep(0.05)
        yield Served(settings, client)
    finally:
        client.close()
        stop.set()
        thread.join(15)
    assert not thread.is_alive(), "the server did not stop"
