"""Reference and validation together, on a network small enough to work out by hand."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnx_release.core.array_files import ArrayFile, writing_arrays
from onnx_release.core.errors import NetworkError
from onnx_release.core.files import sha256
from onnx_release.core.params import Export, Runtime, Validate
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.core.types import Sample, softmax_prediction
from onnx_release.data.samples import write_samples
from onnx_release.export.export import export_network
from onnx_release.network.reference import write_reference
from onnx_release.report.text import ANSWER_DETAILS
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.validate.validate import OutputErrors, error_metrics, sample_error, validate
from tests.validated import KINDS, validated

NET = ModelFiles("net")
SPEC = Spec.model_validate(
    {
        "task": "classification",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 2]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 2]}],
        "tolerance": {"torch_rounding_multiple": 4, "atol": 0.0, "rtol": 0.0},
    }
)
PARAMS = Validate(resamples=200, confidence=0.95, seed=0)
# The second sample has a third in it, which float32 cannot hold: PyTorch rounds there.
ITEMS = [([1.0, 0.0], 0, "a"), ([1 / 3, 0.7], 1, "b"), ([0.0, 1.0], 0, "b"), ([3.0, 1.0], None, "c")]


class Data:
    """A model's data.py whose postprocess takes the largest logit."""

    def samples(self, raw, split):
        yield from ()

    def preprocess(self, item):
        return {"x": item}

    def postprocess(self, outputs):
        return softmax_prediction(outputs["logits"], top=2)


def network(*weight):
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.load_state_dict({"weight": torch.tensor(weight or [[1.1, 0.3], [0.3, 1.1]])})
    return layer.eval()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a prepared, referenced and exported network."""
    folder = tmp_path_factory.mktemp("prepared")
    samples = [Sample({"x": np.array(x, np.float32)}, label, group) for x, label, group in ITEMS]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_samples(NET.evaluation_samples, samples, 10, SPEC)
        write_reference(network(), SPEC, NET, seed=0)
        export_network(network(), SPEC, Export(exporter="torchscript", opset=18), NET.variant("export").parent)
    return folder


@pytest.fixture
def model(prepared, tmp_path, monkeypatch):
    """A copy of that folder is the working directory; gives the model file."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return NET.variant("export")


def opened(model, spec=SPEC):
    return OnnxModel(model, spec, Runtime(provider="cpu", intra_threads=1))


def check(model, **changes):
    spec = SPEC.model_copy(update={"tolerance": SPEC.tolerance.model_copy(update=changes)})
    return validate(opened(model, spec), Data(), NET, PARAMS)


def change_weight(model, change):
    """Write another model whose weight is `change` of this one's."""
    proto = onnx.load(model)
    (weight,) = proto.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight).copy()), weight.name))
    path = model.with_name("changed.onnx")
    onnx.save(proto, path)
    return path


def test_the_reference_holds_every_sample_and_every_corner_in_both_precisions(model):
    samples, cases = ArrayFile(NET.reference_samples), ArrayFile(NET.reference_cases)
    assert len([name for name in samples.names if name.endswith("float64")]) == len(ITEMS)
    assert [name for name in cases.names if name.endswith("inputs")] == [f"batch={n}/inputs" for n in (1, 4, 2, 3)]
    exact = samples.folder("000001/float64")["logits"]
    assert exact.dtype == np.float64
    # The weights are float32 numbers, taken to float64 as they are.
    x, weight = (
        np.array([1 / 3, 0.7], np.float32).astype(np.float64),
        np.array([[1.1, 0.3], [0.3, 1.1]], np.float32).astype(np.float64),
    )
    assert exact[0] == pytest.approx(weight @ x, abs=1e-15)
    rounded = samples.folder("000001/float32")["logits"]
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 1e-6


def test_a_faithful_export_passes_and_its_figures_are_right(model):
    metrics, rows = check(model)
    assert metrics.passed is True
    assert metrics.failure == ""
    assert metrics.cases == 4 + len(ITEMS)
    assert metrics.error_vs_torch_rounding <= 4
    assert metrics.cosine == pytest.approx(1.0)
    assert metrics.sqnr_db > 120
    # By hand: classes 0, 1, 1, 0 against the labels 0, 1, 0 and none.
    assert [row["variant_class"] for row in rows] == [0, 1, 1, 0]
    assert [row["variant_right"] for row in rows] == [1, 1, 0, None]
    assert metrics.agreement == 1.0
    assert metrics.agreement_low == pytest.approx(0.025 ** (1 / 3))  # three groups
    assert metrics.accuracy == metrics.accuracy_torch == pytest.approx(2 / 3)
    assert metrics.accuracy_drop == 0.0
    assert metrics.labelled == 3
    assert json.dumps(metrics.content(), allow_nan=False)


def test_a_wrong_weight_fails_and_the_message_names_no_tolerance_that_would_hide_it(model):
    # Logit 0 loses 0.2 times the first value, which is largest, 3, in the last sample: off by 0.6.
    changed = change_weight(model, lambda weight: weight - np.array([[0.2, 0.0], [0.0, 0.0]], np.float32))
    metrics, rows = check(changed)
    assert metrics.passed is False
    assert metrics.max_abs_error == pytest.approx(0.6, abs=1e-6)
    assert metrics.max_rel_error == pytest.approx(0.2 / 1.1, abs=1e-6)
    assert "logits is wrong, and not merely rounded: off by 0.6 in the case " in metrics.failure
    assert "would pass" not in metrics.failure and "`python -m tools.doctor net`" in metrics.failure
    assert rows[3]["max_abs_error"] == pytest.approx(0.6, abs=1e-6)
    needed = metrics.outputs["logits"].tolerance_needed
    assert check(changed, atol=needed)[0].passed is True
    assert check(changed, atol=needed * 0.999)[0].passed is False


def test_an_error_of_some_roundings_fails_and_the_message_says_what_would_pass(model):
    changed = change_weight(model, lambda weight: weight * np.float32(1 + 2e-6))
    metrics, _ = check(changed)
    assert metrics.passed is False
    needed = metrics.outputs["logits"].tolerance_needed
    assert (
        f"It would pass with tolerance.torch_rounding_multiple {metrics.error_vs_torch_rounding:.3g}" in metrics.failure
    )
    assert f"tolerance.atol {needed:.3g} at rtol 0" in metrics.failure
    assert check(changed, atol=needed)[0].passed is True
    multiple = metrics.error_vs_torch_rounding
    assert check(changed, torch_rounding_multiple=multiple)[0].passed is True
    assert check(changed, torch_rounding_multiple=multiple * 0.999)[0].passed is False


def test_the_multiple_is_of_pytorch_s_own_error(model):
    metrics, _ = check(change_weight(model, lambda weight: weight + np.float32(1e-3)))
    output = metrics.outputs["logits"]
    expected = output.max_abs_error / output.max_abs_error_torch
    assert metrics.error_vs_torch_rounding == pytest.approx(expected)
    assert 1e-9 < output.max_abs_error_torch < 1e-6


def test_other_answers_lower_agreement_and_accuracy(model):
    # Both logits swapped: every answer is the other one.
    metrics, _ = check(change_weight(model, lambda weight: np.ascontiguousarray(weight[::-1])))
    assert metrics.agreement == 0.0
    assert metrics.agreement_high == pytest.approx(1 - 0.025 ** (1 / 3))
    assert metrics.accuracy == pytest.approx(1 / 3)
    assert metrics.accuracy_drop == pytest.approx(1 / 3)


def test_nan_fails_and_is_null_in_the_metrics(model):
    metrics, _ = check(change_weight(model, lambda weight: weight * np.float32(np.nan)), atol=1e9)
    assert metrics.passed is False
    assert metrics.max_abs_error is None
    assert metrics.sqnr_db is None
    assert "logits has NaN or infinity in the case batch=1" in metrics.failure
    assert json.dumps(metrics.content(), allow_nan=False)


def test_a_task_without_classes_has_no_agreement(model):
    spec = SPEC.model_copy(update={"task": "tensor"})
    metrics, rows = validate(opened(model, spec), Data(), NET, PARAMS)
    assert metrics.passed is True
    assert (metrics.agreement, metrics.accuracy, metrics.labelled) == (None, None, 0)
    assert set(rows[0]) == {"sample", "group", "max_abs_error"}


@pytest.mark.parametrize(("task", "labelled"), KINDS)
def test_every_model_of_a_task_has_the_same_figures_with_labels_and_without(task, labelled):
    """And every model but for what its task adds: pages read them by name."""
    found, of_tensor = validated(task, labelled), validated("tensor")
    assert of_tensor.keys() | set(ANSWER_DETAILS[task]) <= found.keys() == validated(task).keys()
    of_accuracy = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_torch", "accuracy_drop")
    assert found["labelled"] == labelled
    assert {found[key] is None for key in of_accuracy} == {labelled == 0}


def test_a_detector_that_finds_nothing_has_the_same_figures_too():
    found = validated("detection", finds_nothing=True)
    assert found.keys() == validated("detection").keys()
    assert (found["boxes"], found["box_iou"], found["score_error"], found["agreement"]) == (0, None, None, 1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            network([float("nan"), 0.0], [0.0, 1.0]),
            "1 of the 2 values of the output logits are NaN in float32",
        ),
        (torch.nn.Linear(2, 3).eval(), r"contradicts spec\.yaml: logits has the shape \[1, 3\]"),
        (torch.nn.Linear(5, 2).eval(), r"fails in float32 on x \[1, 2\]"),
    ],
)
def test_a_bad_network_is_named_and_the_earlier_reference_stays(model, bad, message):
    before = [sha256(path) for path in (NET.reference_samples, NET.reference_cases)]
    with pytest.raises(NetworkError, match=message):
        write_reference(bad, SPEC, NET, seed=0)
    assert [sha256(path) for path in (NET.reference_samples, NET.reference_cases)] == before
    assert len(list(NET.artifacts.iterdir())) == 2  # reference and export, nothing half made


def test_the_same_network_is_the_same_reference_and_is_float32_again(model):
    before = [sha256(path) for path in (NET.reference_samples, NET.reference_cases)]
    again = network()
    write_reference(again, SPEC, NET, seed=0)
    assert [sha256(path) for path in (NET.reference_samples, NET.reference_cases)] == before
    assert again.weight.dtype == torch.float32


def test_infinity_fails_and_is_null_in_the_metrics(model):
    metrics, _ = check(
        change_weight(model, lambda weight: weight * np.float32(3e38)), atol=1e9
    )  # three times that is infinite
    assert not metrics.passed
    assert metrics.sqnr_db is None
    assert json.dumps(metrics.content(), allow_nan=False)


@pytest.mark.parametrize("names", [["good", "bad"], ["bad", "good"]])
def test_nan_in_one_output_is_not_hidden_by_another(names):
    errors = {name: OutputErrors() for name in names}
    one = np.ones(2)
    errors["good"].add("case", one, one, one + 0.5, 0.0)
    errors["bad"].add("case", one, one, one * np.nan, 0.0)
    metrics = error_metrics(errors)
    for name in ("max_abs_error", "max_rel_error", "error_vs_torch_rounding", "sqnr_db", "cosine"):
        assert metrics[name] is None, name


def test_the_errors_of_whole_numbers_and_of_booleans_do_not_wrap_around(tmp_path):
    outputs = [{"name": name, "dtype": name, "shape": ["batch", 1]} for name in ("uint8", "bool")]
    spec = Spec.model_validate({**SPEC.model_dump(by_alias=True), "task": "tensor", "outputs": outputs})
    with writing_arrays(tmp_path / "a.npz") as writer:
        writer.add_all("000000/float64", {"uint8": np.array([[2]], np.uint8), "bool": np.array([[True]])})
    answers = {"uint8": np.array([[1]], np.uint8), "bool": np.array([[False]])}
    assert sample_error(spec, ArrayFile(tmp_path / "a.npz"), "000000", answers) == {"max_abs_error": 1.0}
