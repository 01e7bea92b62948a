"""Real files through DCMTK: in by dcmsend, out by getscu; each comes out equal, waits to be cleaned, or lies in quarantine."""

from collections import Counter
from pathlib import Path

import dcmtk
import numpy as np
import pytest
from dimse.door import Door, held, until
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from pacs.dicom import part10
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Stored

FOLDERS = ("transfer_syntaxes", "charsets", "odd_files")
FEW = 6
"""Files of each folder without --long."""


def sop_instance_uid(path: Path) -> str:
    """Return the UID in a file that is DICOM and no media directory; "" for any other."""
    try:
        found = part10.split(path.read_bytes())
    except NotUnderstood:
        return ""
    return "" if found.sop_class_uid == "1.2.840.10008.1.3.10" else found.sop_instance_uid


def frames(ds: FileDataset) -> np.ndarray | None:
    """Return the decoded pixels; None where there are none that pydicom can decode."""
    try:
        return ds.pixel_array if "PixelData" in ds else None
    except (ValueError, RuntimeError, AttributeError, NotImplementedError, KeyError, IndexError, OSError):
        return None


def came_out(door: Door, found: Stored, folder: Path) -> FileDataset | None:
    """Fetch one instance by DCMTK's getscu, uncompressed; None where DCMTK does not take it so."""
    key = found.key
    names = {"StudyInstanceUID": key.study_instance_uid, "SeriesInstanceUID": key.series_instance_uid}
    asked = [f"-k {keyword}={value}" for keyword, value in {**names, "SOPInstanceUID": key.sop_instance_uid}.items()]
    arguments = " ".join(["-S -aec MINIPACS -od", str(folder), "-k QueryRetrieveLevel=IMAGE", *asked]).split()
    dcmtk.run("getscu", *arguments, "127.0.0.1", door.port)
    (path, *_) = [*folder.glob("*"), None]
    if path is None:
        return None
    ds = dcmread(path)
    path.unlink()
    return ds


@pytest.mark.timeout(3600)
def test_s14_f15_real_files_by_dcmtk_in_and_out(door: Door, shared_data: Path, tmp_path: Path, long_run: bool) -> None:
    """Transfer syntaxes, character sets and odd files; a file that DCMTK itself does not send proves nothing and is counted."""
    paths = [path for name in FOLDERS for path in sorted((shared_data / name).rglob("*.dcm"))[: None if long_run else FEW]]
    if long_run:
        paths = sorted(path for path in shared_data.rglob("*") if path.is_file())
    uids = {path: uid for path in paths if (uid := sop_instance_uid(path))}
    (tmp_path / "out").mkdir()
    for start in range(0, len(uids), 50):
        group = list(uids)[start : start + 50]
        said = dcmtk.run("dcmsend", "-nh", "-nuc", "-dn", "-aec", "MINIPACS", "127.0.0.1", door.port, *group, timeout_s=600)
        assert "Association Request Failed" not in said.stdout, said.stdout[-500:]

    here = {one.key.sop_instance_uid: one for one in held(door.archive, include_held=True)}
    visible = {one.key.sop_instance_uid for one in held(door.archive)}
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    for path, uid in uids.items():
        stored = here.get(door.archive.deidentifier.pseudonymous_uid(uid))
        if stored is None:
            outcomes["not stored"] += 1
            continue
        if stored.key.sop_instance_uid not in visible:
            outcomes["waits to be cleaned"] += 1
            continue
        out = came_out(door, stored, tmp_path / "out")
        if out is None:
            outcomes["not taken by getscu"] += 1
            continue
        outcomes["came out"] += 1
        try:
            before, after = frames(dcmread(path, force=True)), frames(out)
        except (InvalidDicomError, ValueError):
            continue
        if before is None or after is None:
            outcomes["without pixels to compare"] += 1
        elif stored.version == 1 and not _lossy(path) and not np.array_equal(np.squeeze(before), np.squeeze(after)):
            wrong.append(path.name)
    quarantined = door.archive.index.summary()["quarantine"]
    print(f"\n{len(uids)} files: {dict(outcomes)}; {quarantined} in quarantine")

    assert wrong == []
    assert outcomes["came out"] > 0
    assert until(lambda: not door.server.active_associations)
    answered = {code: count for (service, code), count in door.archive.index.tallies.list().items() if service == "C-STORE"}
    refused = sum(answered.values()) - answered["0000"]
    unsent = len(uids) - sum(answered.values())
    print(f"answered: {answered}; not sent by DCMTK: {unsent}")
    assert refused <= quarantined
    assert outcomes["not stored"] <= refused + unsent
    assert unsent <= len(uids) // 10


def _lossy(path: Path) -> bool:
    """Say whether decoders may differ: JPEG baseline and extended, near-lossless JPEG-LS, lossy JPEG 2000."""
    return part10.split(path.read_bytes()).transfer_syntax_uid.rpartition("1.2.4.")[2] in ("50", "51", "81", "91", "203")
