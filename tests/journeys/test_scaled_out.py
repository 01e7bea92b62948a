"""The same code on a PostgreSQL server and a broker of its own: a study goes in, is processed, comes back."""

from pathlib import Path

import making
import pydicom
from services import postgres_database, valkey
from whole import running

from pacs.dimse import outbound


def test_postgresql_and_an_external_broker(tmp_path: Path) -> None:
    """`PACS_DATABASE_URL` and `PACS_BROKER_URL` are all it takes; nothing of the embedded database or broker is left in use."""
    files = making.write_files(tmp_path / "modality", making.ct_series(6))
    with (
        postgres_database() as database,
        running(
            tmp_path / "home",
            PACS_DATABASE_URL=database,
            PACS_BROKER_URL=f"redis+socket://{valkey()}",
        ) as server,
    ):
        report = outbound.send(files, "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER")
        server.pacs("jobs", "--wait", "--timeout", "120")
        jobs = server.rows("jobs")
        (study,) = server.rows("studies")
        rows = server.rows("get", study["study_instance_uid"], "-o", str(tmp_path / "back"))

    assert report.stored == len(files)
    assert {job["state"] for job in jobs} == {"succeeded"} and {job["processor"] for job in jobs} >= {"enhance"}
    assert study["instances"] == len(rows) and study["derived_series"] >= 2
    pixels = {pydicom.dcmread(path).PixelData for path in files}
    assert pixels <= {ds.PixelData for ds in (pydicom.dcmread(row["path"]) for row in rows) if "PixelData" in ds}
    assert not (server.home / "index.db").exists() and not (server.home / "run" / "broker.sock").exists()
