"""Small phantoms with known truth and planted identity, and real archives to put them into."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.archive import Archive
from pacs.model.instance import Origin, Received
from pacs.phantoms.base import PATIENT_ID as PATIENT_ID
from pacs.phantoms.base import PATIENT_NAME as PATIENT_NAME
from pacs.phantoms.base import PLANTED as PLANTED
from pacs.phantoms.base import SERIES_UID as SERIES_UID
from pacs.phantoms.base import STUDY_UID as STUDY_UID
from pacs.phantoms.base import ct_series as ct_series
from pacs.phantoms.base import dataset as dataset
from pacs.phantoms.base import encode as encode
from pacs.phantoms.base import pixels as pixels
from pacs.settings import Settings, load
from pacs.sweep import prepare


def part10(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """Return a whole Part 10 file."""
    copy = Dataset()
    copy.update(ds)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = transfer_syntax_uid
    copy.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    buffer = BytesIO()
    copy.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_files(folder: Path, series: list[Dataset]) -> list[Path]:
    """Write a series as Part 10 files and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(series):
        path = folder / f"{number:04}.dcm"
        path.write_bytes(part10(ds))
        paths.append(path)
    return paths


def received(
    ds: Dataset,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    *,
    origin: Origin = Origin.STORAGE_SCU,
    source: str = "MODALITY",
    association: str = "a1",
) -> Received:
    """Return the data set as a door would hand it in."""
    return Received(
        data_set=encode(ds, transfer_syntax_uid),
        transfer_syntax_uid=transfer_syntax_uid,
        origin=origin,
        source=source,
        sop_class_uid=str(ds.get("SOPClassUID", "")),
        sop_instance_uid=str(ds.get("SOPInstanceUID", "")),
        association=association,
    )


def settings(home: Path, **overrides: Any) -> Settings:
    """Return settings for a test home; `overrides` are ``section__name=value``, for example ``dicom__port=0``."""
    tree = load(home, environment={})
    defaults = {"store__segment_mb": 8, "store__floor_mb": 0}
    for name, value in {**defaults, **overrides}.items():
        section, _, key = name.partition("__")
        tree = replace(tree, **{section: replace(getattr(tree, section), **{key: value})})
    return tree


@contextmanager
def archive(home: Path, *, writer: str = "test", **overrides: Any) -> Iterator[Archive]:
    """Prepare a home and open a real archive in it: real store, real keys, SQLite."""
    tree = settings(home, **overrides)
    prepare(tree)
    with Archive.opened(tree, writer=writer) as opened:
        yield opened
