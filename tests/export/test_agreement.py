"""The answers of a file compared with PyTorch's references: what is right, less precise, wrong or broken."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_release.core.array_files import writing_arrays
from onnx_release.core.paths import ModelFiles
from onnx_release.export.agreement import compare_with_torch

NET = ModelFiles("net")
ROUNDING = 1e-7


@pytest.fixture
def compare(tmp_path, monkeypatch, save_graph, make_spec):
    """Compare a file that multiplies its input by a constant, where PyTorch's answer is its input.

    With `given` that is the input of the case, and `case` only PyTorch's answer.
    """
    monkeypatch.chdir(tmp_path)
    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 2, 2))

    def compared(factor, case=((1.0, 2.0),), sample=(3.0, 4.0), operator="Mul", spec=spec, given=None):
        x, item = np.array(case, np.float32), np.array(sample, np.float32)
        for path in (NET.reference_cases, NET.evaluation_samples):
            path.parent.mkdir(parents=True, exist_ok=True)
        with writing_arrays(NET.reference_cases) as writer:
            writer.add("batch=1/inputs/x", x if given is None else np.array(given, np.float32))
            writer.add("batch=1/float32/y", x)
            writer.add("batch=1/float64/y", x.astype(np.float64) * (1 + ROUNDING))
            for kind in ("float32", "float64"):
                writer.add(f"batch=1/{kind}/whole", np.nan_to_num(x, posinf=0, neginf=0).astype(np.int64))
        with writing_arrays(NET.reference_samples) as writer:
            writer.add("000000/float32/y", item[None])
            writer.add("000000/float64/y", item[None].astype(np.float64))
            for kind in ("float32", "float64"):
                writer.add(f"000000/{kind}/whole", item[None].astype(np.int64))
        with writing_arrays(NET.evaluation_samples) as writer:
            writer.add("000000/x", item)
            writer.add("labels", np.array([-1]))
            writer.add("groups", np.array(["a"]))
        nodes = [helper.make_node(operator, ["x", "factor"], ["y"])]
        outputs: list[Any] = [("y", ["batch", 2])]
        if len(spec.outputs) > 1:
            nodes.append(helper.make_node("Cast", ["y"], ["whole"], to=TensorProto.INT64))
            outputs.append(("whole", TensorProto.INT64, ["batch", 2]))
        weights = {"factor": np.array(factor, np.float32)}
        return compare_with_torch(save_graph(nodes, [("x", ["batch", 2])], outputs, weights), spec, NET)

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


@pytest.mark.parametrize(("factor", "instead"), [(0.5, "-65504"), (-1.0, "inf")])
def test_infinity_that_the_file_does_not_have_is_broken(compare, factor, instead):
    case = ((-np.inf, 2.0),)
    # The case is what PyTorch answers, and half of the largest float16 what the file does.
    found = compare(factor, case=case, given=((-131008.0, 2.0),)) if factor > 0 else compare(factor, case=case)
    assert found.broken and not found.validates
    wanted = f"of y, 1 of the 2 values are not infinite as PyTorch's are: {instead} in place of -inf"
    assert found.wrong == f"in the case batch=1 {wanted}"


def test_another_shape_is_broken(compare):
    found = compare([[1.0, 1.0], [1.0, 1.0]])
    assert found.broken and "y has the shape [2, 2] and in PyTorch [1, 2]" in found.wrong


def test_an_output_that_does_not_count_may_differ_and_whole_numbers_are_judged_by_their_share(compare, make_spec):
    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2], "whole": ["batch", 2]}, batch=(1, 2, 2))
    y, whole = spec.outputs
    whole = whole.model_copy(update={"dtype": "int64"})
    ignored = spec.model_copy(update={"outputs": [y.model_copy(update={"counts": False}), whole]})
    found = compare(1.1, spec=ignored)  # 1.1, 2.2, 3.3 and 4.4 are the same whole numbers
    assert (found.wrong, found.validates) == ("", True)
    found = compare(1.1, sample=(30.0, 40.0), spec=ignored)
    assert found.wrong == "whole has 2 of 4 values other than PyTorch's, as in sample 0" and not found.validates
    assert compare(1.1, spec=spec.model_copy(update={"outputs": [y, whole]})).wrong.startswith("y is off by")
