"""Tiny ONNX networks, written by hand as protocol buffers: a threshold for every voxel, and one for the mean of a volume."""

import struct
from collections.abc import Sequence


def threshold(level: float, *, by_slice: bool = False) -> bytes:
    """Return a network that tells background (channel 0) from what is above `level` (channel 1)."""
    ones = [1, 1] if by_slice else [1, 1, 1]
    convolution = _node("Conv", ["x", "w", "b"], ["y"])
    weights = [_tensor("w", [2, 1, *ones], [-50, 50]), _tensor("b", [2], [50 * level, -50 * level])]
    shape = ["n", 1, "r", "c"] if by_slice else [1, 1, "s", "r", "c"]
    return _model([convolution], weights, shape)


def mean_above(level: float) -> bytes:
    """Return a network with two answers for a volume: its mean is below, or above `level`."""
    nodes = [
        _node("GlobalAveragePool", ["x"], ["m"]),
        _node("Conv", ["m", "w", "b"], ["z"]),
        _node("Flatten", ["z"], ["y"]),
    ]
    weights = [_tensor("w", [2, 1, 1, 1, 1], [-50, 50]), _tensor("b", [2], [50 * level, -50 * level])]
    return _model(nodes, weights, [1, 1, "s", "r", "c"])


def _model(nodes: Sequence[bytes], weights: Sequence[bytes], shape: Sequence[int | str]) -> bytes:
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"g") + b"".join(_field(5, one) for one in weights)
    graph += _field(11, _value("x", shape)) + _field(12, _value("y", None))
    return _number(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, 13))


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    return b"".join([*(_field(1, one.encode()) for one in inputs), *(_field(2, one.encode()) for one in outputs)]) + _field(
        4, kind.encode()
    )


def _tensor(name: str, dims: Sequence[int], values: Sequence[float]) -> bytes:
    raw = struct.pack(f"<{len(values)}f", *values)
    return b"".join(_number(1, one) for one in dims) + _number(2, 1) + _field(8, name.encode()) + _field(9, raw)


def _value(name: str, shape: Sequence[int | str] | None) -> bytes:
    tensor = _number(1, 1)
    if shape is not None:
        dims = b"".join(_field(1, _number(1, one) if isinstance(one, int) else _field(2, one.encode())) for one in shape)
        tensor += _field(2, dims)
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while True:
        found.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(found)
