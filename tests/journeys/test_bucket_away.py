"""A whole server whose bucket is taken away in the middle of its work: nothing is lost, and everything answers again."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import making
import numpy as np
import pydicom
import pytest
from gate import Gate
from services import S3
from whole import Server, running

from pacs.dimse import outbound
from pacs.store.bucket import FolderBucket
from pacs.store.ledger import Ledger
from pacs.store.segments import SegmentStore
from pacs.store.tiers import TieredStore
from pacs.upkeep.ship import Standing, standing


def series(tmp_path: Path, number: int) -> list[Path]:
    """Write a study of eight images that hardly compress, so that segments of 1 MiB fill."""
    noise = np.random.default_rng(number).integers(-2000, 2000, (8, 512, 512)).astype("<i2")
    uid = f"{making.STUDY_UID}.{number}"
    made = [making.dataset(instance=i + 1, study_uid=uid, series_uid=f"{uid}.1", frame=noise[i]) for i in range(8)]
    return making.write_files(tmp_path / f"modality{number}", made)


def send(server: Server, files: list[Path]) -> None:
    """Send files; every one must be acknowledged."""
    report = outbound.send(files, "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER")
    assert report.stored == len(files), report


def until(server: Server, reached: Callable[[Standing], bool], seconds: float) -> Standing:
    """Wait until sending stands as is hoped for; looks where `pacs bucket` looks, without starting a process each time."""
    store = server.home / "store"
    local = SegmentStore(store, writer="test", segment_bytes=1 << 20, floor_bytes=0)
    tiers = TieredStore(local, FolderBucket(store), Ledger(store), owner="", turn_over_s=60)
    deadline = time.monotonic() + seconds
    while True:
        now = standing(tiers)
        if reached(now) or time.monotonic() > deadline:
            tiers.close()
            assert reached(now), now
            return now
        time.sleep(0.1)


def ask(server: Server, path: str, accept: str = "application/dicom+json") -> tuple[int, bytes]:
    """Return HTTP status and body."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.web_port}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def studies(server: Server) -> list[str]:
    """Return the UIDs of all studies."""
    return [one["0020000D"]["Value"][0] for one in json.loads(ask(server, "/dicom-web/studies")[1])]


def answers_with(server: Server, study: str, files: list[Path]) -> bool:
    """Retrieve a study; say whether every image of the files is in it, bit for bit."""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1'
    try:
        status, body = ask(server, f"/dicom-web/studies/{study}", accept)
    except (OSError, http.client.HTTPException):
        return False  # broken off in the middle: its status had been sent
    return status == 200 and all(pydicom.dcmread(path).PixelData in body for path in files)


@pytest.mark.timeout(400)
def test_the_bucket_goes_away_and_comes_back(tmp_path: Path, s3: S3, long_run: bool) -> None:
    """C-STORE goes on and survives a kill -9 meanwhile; what is only in the bucket is answered 503; then all is there again."""
    gate = Gate(s3.port)
    environment = {**s3.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}"}
    settings = {"PACS_STORE_SEGMENT_MB": "1", "PACS_STORE_SHIP_AFTER_S": "1", "PACS_STORE_CACHE_MB": "1"}
    first, second = series(tmp_path, 1), series(tmp_path, 2)
    url = s3.new_prefix()
    with running(tmp_path / "home", PACS_PROCESSING_ENABLED="false", PACS_STORE_URL=url, **settings, **environment) as server:
        send(server, first)
        before = until(server, lambda now: now.sent >= 4 and not now.waiting, 60)
        (study,) = studies(server)
        assert answers_with(server, study, first)
        assert len(list((tmp_path / "home" / "store").glob("*.seg"))) < before.sent, "most of it is in the bucket only"

        gate.shut()
        since = time.monotonic()
        send(server, second)
        until(server, lambda now: bool(now.away_since and now.waiting), 60)
        (other,) = set(studies(server)) - {study}
        assert answers_with(server, other, second)
        status, ready = ask(server, "/readyz")
        assert status == 200 and "AWAY" in json.loads(ready)["checks"]["bucket"]["detail"]
        server.kill()
        server.start()
        assert ask(server, f"/dicom-web/studies/{study}/metadata")[0] == 503, "nothing of it is left in memory"
        assert not answers_with(server, study, first) and answers_with(server, other, second)
        time.sleep(max(0.0, (60 if long_run else 3) - (time.monotonic() - since)))

        gate.open()
        until(server, lambda now: not now.away_since and not now.waiting, 150)
        assert answers_with(server, study, first) and answers_with(server, other, second)
        server.pacs("verify", "--deep")
        logs = [server.output, *(tmp_path / "home" / "logs").glob("*.log"), tmp_path / "home" / "pacs.toml"]
        assert not any(s3.environment["AWS_SECRET_ACCESS_KEY"] in path.read_text(errors="replace") for path in logs)
    gate.shut()
