"""A mask of 0 and -inf among the inputs and in the output: ranges, weights and biases stay finite."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_release.core.files import read_json
from onnx_release.core.spec import Budget
from onnx_release.graph.targets import TARGETS
from onnx_release.reduce.calibrate import calibrate
from onnx_release.runtime.session import open_session, run_session
from onnx_release.static_quantization.quantize_static import quantize_statically
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import Goal
from tests.residual import CALIBRATE
from tests.samples import save_samples

FEATURES, CLASSES = 16, 4
WIDTH = FEATURES + CLASSES


@pytest.fixture
def graph(save_graph):
    """Scores of the features, plus a mask; a layer takes the first value of the mask, too."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["features", "mask"], name="split", axis=1),
        helper.make_node("Gemm", ["features", "w1", "b1"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["s"], name="scores"),
        helper.make_node("Gather", ["mask", "first"], ["m"], name="gather", axis=1),
        helper.make_node("Gemm", ["m", "w3", "b3"], ["g"], name="gate"),
        helper.make_node("Sigmoid", ["g"], ["o"], name="sigmoid"),
        helper.make_node("Add", ["s", "o"], ["t"], name="open"),
        helper.make_node("Add", ["t", "mask"], ["y"], name="hide"),
    ]
    shapes = {"w1": (FEATURES, 32), "b1": (32,), "w2": (32, CLASSES), "b2": (CLASSES,), "w3": (1, CLASSES)}
    weights = {
        name: random.normal(size=shape).astype(np.float32) for name, shape in {**shapes, "b3": (CLASSES,)}.items()
    }
    weights |= {"sizes": np.array([FEATURES, CLASSES]), "first": np.array([0])}
    return save_graph(nodes, [("x", ["batch", WIDTH])], [("y", ["batch", CLASSES])], weights)


@pytest.fixture
def samples(tmp_path):
    random = np.random.default_rng(1)
    masks = np.where(random.random((24, CLASSES)) < 0.4, -np.inf, 0)
    masks[np.arange(24), np.arange(24) % CLASSES] = 0  # never all of them
    rows = np.concatenate([random.normal(size=(24, FEATURES)), masks], axis=1).astype(np.float32)
    assert np.isinf(rows[:, FEATURES]).any() and np.isfinite(rows[:, FEATURES]).any()
    return save_samples(tmp_path / "samples.npz", list(rows))


@pytest.mark.parametrize("minutes", [0.001, 0.0])
def test_the_layers_are_fitted_to_finite_inputs_and_the_rest_stays_in_float(
    graph, samples, make_spec, tmp_path, minutes
):
    spec = make_spec({"x": ["batch", WIDTH]}, {"y": ["batch", CLASSES]}, batch=(1, 4, 2))
    calibrate(graph, spec, samples, CALIBRATE, tmp_path / "calibration")
    source, ranges = tmp_path / "calibration/model.onnx", tmp_path / "calibration/ranges.json"
    found = read_json(ranges)
    assert found["boundless"] == ["x", "mask", "m", "g", "y"]
    assert np.isfinite(list(found["ranges"].values())).all()

    scorer, goal = Scorer(source, spec, None, samples), Goal(Budget(sqnr_db=20), minutes)
    metrics = quantize_statically(source, ranges, TARGETS["vnni"], scorer, goal, tmp_path / "int8")
    assert metrics.calibration_sqnr_db is not None and metrics.calibration_sqnr_db > 20
    model = onnx.load(tmp_path / "int8/model.onnx")
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert any(array.dtype == np.int8 and array.ndim == 2 for array in arrays)
    assert all(np.isfinite(array).all() for array in arrays)
    session = open_session(tmp_path / "int8/model.onnx")
    for index in range(len(samples)):
        answer = run_session(session, samples.batch(index))["y"]
        assert (answer == -np.inf).tolist() == (samples.batch(index)["x"][:, FEATURES:] == -np.inf).tolist()
        assert not np.isnan(answer).any()
