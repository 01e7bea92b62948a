"""ONNX networks as processors: the `[model]` of a manifest, so that a site's own network is a TOML file and an .onnx file.

    [model]
    file = "lungs.onnx"                      # beside the manifest, or a path from there
    sha256 = "…"                             # of that file: another network is another version
    spacing_mm = [1.5, 1.5, 1.5]             # slice, row, column; the source's own where absent
    orientation = "LPS"                      # directions of column, row and slice index; the source's own where absent
    patch = [64, 96, 96]                     # voxels (or [256, 256] for a network of slices); the whole at once where absent
    overlap = 0.5
    activation = "softmax"                   # "sigmoid", or "none"

    [model.normalise]
    clip = [-1000, 400]                      # in modality units, first
    kind = "range"                           # to 0 … 1; or "zscore" (of the series), or "fixed" with mean and deviation
    mean = 0.0
    deviation = 1.0

    [[output]]
    kind = "segmentation"                    # channels are background and labels 1, 2, …; with sigmoid: labels 1, 2, …
    segments = […]                           # as in `files`; or kind = "probabilities" for the same as fractions

    [[output]]                               # instead: what the whole series is
    kind = "classification"
    question = ["…", "99SITE", "Contrast"]
    labels = [["…", "99SITE", "native"], ["…", "99SITE", "contrast"]]
    unsure = 0.6                             # below this certainty the answer is that nothing can be said

The network has one input, (1, 1, slices, rows, columns) or (n, 1, rows, columns) of float32, and one output with the channels
second. Overlapping patches are joined with weights that fall off towards their edges (Isensee et al., Nat Methods 18 (2021)
203).
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs.model.errors import ConfigurationError
from pacs.processing import files
from pacs.processing.api import NotApplicable, Parameter, Run
from pacs.processing.outputs import Finding, Output, Probabilities, Report, Segmentation
from pacs.processing.series import Series
from pacs.processing.volumes import grid_over, resampled

_KEYS = frozenset("file sha256 spacing_mm orientation patch overlap activation normalise".split())
_NORMALISE_KEYS = frozenset("clip kind mean deviation".split())
_AXES: dict[str, tuple[float, float, float]] = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
Floats = NDArray[np.float32]


class AnotherModel(Exception):
    """The file is not the network that the manifest names by its SHA-256."""


def processor(
    name: str, table: Mapping[str, Any], path: Path, _: str, parameters: Sequence[Parameter]
) -> tuple[Callable[..., Iterator[Output]], None]:
    """Return the function of a manifest with `[model]`."""
    model = table["model"]
    _check(model, table, parameters)
    file = path.parent / str(model["file"])

    def run(series: Series, job: Run) -> Iterator[Output]:
        """Resample, normalise, infer, and bring the answer back to the source's grid."""
        yield from _run(series, job, model, table["output"], file)

    return run, None


def _check(model: Mapping[str, Any], table: Mapping[str, Any], parameters: Sequence[Parameter]) -> None:
    normalise = model.get("normalise", {})
    unknown = sorted([*(model.keys() - _KEYS), *(normalise.keys() - _NORMALISE_KEYS)])
    if unknown:
        raise ConfigurationError(f"[model] has no key {unknown[0]}")
    if parameters or table.get("level", "series") != "series":
        raise ConfigurationError("a network works on a series and takes no parameters")
    if len(str(model["sha256"])) != 64:
        raise ConfigurationError("[model] sha256 must be the 64 digits of the file's SHA-256")
    if model.get("activation", "softmax") not in ("softmax", "sigmoid", "none"):
        raise ConfigurationError("[model] activation must be softmax, sigmoid or none")
    if normalise.get("kind", "range") not in ("range", "zscore", "fixed") or (
        normalise.get("kind", "range") == "range" and "clip" not in normalise
    ):
        raise ConfigurationError("[model.normalise] kind must be range (with clip), zscore or fixed")
    if len(model.get("patch", [1, 1, 1])) not in (2, 3) or not 0 <= float(model.get("overlap", 0.5)) < 1:
        raise ConfigurationError("[model] patch has two or three sizes, overlap is at least 0 and less than 1")
    if "orientation" in model and sorted(_AXES_OF.get(one, one) for one in model["orientation"]) != ["x", "y", "z"]:
        raise ConfigurationError("[model] orientation has three letters, one of L R, one of A P and one of S I")
    (output,) = table["output"] if len(table.get("output", [])) == 1 else ({},)
    if output.get("kind") in ("segmentation", "probabilities"):
        if sorted(files.segments(output["segments"])) != list(range(1, len(output["segments"]) + 1)):
            raise ConfigurationError("segments of a network are labelled 1, 2, …")
    elif output.get("kind") == "classification":
        for one in (output["question"], *output["labels"]):
            files.code(one)
    else:
        raise ConfigurationError("a network has one [[output]]: segmentation, probabilities or classification")


_AXES_OF = {"L": "x", "R": "x", "A": "y", "P": "y", "S": "z", "I": "z"}


def _run(
    series: Series, job: Run, model: Mapping[str, Any], described: Sequence[Mapping[str, Any]], file: Path
) -> Iterator[Output]:
    (output,) = described
    session = opened(file, str(model["sha256"]))
    source = series.geometry()
    grid = source
    if "spacing_mm" in model or "orientation" in model:
        row, column = source.row, source.column
        if "orientation" in model:
            row, column, across = (_AXES[letter] for letter in model["orientation"])
            if np.dot(np.cross(row, column), across) < 0:
                raise NotApplicable("the orientation of the network is left-handed")
        spacing = tuple(float(one) for one in model.get("spacing_mm", source.spacing_mm))
        grid = grid_over(source, row, column, (spacing[0], spacing[1], spacing[2]))
    values = series.array()
    lowest = float(values.min())
    prepared = _normalised(values if grid is source else resampled(values, source, grid, outside=lowest), model)
    scores = _inferred(session, prepared, model, job)
    if output["kind"] == "classification":
        yield Report(series, [_answer(_activated(scores.reshape(scores.shape[0], -1).mean(axis=1), model), output)], "Class")
        return
    found = _activated(scores, model)
    named = files.segments(output["segments"])
    first = 0 if found.shape[0] == len(named) else 1
    if found.shape[0] != len(named) + first:
        raise ValueError("the network has another number of channels than there are segments")
    if grid is not source:
        found = np.stack([resampled(one, grid, source) for one in found])
    description = str(output.get("description", "Network"))
    if output["kind"] == "probabilities":
        yield Probabilities(series, np.clip(np.moveaxis(found[first:], 0, -1), 0, 1), list(named.values()), description)
        return
    if first:
        labels = found.argmax(axis=0).astype(np.uint8)
    else:
        labels = np.where(found.max(axis=0) > 0.5, found.argmax(axis=0) + 1, 0).astype(np.uint8)
    yield Segmentation(series, labels, named, description, output.get("encoding", "binary"))


def opened(file: Path, sha256: str) -> Any:
    """Return ONNX Runtime's session of a network; raises `AnotherModel` where the file is not the one that was named."""
    import onnxruntime

    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256.lower():
        raise AnotherModel(file.name)
    return onnxruntime.InferenceSession(data, providers=onnxruntime.get_available_providers())


def _normalised(values: Floats, model: Mapping[str, Any]) -> Floats:
    how = model.get("normalise", {})
    if "clip" in how:
        values = np.clip(values, *how["clip"])
    kind = how.get("kind", "range")
    if kind == "range":
        low, high = how["clip"]
        return ((values - low) / (high - low)).astype(np.float32)
    mean, deviation = (values.mean(), values.std()) if kind == "zscore" else (how.get("mean", 0.0), how.get("deviation", 1.0))
    return ((values - mean) / max(float(deviation), 1e-6)).astype(np.float32)


def _inferred(session: Any, values: Floats, model: Mapping[str, Any], job: Run) -> NDArray[np.float32]:
    """Return the network's output (channels, slices, rows, columns), or (channels, 1) for one that gives one answer."""
    name, by_slice = session.get_inputs()[0].name, len(session.get_inputs()[0].shape) == 4
    patch = [int(one) for one in model.get("patch", values.shape[1:] if by_slice else values.shape)]
    if len(patch) != (2 if by_slice else 3):
        raise ValueError("the patch has another number of sizes than the network's input")
    if by_slice:
        patch = [1, *patch]
    padded = np.pad(values, [(0, max(0, size - have)) for size, have in zip(patch, values.shape, strict=True)], mode="edge")
    overlap = float(model.get("overlap", 0.5))
    starts = [_starts(have, size, overlap) for have, size in zip(padded.shape, patch, strict=True)]
    weight = _weight(patch)
    total: NDArray[np.float32] | None = None
    share: NDArray[np.float32] = np.zeros(padded.shape, np.float32)
    places = list(itertools.product(*starts))
    for done, at in enumerate(places):
        box = tuple(slice(start, start + size) for start, size in zip(at, patch, strict=True))
        piece = padded[box]
        given = piece[:, None] if by_slice else piece[None, None]
        (answer,) = session.run(None, {name: np.ascontiguousarray(given)})[:1]
        answer = np.moveaxis(answer, 1, 0)[:, 0] if by_slice and answer.ndim == 4 else answer[0]
        answer = answer.reshape(answer.shape[0], *patch) if answer.size == answer.shape[0] * piece.size else answer
        if answer.ndim == 1:
            total = answer[:, None] if total is None else total + answer[:, None]
            share = np.full(1, done + 1, np.float32)
        else:
            total = np.zeros((answer.shape[0], *padded.shape), np.float32) if total is None else total
            total[(slice(None), *box)] += answer * weight
            share[box] += weight
        job.progress(0.1 + 0.8 * (done + 1) / len(places), "inferring")
    assert total is not None
    whole = total / share
    return whole if whole.ndim == 2 else whole[:, : values.shape[0], : values.shape[1], : values.shape[2]]


def _starts(have: int, size: int, overlap: float) -> list[int]:
    count = 1 if have <= size else int(np.ceil((have - size) / max(1.0, size * (1 - overlap)))) + 1
    return sorted({round(one) for one in np.linspace(0, have - size, count)})


def _weight(patch: Sequence[int]) -> NDArray[np.float32]:
    axes = [np.exp(-0.5 * (((np.arange(size) - (size - 1) / 2) / max(size / 8, 0.5)) ** 2)) for size in patch]
    weight = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.maximum(weight, 1e-3).astype(np.float32)


def _activated(scores: NDArray[np.float32], model: Mapping[str, Any]) -> NDArray[np.float32]:
    kind = model.get("activation", "softmax")
    if kind == "sigmoid":
        return (1 / (1 + np.exp(-scores))).astype(np.float32)
    if kind == "none":
        return scores
    powers = np.exp(scores - scores.max(axis=0))
    return (powers / powers.sum(axis=0)).astype(np.float32)


def _answer(certainties: NDArray[np.float32], output: Mapping[str, Any]) -> Finding:
    labels = [files.code(one) for one in output["labels"]]
    if len(certainties) != len(labels):
        raise ValueError("the network has another number of classes than there are labels")
    best = int(certainties.argmax())
    certainty = float(certainties[best])
    sure = certainty >= float(output.get("unsure", 0.5))
    reason = ", ".join(f"{one.meaning} {float(value):.2f}" for one, value in zip(labels, certainties, strict=True))
    return Finding(files.code(output["question"]), labels[best] if sure else None, certainty, reason)
