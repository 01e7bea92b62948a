"""Networks that do not ship: weights are read without PyTorch, and become an ONNX graph that computes what PyTorch does.

With `PACS_TEST_DEEPBET` naming the wheel of deepbet 1.0.2, the real one is put into a home and run on a head.
"""

import hashlib
import itertools
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import workbench
from numpy.typing import NDArray

from pacs.model.errors import ConfigurationError, NotFound, NotUnderstood
from pacs.processing import Series, linknet, torchscript
from pacs.processing.models import MODELS, add, is_installed, write
from pacs.processing.registry import discover
from pacs.processing.scoring import dice, outputs
from pacs.processing.truth import read

Weights = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def tiny() -> Weights:
    """Weights of deepbet's network with a few channels instead of many."""
    random, found = np.random.default_rng(11), {}

    def add_one(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = (random.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    add_one("init.0", 2, 1, 7, 7, 7)
    widths = (2, 2, 3, 4, 5)
    for number, (few, many) in enumerate(itertools.pairwise(widths)):
        for block, channels in ((1, few), (2, many)):
            add_one(f"down{number}.block{block}.double_conv.0", many, channels, 3, 3, 3)
            add_one(f"down{number}.block{block}.double_conv.3", many, many, 3, 3, 3)
            if block == 1 and number:
                add_one(f"down{number}.block1.downsample.0", many, few, 1, 1, 1)
    for number, (many, few) in enumerate(((5, 4), (4, 3), (3, 2), (2, 2))):
        add_one(f"up{number}.conv1.0", 2, many, 1, 1, 1)
        add_one(f"up{number}.tp_conv.0", 2, 2, 3, 3, 3)
        add_one(f"up{number}.conv2.0", few, 2, 1, 1, 1)
    add_one("tp_conv1.0", 2, 3, 3, 3, 3)
    add_one("conv.0", 3, 3, 3, 3, 3)
    add_one("tp_conv2", 3, 2, 2, 2, 2)
    for name, count in (("tp_conv1.0", 3), ("conv.0", 3), ("tp_conv2", 2)):
        found[f"{name}.bias"] = random.normal(0, 0.1, count).astype(np.float32)
    return found


class _Tensor:
    """Pickled as PyTorch pickles a tensor: what rebuilds it, and the file with its numbers."""

    def __init__(self, key: str, values: NDArray[np.float32], rebuild: Any) -> None:
        self.key, self.values, self.rebuild = key, values, rebuild

    def __reduce__(self) -> tuple[Any, ...]:
        shape = self.values.shape
        stride = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        return self.rebuild, (_Storage(self.key), 0, shape, stride, False, OrderedDict())


class _Storage:
    def __init__(self, key: str) -> None:
        self.key = key


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what writes weights as a TorchScript archive, in the names that PyTorch writes."""
    torch, utils, root = ModuleType("torch"), ModuleType("torch._utils"), ModuleType("__torch__")

    def _rebuild_tensor_v2(*_: object) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    kinds = {name: type(name, (), {"__module__": module}) for name, module in (("FloatStorage", "torch"), ("Net", "__torch__"))}
    torch.FloatStorage, root.Net, utils._rebuild_tensor_v2 = kinds["FloatStorage"], kinds["Net"], _rebuild_tensor_v2  # type: ignore[attr-defined]
    for module in (torch, utils, root):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    class Pickler(pickle.Pickler):
        def persistent_id(self, one: object) -> object:
            return ("storage", kinds["FloatStorage"], one.key, "cpu", 1) if isinstance(one, _Storage) else None

    def written(name: str, weights: Mapping[str, NDArray[np.float32]]) -> Path:
        tree, path = kinds["Net"](), tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for key, (dotted, values) in enumerate(weights.items()):
                *above, last = dotted.split(".")
                at = tree
                for part in above:
                    at = at.__dict__.setdefault(part, kinds["Net"]())
                at.__dict__[last] = _Tensor(str(key), values, _rebuild_tensor_v2)
                archive.writestr(f"net/data/{key}", values.tobytes())
            data = BytesIO()
            Pickler(data, protocol=2).dump(tree)
            archive.writestr("net/data.pkl", data.getvalue())
        return path

    yield written


def test_weights_are_read_without_pytorch(tiny: Weights, scripted: Any) -> None:
    """Every tensor with its path, shape and values."""
    found = torchscript.weights(scripted("tiny.pt", tiny))

    assert found.keys() == tiny.keys()
    assert all(np.array_equal(found[name], tiny[name]) for name in tiny)


def test_a_pickle_that_calls_for_more_is_refused(tmp_path: Path) -> None:
    """Nothing but tensors can be asked for: a pickle that would run a program does not."""

    class Bad:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps(Bad(), protocol=2))

    with pytest.raises(NotUnderstood, match="no TorchScript archive"):
        torchscript.weights(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


def test_the_graph_computes_what_pytorch_does(tiny: Weights) -> None:
    """Values, mean and deviation of the same weights and input in PyTorch 2.15, to five digits; the same bytes again."""
    values = np.random.default_rng(5).normal(0.449, 0.226, (1, 1, 64, 64, 64)).astype(np.float32)
    made = linknet.graph(tiny)

    (shares,) = onnxruntime.InferenceSession(made).run(None, {"values": values})

    brain = shares[0, 1]
    expected = [0.6279, 0.53464, 0.5107, 0.59092, 0.52253, 0.61267, 0.66636, 0.48592]
    np.testing.assert_allclose(brain[7::16, 9::16, 30][:2].ravel(), expected, atol=2e-5)
    assert (brain.mean(), brain.std()) == pytest.approx((0.4425074, 0.0821973), abs=1e-5)
    assert linknet.graph(tiny) == made


def test_weights_of_another_network_are_refused(tiny: Weights) -> None:
    """What is missing, or too much, is named."""
    with pytest.raises(NotUnderstood, match=r"conv\.0\.weight is missing"):
        linknet.graph({name: one for name, one in tiny.items() if name != "conv.0.weight"})
    with pytest.raises(NotUnderstood, match="it has no further"):
        linknet.graph({**tiny, "further": np.zeros(1, np.float32)})


def test_a_model_lies_in_the_home_with_its_licence(tiny: Weights, scripted: Any, tmp_path: Path) -> None:
    """Networks, their digests, the licence and a plug-in that takes the place of what ships, with another version."""
    model, plugins = MODELS["deepbet"], tmp_path / "processors"
    for path in model.weights.values():
        scripted(f"wheel/{path}", tiny)
    (tmp_path / "wheel" / model.licence_file).parent.mkdir()
    (tmp_path / "wheel" / model.licence_file).write_text("MIT License")

    write(model, tmp_path / "wheel", plugins)

    assert is_installed(model, plugins) and not is_installed(replace(model, plugin="none.py"), plugins)
    assert (plugins / "deepbet" / "LICENSE").read_text() == "MIT License"
    spec, shipped = discover(plugins)["mr-brain"], discover()["mr-brain"]
    assert spec.version.startswith(f"{shipped.version}+deepbet.{model.version}.")
    assert spec.path == str(plugins / model.plugin)


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    """What is not the wheel that was looked at is not opened; there are no other models."""
    (tmp_path / "deepbet.whl").write_bytes(b"PK")

    with pytest.raises(ConfigurationError, match="SHA-256"):
        add("deepbet", tmp_path / "processors", tmp_path / "deepbet.whl")
    with pytest.raises(NotFound, match="deepbet"):
        add("deepbat", tmp_path / "processors")
    assert not (tmp_path / "processors").exists()


@pytest.mark.skipif("PACS_TEST_DEEPBET" not in os.environ, reason="PACS_TEST_DEEPBET does not name the wheel of deepbet 1.0.2")
def test_the_real_model(shared_data: Path, tmp_path: Path) -> None:
    """Dice above .965 on the average of many heads; valid objects that say which weights made them."""
    model, wheel = MODELS["deepbet"], Path(os.environ["PACS_TEST_DEEPBET"])
    add("deepbet", tmp_path, wheel)
    with zipfile.ZipFile(wheel) as archive:
        weights = hashlib.sha256(b"".join(archive.read(model.weights[name]) for name in sorted(model.weights))).hexdigest()
    spec = discover(tmp_path)["mr-brain"]
    labelled = read(shared_data / "gt_brain_spm152")
    (series,) = labelled.series
    (truth,) = labelled.masks(series).values()

    segmentation, _ = outputs(spec.function, Series(series.datasets).datasets)

    assert dice(segmentation.array() > 0, truth) > 0.965
    made = workbench.assert_conforms(spec.function, series.datasets, tmp_path / "judged")
    algorithm = made[0].SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmVersion.endswith(f"+deepbet.1.0.2.{weights[:4]}.{weights[4:8]}.{weights[8:12]}")
