"""The answers of a file compared with PyTorch's references: what is right, less precise, wrong or broken."""

import numpy as np
import pytest
from onnx import helper

from onnx_release.core.array_files import writing_arrays
from onnx_release.core.paths import ModelFiles
from onnx_release.export.agreement import compare_with_torch

NET = ModelFiles("net")
ROUNDING = 1e-7


@pytest.fixture
def compare(tmp_path, monkeypatch, save_graph, make_spec):
    """Compare a file that multiplies its input by a constant, where PyTorch's answer is its input."""
    monkeypatch.chdir(tmp_path)
    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 2, 2))

    def compared(factor, case=((1.0, 2.0),), sample=(3.0, 4.0), operator="Mul"):
        x, item = np.array(case, np.float32), np.array(sample, np.float32)
        for path in (NET.reference_cases, NET.evaluation_samples):
            path.parent.mkdir(parents=True, exist_ok=True)
        with writing_arrays(NET.reference_cases) as writer:
            writer.add("batch=1/inputs/x", x)
            writer.add("batch=1/float32/y", x)
            writer.add("batch=1/float64/y", x.astype(np.float64) * (1 + ROUNDING))
        with writing_arrays(NET.reference_samples) as writer:
            writer.add("000000/float32/y", item[None])
            writer.add("000000/float64/y", item[None].astype(np.float64))
        with writing_arrays(NET.evaluation_samples) as writer:
            writer.add("000000/x", item)
            writer.add("labels", np.array([-1]))
            writer.add("groups", np.array(["a"]))
        node = helper.make_node(operator, ["x", "factor"], ["y"])
        weights = {"factor": np.array(factor, np.float32)}
        return compare_with_torch(save_graph([node], [("x", ["batch", 2])], [("y", ["batch", 2])], weights), spec, NET)

    return compared


def test_the_same_answers_agree(compare):
    found = compare(1.0)
    assert (found.wrong, found.broken, found.validates, found.difference) == ("", False, True, "")


def test_answers_within_a_thousand_roundings_are_right_and_may_be_beyond_the_tolerance(compare):
    found = compare(1 + 300 * ROUNDING, case=((100.0, 200.0),))
    assert (found.wrong, found.broken, found.validates) == ("", False, True)  # within rtol
    found = compare(1 + 2000 * ROUNDING, case=((4000.0, 2.0),), sample=(3.0, 4.0))
    assert "y is off by 0.8" in found.wrong and "the case batch=1" in found.wrong and "times PyTorch's" in found.wrong
    assert not found.broken and not found.validates


def test_nan_where_torch_has_none_is_broken_and_named_with_its_case(compare):
    found = compare(0.0, case=((0.0, 2.0),), operator="Div")  # 0 / 0
    assert found.broken and not found.validates
    assert found.wrong == "in the case batch=1 2 of the 2 values of y are NaN or infinite, where PyTorch's are finite"


def test_samples_are_compared_too(compare):
    found = compare(0.0, case=((0.0, 0.0),), sample=(0.0, 5.0))
    assert found.wrong.startswith("y is off by 5 in the case sample 0") and not found.broken


def test_infinity_that_torch_has_too_is_no_difference(compare):
    found = compare(1.0, case=((-np.inf, 2.0),))
    assert (found.wrong, found.validates) == ("", True)


def test_another_shape_is_broken(compare):
    found = compare([[1.0, 1.0], [1.0, 1.0]])
    assert found.broken and "y has the shape [2, 2] and in PyTorch [1, 2]" in found.wrong
