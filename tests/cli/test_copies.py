"""The commands for other copies, as docs/looking-after.md has them, against one archive and one S3 server."""

import json
import shutil
from pathlib import Path

import making
import pytest
from services import S3
from typer.testing import CliRunner

from pacs.cli.app import app
from pacs.ingest import ingest
from pacs.sweep import recover


def test_bucket_backup_repair_restore(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send, back up into a bucket, repair from there, restore from there; --json is for scripts, exit codes tell the truth."""

    def pacs(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == code, done.output + done.stderr
        return done.stdout

    home, copy = tmp_path / "home", s3.new_prefix()
    environment = {**s3.environment, "PACS_HOME": str(home), "PACS_STORE_URL": s3.new_prefix()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with making.archive(home, store__url=environment["PACS_STORE_URL"]) as archive:
        recover(archive)
        ingest(archive, making.received(making.dataset()))
    (segment,) = (home / "store").glob("*.seg")

    assert json.loads(pacs("bucket", "--json"))["sent"] == 0
    assert "1 segments sent, 0 wait" in pacs("bucket", "--send")
    done = json.loads(pacs("backup", copy, "--with-keys", "--whole", "--json"))
    assert done["with_keys"] and done["elsewhere"] == 0
    genuine = segment.read_bytes()
    segment.write_bytes(genuine[:3000] + b"rotten" + genuine[3006:])
    assert json.loads(pacs("verify", "--json", code=1))["kind"] == "corrupt"
    assert json.loads(pacs("repair", "--from", copy, "--json"))["outcome"] == "put in place"
    assert segment.read_bytes() == genuine
    assert "as it was written" in pacs("repair", "--deep")
    shutil.rmtree(home)
    pacs("restore", copy)
    assert "as it was written" in pacs("verify", "--deep")
    monkeypatch.delenv("PACS_STORE_URL")
    pacs("bucket", code=1)
