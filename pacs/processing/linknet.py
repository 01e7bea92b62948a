"""The network of deepbet, a LinkNet of volumes, as an ONNX graph made of its weights.

Sources: Chaurasia A, Culurciello E, "LinkNet: exploiting encoder representations for efficient semantic segmentation", IEEE
VCIP (2017): residual blocks that halve the volume, and as many that double it again and are added to what had its size.
Fisch L, Zumdick S, Barkhau C et al., "deepbet: fast brain extraction of T1-weighted MRI using convolutional neural networks",
Comput Biol Med 179 (2024) 108845, for the use and the weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs.model.errors import NotUnderstood

Weights = Mapping[str, NDArray[np.float32]]
OPSET, IR_VERSION = 17, 8
"""Old enough for every ONNX Runtime that there are wheels of."""
EPSILON = 1e-5


def graph(weights: Weights) -> bytes:
    """Return the network as ONNX: (1, 1, x, y, z) of float32, sizes multiples of 32, to the shares of background and brain.

    Raises `NotUnderstood` where the weights are not those of this network. Needs the extra `models`.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    made = _Graph(dict(weights))
    try:
        made.whole()
    except KeyError as error:
        raise NotUnderstood(f"the weights are of another network: {error.args[0]} is missing") from error
    if made.left:
        raise NotUnderstood(f"the weights are of another network: it has no {sorted(made.left)[0]}")
    shape = [1, 1, "x", "y", "z"]
    described = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in made.nodes],
        "linknet3d",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, [1, 2, "x", "y", "z"])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in made.constants.items()],
    )
    model = helper.make_model(described, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="mini-pacs")
    model.ir_version = IR_VERSION
    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


class _Graph:
    """Nodes (kind, inputs, output, attributes) and constants by name, in the order in which they are needed."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self.left = weights
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.constants: dict[str, NDArray[np.float32]] = {}

    def whole(self) -> None:
        """Say the network from its input `values` to its output `shares`."""
        value = self.convolved("values", "init.0", stride=2, normed=True)
        value = self.node("MaxPool", [value], "pooled", kernel_shape=[3] * 3, strides=[2] * 3, pads=[1] * 6)
        skipped = [value]
        for number in range(4):
            value = self.down(value, f"down{number}", stride=1 if number == 0 else 2)
            skipped.append(value)
        skipped.pop()
        for number in range(4):
            value = self.up(value, f"up{number}", stride=1 if number == 3 else 2)
            value = self.node("Add", [value, skipped.pop()], f"up{number}.sum")
        value = self.convolved(value, "tp_conv1.0", stride=2, normed=True, upwards=True)
        value = self.convolved(value, "conv.0", normed=True)
        value = self.convolved(value, "tp_conv2", stride=2, upwards=True)
        self.node("Softmax", [value], "shares", axis=1)

    def down(self, value: str, name: str, stride: int) -> str:
        """Two residual blocks, the first with a stride."""
        for number in (1, 2):
            block, step = f"{name}.block{number}", stride if number == 1 else 1
            inner = self.convolved(value, f"{block}.double_conv.0", stride=step, normed=True)
            inner = self.convolved(inner, f"{block}.double_conv.3", normed=True, bent=False)
            if step > 1:
                value = self.convolved(value, f"{block}.downsample.0", stride=step, normed=True, bent=False)
            value = self.node("Relu", [self.node("Add", [inner, value], f"{block}.sum")], f"{block}.out")
        return value

    def up(self, value: str, name: str, stride: int) -> str:
        """Fewer channels, a larger volume, more channels again."""
        value = self.convolved(value, f"{name}.conv1.0", normed=True)
        value = self.convolved(value, f"{name}.tp_conv.0", stride=stride, normed=True, upwards=True)
        return self.convolved(value, f"{name}.conv2.0", normed=True)

    def convolved(
        self, value: str, name: str, *, stride: int = 1, normed: bool = False, bent: bool | None = None, upwards: bool = False
    ) -> str:
        """A convolution, `upwards` a transposed one, then normed over the volume and cut at 0 (`bent`) where said."""
        weight = self.constant(f"{name}.weight")
        size = self.constants[weight].shape[2]
        inputs = [value, weight, *([self.constant(f"{name}.bias")] if f"{name}.bias" in self.left else [])]
        attributes: dict[str, Any] = {"strides": [stride] * 3, "pads": [(size - 1) // 2] * 6, "kernel_shape": [size] * 3}
        if upwards and size > stride > 1:
            attributes["output_padding"] = [1] * 3
        value = self.node("ConvTranspose" if upwards else "Conv", inputs, f"{name}.conv", **attributes)
        if normed:
            channels = self.constants[weight].shape[1 if upwards else 0]
            even = [self.filled(f"ones{channels}", channels, 1), self.filled(f"zeros{channels}", channels, 0)]
            value = self.node("InstanceNormalization", [value, *even], f"{name}.norm", epsilon=EPSILON)
        return self.node("Relu", [value], f"{name}.relu") if (normed if bent is None else bent) else value

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append((kind, list(inputs), output, attributes))
        return output

    def constant(self, name: str) -> str:
        self.constants[name] = self.left.pop(name)
        return name

    def filled(self, name: str, count: int, value: float) -> str:
        self.constants.setdefault(name, np.full(count, value, np.float32))
        return name
