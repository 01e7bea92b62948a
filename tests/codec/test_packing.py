"""The quick form of native frames."""

import os

import pytest

from pacs.codec.packing import pack, unpack


@pytest.mark.parametrize("sample_bytes", [1, 2])
@pytest.mark.parametrize("length", [1001, 65537, 524288, 3_000_001])
def test_unpacking_undoes_packing(length: int, sample_bytes: int) -> None:
    """Whatever the length, also where it is no multiple of a sample."""
    frame = bytes(range(200)) * (length // 200 + 1)
    frame = memoryview(frame)[:length]

    packed = pack(frame, sample_bytes)

    assert packed is not None and len(packed) < length
    assert unpack(packed) == frame


@pytest.mark.parametrize("frame", [b"", b"\0", os.urandom(70000)])
def test_what_does_not_become_smaller_is_not_packed(frame: bytes) -> None:
    """Nothing, a byte, noise."""
    assert pack(frame, 2) is None


def test_what_is_no_chunk_is_refused() -> None:
    """Cut short, or something else."""
    packed = pack(bytes(100000), 2)
    assert packed is not None

    for wrong in (packed[:20], packed[:-1], b"nonsense" * 10):
        with pytest.raises(ValueError):
            unpack(wrong)
