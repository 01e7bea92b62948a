"""Networks that do not ship: fetched on request from the site's own Python index, and put into a home as ONNX with a plug-in.

A package is named with the SHA-256 of its wheel, and so is installed as it was looked at or not at all; without what it depends
on, into a folder that is thrown away: nothing of its code runs. Its weights become an ONNX graph, which ONNX Runtime runs;
PyTorch is needed neither here nor there. The licence lies beside them.
"""

import hashlib
import importlib.resources
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pacs.model.errors import ConfigurationError, NotFound
from pacs.processing import linknet, torchscript

_INSTALL_S = 600.0
"""How long an index may take for a wheel of some ten megabytes."""


@dataclass(frozen=True, slots=True)
class Model:
    """A network in a wheel: what it is for, where it lies in the wheel, and the plug-in that runs it."""

    name: str
    version: str
    licence: str
    summary: str
    wheel_sha256: str
    weights: Mapping[str, str]
    licence_file: str
    convert: Callable[[torchscript.Weights], bytes]
    plugin: str

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        return f"{self.name}-{self.version}-py3-none-any.whl"


MODELS = {
    "deepbet": Model(
        name="deepbet",
        version="1.0.2",
        licence="MIT",
        summary="mr-brain by two networks instead of the balloon (Fisch et al. 2024), 17 MB",
        wheel_sha256="1999e2ea00ec48f6233b95b96f3901a962d3f70431c63aeb985e8a49a198473c",
        weights={"bbox_model.onnx": "data/models/bbox_model.pt", "model.onnx": "data/models/model.pt"},
        licence_file="deepbet-1.0.2.dist-info/LICENSE",
        convert=linknet.graph,
        plugin="mr_brain_deepbet.py",
    )
}
"""Name -> model."""


def is_installed(model: Model, plugins_path: Path) -> bool:
    """Whether a home's folder of plug-ins has the networks and what runs them."""
    return (plugins_path / model.plugin).is_file() and (plugins_path / model.name / "model.json").is_file()


def add(name: str, plugins_path: Path, wheel: Path | None = None) -> list[Path]:
    """Put a model into the folder of plug-ins, from its wheel where one is given, else from the index; return what is there.

    Raises `NotFound` where there is no such model, `ConfigurationError` where it cannot be had here, which says what to do.
    """
    if name not in MODELS:
        raise NotFound(f"there is no model {name}; there are {', '.join(sorted(MODELS))}")
    model = MODELS[name]
    if importlib.util.find_spec("onnx") is None:
        raise ConfigurationError('making networks needs the package onnx: install mini-pacs with the extra "models"')
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "wheel"
        if wheel is None:
            _install(model, there, Path(folder) / "requirements.txt")
        else:
            _unpack(model, wheel, there)
        return write(model, there, plugins_path)


def write(model: Model, there: Path, plugins_path: Path) -> list[Path]:
    """Make the networks of an unpacked wheel and write them, their digests, the licence, and last the plug-in."""
    into = plugins_path / model.name
    networks = {file: model.convert(torchscript.weights(there / weights)) for file, weights in model.weights.items()}
    into.mkdir(parents=True, exist_ok=True)
    paths = [into / file for file in networks]
    for path in paths:
        path.write_bytes(networks[path.name])
    said = {
        "name": model.name,
        "version": model.version,
        "licence": model.licence,
        "weights": {weights: _digest((there / weights).read_bytes()) for weights in model.weights.values()},
        "networks": {file: _digest(data) for file, data in networks.items()},
    }
    description = into / "model.json"
    description.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    licence = into / "LICENSE"
    licence.write_bytes((there / model.licence_file).read_bytes())
    plugin = plugins_path / model.plugin
    plugin.write_bytes(importlib.resources.files("processors.offered").joinpath(model.plugin).read_bytes())
    return [*paths, description, licence, plugin]


def _unpack(model: Model, wheel: Path, into: Path) -> None:
    try:
        if _digest(wheel.read_bytes()) != model.wheel_sha256:
            raise ConfigurationError(f"{wheel.name} is not {model.wheel} with the SHA-256 {model.wheel_sha256}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)
    except OSError as error:
        raise ConfigurationError(f"{wheel.name} cannot be read: {error.strerror}") from error


def _install(model: Model, into: Path, requirements: Path) -> None:
    """Have pip or uv install the wheel, from the index that it is set up with."""
    requirements.write_text(f"{model.name}=={model.version} --hash=sha256:{model.wheel_sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(into), "-r", str(requirements)]
    command = [*_installer(), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(_elsewhere(model, "the index took too long")) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1].strip()
        raise ConfigurationError(_elsewhere(model, f"the index did not give it ({last})"))


def _installer() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
    found = shutil.which("uv")
    if found is None:
        raise ConfigurationError("neither pip nor uv is here: get the wheel elsewhere and give it with --wheel")
    return [found, "pip", "install", "--python", sys.executable]


def _elsewhere(model: Model, why: str) -> str:
    return f"{why}; get {model.wheel} elsewhere and give it with --wheel"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
