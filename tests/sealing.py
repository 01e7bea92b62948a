"""What the tests of store and codec share: encoded instances, a key ring, and a store that holds whatever bytes it is given."""

from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.codec.outgoing import DataSetParts
from pacs.dicom import elements, part10
from pacs.model.errors import NotFound
from pacs.model.instance import Deidentified, Encoded, InstanceKey, Location, Origin, Sealed, Stored, StoredFrames
from pacs.store.envelope import Sealer
from pacs.store.keys import FileKeyProvider, KeyRing

KEY = InstanceKey("2.25.1", "2.25.2", "2.25.3")
HTJ2K = "1.2.840.10008.1.2.4.202"
EXPLICIT = "1.2.840.10008.1.2.1"


class Held:
    """An object store in memory whose bytes a test may change."""

    def __init__(self, *records: bytes) -> None:
        self.records = dict(enumerate(records))

    def put(self, group: Sequence[Sealed]) -> list[Location]:
        """Hold a group."""
        locations = []
        for sealed in group:
            number = len(self.records)
            self.records[number] = b"".join(sealed.record)
            locations.append(Location(str(number), 0, sealed.size_bytes))
        return locations

    def get(self, location: Location, span: tuple[int, int] | None = None) -> bytes:
        """Return what is held."""
        if int(location.container) not in self.records:
            raise NotFound("nothing is held there")
        offset, length = span or (0, location.size_bytes)
        return self.records[int(location.container)][offset : offset + length]

    def delete(self, location: Location) -> None:
        """Hold it no longer."""
        self.records.pop(int(location.container), None)

    def close(self) -> None:
        """Nothing to release."""


def ring(folder: Path) -> KeyRing:
    """Return a new key ring with a new key-encryption key."""
    return KeyRing.create(folder / "keys" / "study-keys.db", FileKeyProvider.create(folder / "keys" / "image.key"))


def encoded(
    *,
    key: InstanceKey = KEY,
    header: bytes = b"a data set without its pixels" * 9,
    frames: tuple[bytes, ...] = (b"first frame", b"second, longer frame"),
    syntax: str = HTJ2K,
    packed: bool = False,
    number_of_frames: int | None = None,
    frame_bits: int = 0,
    pixel_vr: str = "OW",
) -> Encoded:
    """Return an encoded instance with given bytes."""
    return Encoded(
        key=key,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        header=header,
        frames=frames,
        transfer_syntax_uid=syntax,
        attributes={"PatientID": "Ψευδώνυμο", "Modality": "CT"},
        digest=sha256(header).digest(),
        number_of_frames=len(frames) if number_of_frames is None else number_of_frames,
        packed=packed,
        pixel_vr=pixel_vr,
        frame_bits=frame_bits,
    )


def seal(sealer: Sealer, one: Encoded) -> Sealed:
    """Seal an instance."""
    return sealer.seal(one, policy="research", origin=Origin.STORAGE_SCU)


def stored(one: Encoded, sealed: Sealed, location: Location) -> Stored:
    """Return the row that the index would give."""
    return Stored(
        one.key, one.sop_class_uid, one.transfer_syntax_uid, location, sealed.study_key_id, one.digest, one.number_of_frames
    )


def held(sealer: Sealer, one: Encoded) -> tuple[Held, Stored]:
    """Seal an instance into a store in memory."""
    objects, sealed = Held(), seal(sealer, one)
    return objects, stored(one, sealed, objects.put([sealed])[0])


def image(frames: np.ndarray, *, samples: int = 1, **overrides: object) -> Dataset:
    """Return a small image; `frames` has shape (frames, rows, columns[, 3])."""
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = "2.25.3"
    ds.StudyInstanceUID = "2.25.1"
    ds.SeriesInstanceUID = "2.25.2"
    ds.PatientID = "PSEUDONYM"
    ds.SamplesPerPixel = samples
    ds.PhotometricInterpretation = "MONOCHROME2" if samples == 1 else "RGB"
    if samples > 1:
        ds.PlanarConfiguration = 0
    ds.NumberOfFrames = len(frames)
    ds.Rows, ds.Columns = frames.shape[1:3]
    bits = frames.dtype.itemsize * 8
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = int(frames.dtype.kind == "i")
    data = frames.tobytes()
    ds.add_new(0x7FE00010, "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))
    for keyword, value in overrides.items():
        setattr(ds, keyword, value)
    return ds


def explicit(ds: Dataset) -> bytes:
    """Return a data set as Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, ds)
    return buffer.getvalue()


def deidentified(data_set: bytes, syntax: str = EXPLICIT) -> Deidentified:
    """Return a data set as de-identification would hand it on."""
    found = tuple(elements.read(data_set, syntax))
    compressed = syntax.startswith(("1.2.840.10008.1.2.4", "1.2.840.10008.1.2.5"))
    return Deidentified(KEY, "1.2.840.10008.5.1.4.1.1.7", found, syntax if compressed else EXPLICIT, (), "research")


def stored_frames(one: Encoded) -> StoredFrames:
    """Return Pixel Data as the store would give it back."""
    return StoredFrames(tuple(bytes(frame) for frame in one.frames), one.number_of_frames, one.packed, one.pixel_vr)


def read(parts: DataSetParts) -> Dataset:
    """Read a data set that goes out, as a receiver would."""
    meta = part10.file_meta("1.2.840.10008.5.1.4.1.1.7", "2.25.3", parts.transfer_syntax_uid)
    return dcmread(BytesIO(meta + b"".join(bytes(buffer) for buffer in parts.buffers)))
