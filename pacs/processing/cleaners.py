"""What cleans the pixels of held series, within the isolated process of a cleaning job.

A cleaner gets every current image of one series, decoded when it asks, and says of each held one what became of it. It sees
de-identified headers only, does no I/O, and decides nothing about storing: `pacs.processing.cleaning` does that, in the worker.
A cleaner that raises has cleaned nothing: the series stays held or goes to quarantine.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs.codec import decode
from pacs.codec.image import EXPLICIT_LITTLE_ENDIAN, Image, describe
from pacs.dicom.elements import walk
from pacs.model.errors import NotTranscodable
from pacs.model.instance import Buffer

Array = decode.Array


class HeldImage:
    """One image of the series, as it is stored.

    `pending` is what it is held for; empty where it is visible already and comes along so that the series is whole. `report`
    counts what was done to it so far.
    """

    def __init__(
        self,
        sop_instance_uid: str,
        pending: tuple[str, ...],
        header: Buffer,
        frames: Sequence[Buffer],
        transfer_syntax_uid: str,
        *,
        packed: bool = False,
        report: Mapping[str, int] | None = None,
    ) -> None:
        self.report = report or {}
        self.sop_instance_uid = sop_instance_uid
        self.pending = pending
        self.transfer_syntax_uid = transfer_syntax_uid
        self._header = header
        self._frames = frames
        self._packed = packed
        self.described: Image = describe({one.tag: one for one in walk(header)})
        """What the header says of the stored frames."""

    @cached_property
    def header(self) -> Dataset:
        """The de-identified data set without Pixel Data."""
        return dcmread(BytesIO(bytes(self._header)), force=True)

    @property
    def has_pixels(self) -> bool:
        """Whether there is any Pixel Data."""
        return bool(self._frames)

    @cached_property
    def image(self) -> Image:
        """What the decoded frames are: colour by pixel, and in the colour space that decoding gives."""
        return self._decoded[1]

    @property
    def frames(self) -> list[Array]:
        """The decoded frames as allocated, shape (rows, columns) or (rows, columns, 3); not to be changed in place.

        `pacs.codec.decode.stored_values(frame, image)` takes the stored values out of them. 1-bit pixels come as 0 and 1.
        Raises `NotTranscodable` where they cannot be decoded.
        """
        return self._decoded[0]

    @cached_property
    def _decoded(self) -> tuple[list[Array], Image]:
        image = self.described
        if self.transfer_syntax_uid != EXPLICIT_LITTLE_ENDIAN:
            if self._packed:
                raise NotTranscodable("the frames of this instance cannot be told apart")
            pairs = [decode.decoded(frame, image, self.transfer_syntax_uid) for frame in self._frames]
            return [array for array, _ in pairs], pairs[0][1] if pairs else image
        native = _native_described(image)
        if self._packed:
            return _unpacked(self._frames, image), native
        return [decode.native_frame(frame, image) for frame in self._frames], native


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one held image.

    `frames` are all its frames anew, like those of `HeldImage.frames` in number, shape and type; None: not a pixel was
    changed. `methods` are the codes of CID 7050 that now hold. `elements` are set in its header (tag -> VR and value; None
    removes). `counts` go into its report. `doubt` says why it cannot be called clean, without a value: it goes to quarantine.
    `waits_for` names what must still be cleaned because of what was seen, beside what it is held for anyway.
    """

    sop_instance_uid: str
    frames: Sequence[Array] | None = field(default=None, repr=False)
    methods: tuple[str, ...] = ()
    elements: Mapping[int, tuple[str, bytes] | None] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    doubt: str = ""
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Located:
    """Where the face lies in a frame of reference, as `pacs.deid.face.Region` says it in bytes.

    Empty: there is or may be one, and it was not found. It is kept, sealed, for what else of that frame of reference comes.
    """

    frame_of_reference_uid: str
    region: bytes = field(default=b"", repr=False)


Report = Callable[[float, str], None]
"""Told how far the work is, 0.0 to 1.0, and what it is doing."""

Options = Mapping[str, Any]
"""What a cleaner must know beside the images: "devices", the tables of `[[deid.devices]]`; where it needs the whole study also
"located", what is known of it as a sequence of `Located`."""

Cleaner = Callable[[Sequence[HeldImage], Report, Options], Iterator[Verdict | Located]]
"""Yields one verdict for each image that is held for it; an image without one goes to quarantine."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """A cleaner as the scheduler and the worker know it; `module` and `function` are imported in the isolated process only."""

    version: str
    module: str
    function: str
    each: bool = False
    """Images do not need each other: they come one by one, and a crash costs one."""
    whole_study: bool = False
    """It needs what other series tell: its turn comes when all of the study is at rest, and nothing else is held for others."""
    queue: str = "cpu"
    memory_mb: int = 0
    timeout_s: float = 0.0

    def load(self) -> Cleaner:
        """Import it."""
        found: Cleaner = getattr(import_module(self.module), self.function)
        return found


CLEANERS: Mapping[str, Cleaning] = {
    "pixels": Cleaning("1", "pacs.processing.clean_pixels", "clean", each=True),
    "faces": Cleaning("1", "pacs.processing.clean_faces", "clean"),
    "shapes": Cleaning("1", "pacs.processing.clean_shapes", "clean", each=True, whole_study=True),
}
"""By what an instance is held for, in the order in which they run; the job's processor is "clean-" and this name."""

WITH_STUDY = tuple(name for name, cleaning in CLEANERS.items() if cleaning.whole_study)
"""What is cleaned when all of the study is at rest."""

_PREFIX = "clean-"


def processor_of(pending: str) -> str:
    """Return the name of the system processor that cleans this."""
    return _PREFIX + pending


def cleaning_of(processor: str) -> str:
    """Return what a system processor cleans; "" for every other processor."""
    return processor.removeprefix(_PREFIX) if processor.startswith(_PREFIX) else ""


def first_of(pending: Sequence[str]) -> str:
    """Return what is cleaned first of `pending`; "" where nobody here can."""
    return next((name for name in CLEANERS if name in pending), "")


def told(verdict: Verdict, image: HeldImage) -> tuple[dict[str, Any], list[bytes]]:
    """Return a verdict as a message to the worker: its head, and native Pixel Data where pixels were changed."""
    elements = {
        str(tag): None if change is None else [change[0], base64.b64encode(change[1]).decode("ascii")]
        for tag, change in verdict.elements.items()
    }
    head: dict[str, Any] = {
        "sop_instance_uid": verdict.sop_instance_uid,
        "methods": list(verdict.methods),
        "elements": elements,
        "counts": dict(verdict.counts),
        "doubt": verdict.doubt,
        "waits_for": list(verdict.waits_for),
    }
    if verdict.frames is None or verdict.doubt:
        return {"verdict": head}, []
    before = image.frames
    if [(one.shape, one.dtype) for one in verdict.frames] != [(one.shape, one.dtype) for one in before]:
        raise ValueError("a cleaner must give back frames of the same number, shape and type")
    about = image.image
    head["bits_allocated"] = about.bits_allocated
    head["colour"] = about.photometric_interpretation if about.samples > 1 else ""
    return {"verdict": head}, [native(verdict.frames, about)]


def native(frames: Sequence[Array], image: Image) -> bytes:
    """Return frames as native Pixel Data, by pixel."""
    if image.bits_allocated == 1:
        bits = np.concatenate([np.asarray(frame, np.uint8).reshape(-1) for frame in frames])
        data = np.packbits(bits, bitorder="little").tobytes()
    else:
        dtype = decode.container(image)
        data = b"".join(np.ascontiguousarray(frame, dtype).tobytes() for frame in frames)
    return data + b"\0" * (len(data) % 2)


def _native_described(image: Image) -> Image:
    # Decoding gives every pixel its own samples, one pixel after the other.
    colour = "YBR_FULL" if image.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422") else ""
    return replace(image, planar_configuration=0, photometric_interpretation=colour or image.photometric_interpretation)


def _unpacked(frames: Sequence[Buffer], image: Image) -> list[Array]:
    data = b"".join(frames)
    size_bytes, left = divmod(image.frame_bits, 8)
    if size_bytes and not left and len(data) >= size_bytes * image.number_of_frames:
        # Something lies behind them.
        parts = (data[at * size_bytes : (at + 1) * size_bytes] for at in range(image.number_of_frames))
        return [decode.native_frame(part, image) for part in parts]
    size = image.rows * image.columns
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if image.bits_allocated != 1 or image.samples != 1 or not size or len(bits) < size * image.number_of_frames:
        raise NotTranscodable("the frames of this instance cannot be told apart")
    return [bits[at * size : (at + 1) * size].reshape(image.rows, image.columns) for at in range(image.number_of_frames)]
