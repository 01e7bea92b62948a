"""What goes out: a data set in buffers, and the encoders for receivers who want it compressed otherwise than it is stored."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pacs.codec import decode, large, lossless
from pacs.codec import image as syntax
from pacs.codec.image import Image
from pacs.model.errors import NotTranscodable
from pacs.model.instance import Buffer

NO_SYNTAX = "the receiver accepts none of the transfer syntaxes that this instance can be sent in"
ENCODERS: dict[str, Callable[[Buffer, Image], bytes]] = {
    syntax.HTJ2K_LOSSLESS_RPCL: lossless.encode_htj2k,
    syntax.HTJ2K_LOSSLESS: lossless.encode_htj2k,
    syntax.HTJ2K: lossless.encode_htj2k,
    syntax.JPEG_LS_LOSSLESS: lossless.encode_jpeg_ls,
}
"""What we compress to, best first."""


@dataclass(frozen=True, slots=True)
class DataSetParts:
    """A whole data set as buffers to be written one after another, without File Meta Information; of a large one a stream."""

    buffers: tuple[Buffer, ...] | large.Stream = field(repr=False)
    transfer_syntax_uid: str

    @property
    def size_bytes(self) -> int | None:
        """Length of the data set; None where a stream does not know it before."""
        if isinstance(self.buffers, large.Stream):
            return self.buffers.size_bytes
        return sum(memoryview(buffer).nbytes for buffer in self.buffers)


def encoded(frame: Buffer, image: Image, target: str) -> bytes:
    """Compress a native frame for a receiver, proven exact."""
    if not lossless.suits(image):
        raise NotTranscodable("these pixels cannot be compressed without loss")
    stream = lossless.compressed(frame, image, ENCODERS[target], decoder(target), prove=True, at_any_size=True)
    if stream is None:
        raise NotTranscodable("these pixels cannot be compressed without loss")
    return stream


def decoder(target: str) -> Callable[[bytes, Image], decode.Array]:
    """Return what decodes a frame of this transfer syntax."""
    return lambda stream, image: decode.decoded(stream, image, target)[0]
