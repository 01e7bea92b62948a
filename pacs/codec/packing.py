"""A quick form for native frames at rest, until they are compressed: bits of equal weight side by side, then LZ4.

Ten times as quick as HTJ2K and about half as good on CT. A frame counts as packed only after it was unpacked and compared.
The form is a Blosc2 chunk (docs/format.md 1.4); what is packed is a matter of the store, no transfer syntax.
"""

import imagecodecs
import numpy as np

from pacs.model.instance import Buffer


def pack(frame: Buffer, sample_bytes: int) -> bytes | None:
    """Return a frame packed, or None if that is not smaller or does not unpack to the same bytes."""
    samples = np.frombuffer(frame, f"<u{sample_bytes}" if memoryview(frame).nbytes % sample_bytes == 0 else np.uint8)
    try:
        # Its types name bytes only; it takes any buffer, and the type of samples from an array.
        packed = bytes(
            imagecodecs.blosc2_encode(samples, level=1, compressor="lz4", shuffle="bitshuffle", numthreads=1)  # type: ignore[arg-type]
        )
        if len(packed) >= samples.nbytes or not np.array_equal(np.frombuffer(unpack(packed), samples.dtype), samples):
            return None
    except (RuntimeError, ValueError):
        return None
    return packed


def unpack(packed: Buffer) -> bytes:
    """Return what was packed. Raises `ValueError` if that cannot be."""
    try:
        return bytes(imagecodecs.blosc2_decode(bytes(packed), numthreads=1))
    except (RuntimeError, TypeError) as error:
        raise ValueError("not a Blosc2 chunk") from error
