"""A home on a full disk: what fits is stored, the rest is answered A700, the server stays up and goes on when there is room."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import making
import numpy as np
import pytest
from whole import running

from pacs.dimse import outbound, scu


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A 64 MB file system; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a 64 MB tmpfs needs root on Linux")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_disk_full(small_disk: Path, tmp_path: Path) -> None:
    """C-STORE stores what fits, then answers A700; after room was made it goes on, and everything acknowledged is there."""
    noise = np.random.default_rng(1).integers(-2000, 2000, (16, 512, 512)).astype("<i2")
    series = [making.dataset(instance=i + 1, frame=noise[i % 16] + np.int16(i)) for i in range(160)]
    files = making.write_files(tmp_path / "modality", series)
    ballast = small_disk / "ballast"
    with running(small_disk / "home", PACS_PROCESSING_ENABLED="false") as server:
        ballast.write_bytes(bytes(8 << 20))

        first = outbound.send(files, "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER")

        stored = {one.path for one in first.results if one.stored}
        assert 10 < len(stored) < len(files), "some fit, some do not"
        assert {one.status for one in first.results if not one.stored} == {0xA700}
        server.pacs("health", "--wait", "1", check=False)
        assert server.process is not None and server.process.poll() is None
        scu.echo("127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER")

        ballast.unlink()
        left = [path for path in files if path not in stored][:4]
        second = outbound.send(left, "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER")
        assert second.stored == len(left)
        (study,) = server.rows("studies")
        rows = server.rows("get", study["study_instance_uid"], "-o", str(tmp_path / "back"), timeout=120)
        sources = [row for row in rows if Path(row["path"]).stat().st_size]
        assert len(sources) == study["instances"] >= len(stored) + len(left)
