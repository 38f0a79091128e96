"""Files whose axes are fixed although the spec declares them as symbolic, or that contradict it in another way.

tests/export/test_export.py has the networks that fix an axis.
"""

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from onnx_release.core.errors import ExportError
from onnx_release.export.fixed_axes import check_axes, check_sizes
from onnx_release.graph.graph import axes


@pytest.fixture
def spec(make_spec):
    """One input and one output, both [batch, 8]."""
    return make_spec({"input": ["batch", 8]}, {"y": ["batch", 8]}, batch=(1, 6, 2))


def values(**shapes: list[int | str | None]) -> ModelProto:
    """A model of one input, then outputs, with nothing in between."""
    made = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    return helper.make_model(helper.make_graph([], "graph", made[:1], made[1:]))


def reshaped(to: list[int], y: list[int | str | None]) -> ModelProto:
    """A model that reshapes its input, with the shape `y` noted for its output."""
    model = values(input=["batch", 8], y=y)
    model.graph.initializer.append(numpy_helper.from_array(np.array(to, np.int64), "shape"))
    model.graph.node.append(helper.make_node("Reshape", ["input", "shape"], ["y"]))
    return model


def test_a_dimension_that_came_out_fixed_is_named(spec):
    with pytest.raises(ExportError, match=r"dimension batch \(axis 0 of y\) is fixed at 2 in the file"):
        check_axes(reshaped([2, 8], [2, 8]), spec)


@pytest.mark.parametrize("noted", [[2, 8], [2, 7, 8]], ids=["a size", "a size and an axis"])
def test_a_number_that_only_the_note_of_an_output_has_is_replaced(spec, noted):
    """torch.onnx notes the length of the example for the output of an LSTM."""
    model = reshaped([-1, 8], noted)
    model.graph.value_info.append(helper.make_tensor_value_info("inner", 1, [2, 8]))
    check_axes(model, spec)
    assert axes(model.graph.output[0]) == ["batch", 8]
    assert not model.graph.value_info


def test_other_symbols_are_renamed_and_open_sizes_are_filled_in(spec):
    model = values(input=["batch", 8], y=["s0", "s1"])
    check_axes(model, spec)
    axes = model.graph.output[0].type.tensor_type.shape.dim
    assert (axes[0].dim_param, axes[1].dim_value) == ("batch", 8)


def test_an_output_that_the_spec_does_not_declare_is_named(spec):
    with pytest.raises(ExportError, match=r"outputs are \['y', 'other'\], spec\.yaml declares \['y'\]"):
        check_axes(values(input=["batch", 8], y=["batch", 8], other=["batch", 8]), spec)


def test_a_size_that_the_graph_loses_without_failing_is_found(save_graph, spec):
    shape = np.array([-1, 8], np.int64)
    flat = helper.make_node("Reshape", ["input", "shape"], ["flat"])
    first = helper.make_node("Slice", ["flat", "zero", "two", "zero"], ["y"])
    weights = {"shape": shape, "zero": np.array([0], np.int64), "two": np.array([2], np.int64)}
    path = save_graph([flat, first], [("input", ["batch", 8])], [("y", ["batch", 8])], weights)
    with pytest.raises(ExportError, match=r"at batch=3 y has the shape \[2, 8\]"):
        check_sizes(path, spec)


def test_a_dimension_whose_odd_size_is_its_example_is_tried_at_another(save_graph, make_spec):
    spec = make_spec({"input": ["batch", 8]}, {"y": ["batch", 8]}, batch=(1, 3, 3))
    fixed = helper.make_node("Reshape", ["input", "shape"], ["y"])
    weights = {"shape": np.array([3, 8], np.int64)}
    path = save_graph([fixed], [("input", ["batch", 8])], [("y", ["batch", 8])], weights)
    with pytest.raises(ExportError, match=r"batch is symbolic only in name: .*fails on input \[1, 8\]"):
        check_sizes(path, spec)
