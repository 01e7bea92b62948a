"""Weights of a network out of a TorchScript archive (.pt), without PyTorch and without running anything in it.

The archive is a zip: `data.pkl`, a pickle of the tree of modules, whose tensors name files of raw numbers in `data/`. The
pickle is read with a list of the few names that it may call; modules become mappings, whatever class they say they are. The
code that lies in the archive is not looked at: who takes the weights must know the network.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs.model.errors import NotUnderstood

Weights = dict[str, NDArray[np.float32]]


class Module(dict[str, Any]):
    """A module of the tree: its tensors, modules and constants by name."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


def weights(path: Path) -> Weights:
    """Return the float32 tensors of a TorchScript archive by their path in it ("down0.block1.double_conv.0.weight").

    Raises `NotUnderstood` where it is no such archive, or its pickle calls for anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            top = archive.namelist()[0].partition("/")[0]
            tree = _Reader(archive, top).load()
            return dict(_tensors(tree, ""))
    except (zipfile.BadZipFile, pickle.UnpicklingError, KeyError, IndexError, TypeError, ValueError, EOFError) as error:
        raise NotUnderstood(f"{path.name} is no TorchScript archive of float32 weights") from error


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, top: str) -> None:
        super().__init__(BytesIO(archive.read(f"{top}/data.pkl")))
        self._archive, self._top = archive, top

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return Module
        known: dict[tuple[str, str], Callable[..., Any] | str] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch", "FloatStorage"): "<f4",
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is nothing that weights need")
        return known[module, name]

    def persistent_load(self, pid: Any) -> NDArray[np.float32]:
        kind, dtype, key, *_ = pid
        if kind != "storage" or dtype != "<f4":
            raise pickle.UnpicklingError("storage of another kind")
        return np.frombuffer(self._archive.read(f"{self._top}/data/{key}"), "<f4")


def _tensor(storage: NDArray[np.float32], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    usual = tuple(int(np.prod(size[axis + 1 :])) for axis in range(len(size)))
    if any(have != want for have, want, count in zip(stride, usual, size, strict=True) if count > 1):
        raise pickle.UnpicklingError("a tensor that is not stored row by row")
    return storage[offset : offset + int(np.prod(size))].reshape(size)


def _tensors(module: Module, before: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, value in module.items():
        if isinstance(value, Module):
            yield from _tensors(value, f"{before}{name}.")
        elif isinstance(value, np.ndarray):
            yield before + name, value
