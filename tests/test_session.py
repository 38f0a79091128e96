"""ONNX Runtime behind one error that says what went in."""

import numpy as np
import pytest
from onnx import helper

from onnx_release.errors import GraphError
from onnx_release.session import open_session, run_session


def negating(save_graph):
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Add", ["x", "x"], ["twice"])]
    return save_graph(nodes, [("x", ["batch", 2])], [("twice", ["batch", 2]), ("y", ["batch", 2])])


def test_outputs_come_by_name(save_graph):
    outputs = run_session(open_session(negating(save_graph)), {"x": np.array([[1, -2]], np.float32)})
    assert {name: array.tolist() for name, array in outputs.items()} == {"twice": [[2, -4]], "y": [[-1, 2]]}


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"x": np.ones((3, 5), np.float32)}, r"fails on x \[3, 5\]: .*Got: 5 Expected: 2"),
        ({"x": np.ones((3, 2), np.float64)}, r"fails on x \[3, 2\]: .*tensor\(double\).*tensor\(float\)"),
        ({"z": np.ones((3, 2), np.float32)}, r"fails on z \[3, 2\]: .*\['x'\]"),
    ],
    ids=["a shape", "a dtype", "a name"],
)
def test_what_does_not_fit_is_named_with_its_shape(save_graph, inputs, says):
    session = open_session(negating(save_graph))
    with pytest.raises(GraphError, match=f"(?s){says}"):
        run_session(session, inputs)


def test_a_failure_inside_the_graph_is_named_with_the_shapes(save_graph):
    path = save_graph([helper.make_node("Add", ["a", "b"], ["y"])], [("a", ["n"]), ("b", ["m"])], [("y", ["k"])])
    with pytest.raises(GraphError, match=r"fails on a \[2\], b \[3\]"):
        run_session(open_session(path), {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)})


def test_a_damaged_file_is_named(save_graph):
    path = negating(save_graph)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GraphError, match=r"ONNX Runtime .* does not load .*model\.onnx"):
        open_session(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GraphError, match=r"does not load .*nowhere\.onnx"):
        open_session(tmp_path / "nowhere.onnx")


def test_the_threads_are_those_asked_for(save_graph):
    assert open_session(negating(save_graph), 1).get_session_options().intra_op_num_threads == 1
