"""`mr-brain` by networks: what is done before and after them, with networks that take what is bright for brain."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pacs import phantoms
from pacs.processing import NotApplicable, Run, Series
from pacs.processing.networks import AnotherModel
from processors.mr_brain_net import box_of, extract_by_network, stretched, turned

BALL_MM = 62.0


def threshold_network(folder: Path) -> Path:
    """Write two networks of one convolution and a softmax, for which the brighter half of the range is brain."""
    weight = np.array([-40, 40], np.float32).reshape(2, 1, 1, 1, 1)
    bias = np.array([40 * 0.6, -40 * 0.6], np.float32)
    shape, shares = [1, 1, "x", "y", "z"], [1, 2, "x", "y", "z"]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["values", "weight", "bias"], ["raw"]),
            helper.make_node("Softmax", ["raw"], ["shares"], axis=1),
        ],
        "threshold",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, shares)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    names = ("bbox_model.onnx", "model.onnx")
    for name in names:
        (folder / name).write_bytes(model.SerializeToString())
    digest = hashlib.sha256(model.SerializeToString()).hexdigest()
    (folder / "model.json").write_text(json.dumps({"networks": dict.fromkeys(names, digest)}))
    return folder


def ball(*, sagittal: bool = False) -> tuple[Series, np.ndarray]:
    """Return a bright ball, off the middle and dark within, and where it is; slices of 4 mm, axial or sagittal."""
    z, y, x = phantoms.mesh((46, 60, 56), (4, 3, 3), (-82.5, -88.5, -90))
    away = np.sqrt((x - 12) ** 2 + (y + 9) ** 2 + (z - 8) ** 2)
    values = np.where(away < BALL_MM, np.where(away < 15, 60.0, 600.0), 40.0)
    if not sagittal:
        return Series(phantoms.stack(values, (4, 3, 3), (-82.5, -88.5, -90), **phantoms.MR)), away < BALL_MM
    # Slices from the right, rows to the back, columns downwards.
    turned_values = np.ascontiguousarray(values.transpose(2, 0, 1)[:, ::-1])
    datasets = phantoms.stack(turned_values, (3, 4, 3), **phantoms.MR)
    for index, one in enumerate(datasets):
        one.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        one.ImagePositionPatient = [-82.5 + 3 * index, -88.5, 90]
    return Series(datasets), np.ascontiguousarray((away < BALL_MM).transpose(2, 0, 1)[:, ::-1])


@pytest.mark.parametrize("sagittal", [False, True])
def test_the_mask_lies_where_the_brain_is(tmp_path: Path, sagittal: bool) -> None:
    """Found, boxed, stretched, filled and put back on the series' own grid, however its axes lie."""
    series, truth = ball(sagittal=sagittal)
    values, geometry = series.array(), series.geometry()
    if sagittal:  # slices of a series go along its normal, here to the right or to the left
        truth = truth if geometry.origin[0] < 0 else truth[::-1]

    found = extract_by_network(values, geometry, threshold_network(tmp_path), Run())

    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.995


def test_axes_are_turned_to_right_front_and_up() -> None:
    """Axial: slices go up, rows to the back, columns to the left; the last two are flipped."""
    axial, sagittal = ball()[0].geometry(), ball(sagittal=True)[0].geometry()

    assert turned(axial) == ((2, 1, 0), (0, 1))
    assert turned(sagittal)[0] == (0, 2, 1)


def test_stretching_takes_the_nearest() -> None:
    """Voxel centres, not corners, are matched; to and fro changes nothing."""
    values = np.arange(6, dtype=np.float32).reshape(6, 1, 1)

    assert stretched(values, (3, 1, 1)).ravel().tolist() == [1, 3, 5]
    assert stretched(stretched(values, (12, 2, 2)), values.shape).ravel().tolist() == values.ravel().tolist()


def test_the_box_has_a_margin() -> None:
    """A tenth of its size on each side, within the volume, in voxels of the volume."""
    found = np.zeros((10, 10, 10), bool)
    found[2:7, 3:8, 5:] = True

    assert box_of(found, (100, 40, 10)) == (slice(15, 75), slice(10, 34), slice(5, 10))


def test_another_network_is_not_run(tmp_path: Path) -> None:
    """A file whose digest is not what was written down is refused."""
    series, _ = ball()
    threshold_network(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"another")

    with pytest.raises(AnotherModel):
        extract_by_network(series.array(), series.geometry(), tmp_path, Run())


def test_what_has_no_brain_is_refused(tmp_path: Path) -> None:
    """Nothing but one value, and something bright that is too small."""
    series, _ = ball()
    folder, geometry = threshold_network(tmp_path), series.geometry()
    small = np.where(series.array() > 300, 0, series.array())
    small[20:23, 20:25, 20:25] = 600

    with pytest.raises(NotApplicable, match="alike"):
        extract_by_network(np.full(geometry.shape, 5, np.float32), geometry, folder, Run())
    with pytest.raises(NotApplicable, match="no brain found"):
        extract_by_network(small, geometry, folder, Run())
