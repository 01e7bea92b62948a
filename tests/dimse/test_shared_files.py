"""Real files through DCMTK: in by dcmsend, out by getscu; each comes out equal, waits to be cleaned, or lies in quarantine."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dcmtk
import numpy as np
import pytest
from dimse.door import Door, held
from pydicom import dcmread
from pydicom.dataset import FileDataset

from pacs.dicom import part10
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Stored

FOLDERS = ("transfer_syntaxes", "charsets", "odd_files")
FEW = 6
"""About so many files of each folder without --long."""
AT_ONCE = 100
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Sent:
    """A file that DCMTK took as DICOM, and what it was answered; no status where it had no way to send it."""

    path: Path
    sop_instance_uid: str
    status: str


def is_instance(path: Path) -> bool:
    """Say whether a file is DICOM, and no media directory."""
    try:
        return part10.split(path.read_bytes()).sop_class_uid != MEDIA_DIRECTORY
    except NotUnderstood:
        return False


def send(door: Door, paths: Sequence[Path], report: Path) -> list[Sent]:
    """Send files by DCMTK's dcmsend, compressed ones as they are, and read its report."""
    report.unlink(missing_ok=True)
    options = ("-nh", "-nuc", "-dn", "+crf", report, "-aec", "MINIPACS")
    said = dcmtk.run("dcmsend", *options, "127.0.0.1", door.port, *paths, timeout_s=600)
    if not report.exists():
        assert "no valid input files" in said.stdout.lower(), said.stdout[-500:]
        return []
    found = []
    for block in report.read_text(encoding="utf-8", errors="replace").split("\nNumber  ")[1:]:
        rows = (line.partition(" : ") for line in block.splitlines())
        values = {name.strip(): value.strip() for name, _, value in rows}
        status = values.get("DIMSE Status", "")
        path = Path(values["Filename"])
        # DCMTK lists the UID of the File Meta Information, and sends that of the data set.
        uid = str(dcmread(path, force=True, specific_tags=["SOPInstanceUID"]).get("SOPInstanceUID") or values["SOP Instance"])
        found.append(Sent(path, uid, status[2:6].upper() if status[:2] == "0x" else ""))
    return found


def fetch(door: Door, study_instance_uid: str, folder: Path) -> dict[str, FileDataset]:
    """Fetch a study by DCMTK's getscu, uncompressed; returns its instances by SOP Instance UID."""
    folder.mkdir()
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study_instance_uid}")
    dcmtk.run("getscu", "-S", "+B", "-aec", "MINIPACS", "-od", folder, *keys, "127.0.0.1", door.port, timeout_s=300)
    return {str(ds.SOPInstanceUID): ds for ds in map(dcmread, sorted(folder.iterdir()))}


def frames(ds: FileDataset) -> np.ndarray | None:
    """Return the decoded pixels; None where there are none that pydicom can decode."""
    if not ds.get("PixelData") or "TransferSyntaxUID" not in ds.file_meta:
        return None
    try:
        return ds.pixel_array
    except (AttributeError, ValueError, RuntimeError):
        # pydicom: a required element is missing; too few bytes, or elements that contradict each other; no decoder
        # (NotImplementedError is a RuntimeError), or none of them can read the stream.
        return None


def compared(path: Path, after: FileDataset) -> str:
    """Say how what came out relates to the file that went in."""
    before = dcmread(path, force=True)
    for keyword in ("SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames", "BitsStored", "PixelRepresentation"):
        if before.get(keyword) != after.get(keyword):
            return f"differs in {keyword}"
    was, came = frames(before), frames(after)
    if "PixelData" not in before or was is None:
        return "came out, without pixels" if "PixelData" not in before else "came out, of pixels that pydicom does not decode"
    if came is None:
        return "came out, but cannot be decoded"
    if np.array_equal(np.squeeze(was), np.squeeze(came)):
        return "came out equal"
    return "came out, decoded from lossy" if _lossy(path) else "differs in its pixels"


@pytest.mark.timeout(1800)
def test_s14_f15_real_files_by_dcmtk_in_and_out(door: Door, shared_data: Path, tmp_path: Path, long_run: bool) -> None:
    """What was answered 0000 comes out equal or waits to be cleaned; what was refused lies in quarantine with a reason."""
    if long_run:
        paths = [path for path in sorted(shared_data.rglob("*")) if path.is_file() and is_instance(path)]
    else:
        found = (sorted((shared_data / name).rglob("*.dcm")) for name in FOLDERS)
        paths = [path for files in found for path in files[:: max(1, len(files) // FEW)] if is_instance(path)]
    sent = [
        one
        for start in range(0, len(paths), AT_ONCE)
        for one in send(door, paths[start : start + AT_ONCE], tmp_path / "report")
    ]
    here = {one.key.sop_instance_uid: one for one in held(door.archive, include_held=True)}
    visible = {one.key.sop_instance_uid for one in held(door.archive)}
    quarantined = door.archive.index.quarantine.list()
    fetched: dict[str, dict[str, FileDataset]] = {}
    outcomes: defaultdict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for one in sent:
        outcomes[_outcome(door, one, here, visible, seen, fetched, tmp_path)].append(one.path.name)
    outcomes["not sent by DCMTK"] += sorted({path.name for path in paths} - {one.path.name for one in sent})

    reasons = Counter(row.reason for row in quarantined)
    print(f"\n{len(paths)} files; quarantine: {dict(reasons)}")
    for name, files in outcomes.items():
        print(f"{name}: {len(files)} ({', '.join(files[:9])})")
    wrong = {name: files[:9] for name, files in outcomes.items() if name.startswith(("differs", "lost", "came out, but"))}
    assert wrong == {}
    assert len(outcomes["came out equal"]) >= len(paths) // 8
    # What is of another SOP Class than its presentation context (0122) contradicts itself before its data set is looked at.
    refused = {name: len(files) for name, files in outcomes.items() if name.startswith("refused")}
    assert sum(refused.values()) - refused.get("refused with 0122", 0) == len(quarantined) and all(reasons)
    assert len(outcomes["not sent by DCMTK"]) <= len(paths) // (10 if long_run else 4)


def _outcome(
    door: Door,
    one: Sent,
    here: dict[str, Stored],
    visible: set[str],
    seen: set[str],
    fetched: dict[str, dict[str, FileDataset]],
    folder: Path,
) -> str:
    if one.status != "0000":
        return f"refused with {one.status}" if one.status else "not sent by DCMTK"
    uid = door.archive.deidentifier.pseudonymous_uid(one.sop_instance_uid)
    stored = here.get(uid)
    if stored is None:
        return "lost"
    if uid in seen:
        return "kept beside another of its UID"
    seen.add(uid)
    if uid not in visible:
        return "waits to be cleaned"
    study = stored.key.study_instance_uid
    if study not in fetched:
        fetched[study] = fetch(door, study, folder / f"study{len(fetched)}")
    out = fetched[study].get(uid)
    return "not taken by getscu" if out is None else compared(one.path, out)


def _lossy(path: Path) -> bool:
    """Say whether decoders may differ: JPEG baseline and extended, near-lossless JPEG-LS, lossy JPEG 2000."""
    return part10.split(path.read_bytes()).transfer_syntax_uid.rpartition("1.2.4.")[2] in ("50", "51", "81", "91", "203")
