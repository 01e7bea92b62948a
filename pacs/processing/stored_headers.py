"""Attributes of stored headers, for rules that name what the index does not keep: the archive is opened when first needed."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.archive import Archive
from pacs.model.instance import Stored
from pacs.retrieve import header
from pacs.settings import Settings


class HeaderReader:
    """Reads de-identified headers; the last one is kept, because rule after rule asks for the same."""

    def __init__(self, settings: Settings, archive: Archive | None = None) -> None:
        self._settings = settings
        self._archive = archive
        self._owned: Archive | None = None
        self._last: tuple[str, Dataset] | None = None

    def __call__(self, stored: Stored, paths: Sequence[str]) -> Mapping[str, str]:
        """Return attributes by keyword path ("A", "ASequence.B"), values joined by a backslash; absent ones left out."""
        uid = stored.key.sop_instance_uid
        if self._last is None or self._last[0] != uid:
            self._last = uid, self.dataset(stored)
        found = {path: "\\".join(_values(self._last[1], path.split("."))) for path in paths}
        return {path: text for path, text in found.items() if text}

    def dataset(self, stored: Stored) -> Dataset:
        """Return a header as a data set, without pixel data."""
        if self._archive is None:
            # A writer's name of its own: it writes nothing, and no other process may be disturbed by that.
            self._archive = self._owned = Archive.open(self._settings, writer="rules")
        dataset: Dataset = dcmread(BytesIO(header(self._archive, stored)), force=True)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return dataset

    def close(self) -> None:
        """Close the archive, if it was opened here."""
        if self._owned is not None:
            self._owned.close()
            self._archive = self._owned = None


def _values(dataset: Dataset, path: Sequence[str]) -> list[str]:
    """All values of an attribute; of one in a sequence, those of every item."""
    value: Any = dataset.get(path[0])
    if value is None:
        return []
    if len(path) > 1:
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
        return [text for item in items if isinstance(item, Dataset) for text in _values(item, path[1:])]
    several = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    return [str(one) for one in several if not isinstance(one, Dataset | bytes) and str(one)]
