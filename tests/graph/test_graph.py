"""Written ONNX files: where the weights go, what is refused, and what is read back."""

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from onnx_release.core.errors import GraphError
from onnx_release.graph.graph import (
    EXTERNAL_DATA,
    axes,
    check_model_file,
    copy_weights,
    default_opset,
    describe_model,
    dtype_name,
    external_files,
    load_model,
    model_size_mb,
    parameter_count,
    save_model,
    to_proto,
    weight_bytes,
)

# 512 float32 values: 2,048 bytes, over the 1,024 from which onnx moves a tensor out.
WEIGHT = np.arange(512, dtype=np.float32)


def relu(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target])


def adding(save_graph, weight=WEIGHT):
    add = helper.make_node("Add", ["x", "weight"], ["y"])
    return load_model(save_graph([add], [("x", ["batch", 512])], [("y", ["batch", 512])], {"weight": weight}))


def test_a_model_within_the_threshold_is_one_file(save_graph, tmp_path):
    (tmp_path / "out").mkdir()
    path = save_model(adding(save_graph), tmp_path / "out", threshold=2048)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    assert external_files(path) == set()
    check_model_file(path)


def test_a_model_over_the_threshold_has_its_weights_beside_it(save_graph, tmp_path):
    (tmp_path / "out").mkdir()
    path = save_model(adding(save_graph), tmp_path / "out", threshold=2047)
    data = path.with_name(EXTERNAL_DATA)
    assert external_files(path) == {EXTERNAL_DATA}
    assert data.read_bytes() == WEIGHT.tobytes()
    assert data.stat().st_mode == path.stat().st_mode
    check_model_file(path)
    loaded = onnx.numpy_helper.to_array(load_model(path).graph.initializer[0])
    np.testing.assert_array_equal(loaded, WEIGHT)
    assert model_size_mb(path) == pytest.approx((path.stat().st_size + 2048) / 1e6, rel=1e-12)


def external(save_graph, folder, weight=WEIGHT):
    """A model in `folder` whose weight lies beside it."""
    folder.mkdir()
    return save_model(adding(save_graph, weight), folder, threshold=0)


def test_an_exporters_graph_has_its_weights_written_before_it_becomes_a_message(save_graph, tmp_path):
    model = onnx_ir.from_proto(adding(save_graph))
    (tmp_path / "out").mkdir()
    held = to_proto(model, tmp_path / "out", threshold=2048)
    assert weight_bytes(held) == 2048 and not list((tmp_path / "out").iterdir())
    elsewhere = to_proto(model, tmp_path / "out", threshold=2047)
    assert weight_bytes(elsewhere) == 0
    path = save_model(elsewhere, tmp_path / "out")
    assert path.with_name(EXTERNAL_DATA).read_bytes() == WEIGHT.tobytes()
    check_model_file(path)
    assert load_model(path).graph.initializer[0].raw_data == held.graph.initializer[0].raw_data


def test_weights_are_copied_from_one_folder_to_another(save_graph, tmp_path):
    path = external(save_graph, tmp_path / "source")
    other = external(save_graph, tmp_path / "other", WEIGHT + 1)
    model = load_model(path, weights=False)
    # A second weight, from the end of a file that has more in it.
    model.graph.initializer.add().CopyFrom(load_model(other, weights=False).graph.initializer[0])
    model.graph.initializer[1].name = "tail"
    model.graph.node.add().CopyFrom(helper.make_node("Identity", ["tail"], ["z"]))
    model.graph.initializer[1].dims[:] = [256]
    place = {"location": "more", "offset": "3072", "length": "1024"}
    for entry in model.graph.initializer[1].external_data:
        entry.value = place[entry.key]
    (tmp_path / "source/more").write_bytes(bytes(2048) + other.with_name(EXTERNAL_DATA).read_bytes())
    (tmp_path / "out").mkdir()
    copy_weights(model, tmp_path / "source", tmp_path / "out")
    copied = load_model(save_model(model, tmp_path / "out"))
    found = [onnx.numpy_helper.to_array(tensor) for tensor in copied.graph.initializer]
    np.testing.assert_array_equal(found[0], WEIGHT)
    np.testing.assert_array_equal(found[1], WEIGHT[256:] + 1)
    assert [file.name for file in sorted((tmp_path / "out").iterdir())] == ["model.onnx", EXTERNAL_DATA]


def test_weights_of_inner_graphs_are_found(save_graph, tmp_path):
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, [512])
    weight = onnx.numpy_helper.from_array(WEIGHT, "inner")
    branch = helper.make_graph([helper.make_node("Identity", ["inner"], ["z"])], "branch", [], [value], [weight])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    nodes = [node, helper.make_node("Identity", ["a"], ["z"])]
    source = load_model(save_graph(nodes, [("x", TensorProto.BOOL, [])], [("y", [512])], {"a": WEIGHT}))
    (tmp_path / "out").mkdir()
    path = save_model(source, tmp_path / "out", threshold=0)
    assert path.with_name(EXTERNAL_DATA).stat().st_size == 3 * 2048
    for attribute in load_model(path).graph.node[0].attribute:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(attribute.g.initializer[0]), WEIGHT)


def test_weights_may_be_hard_links_as_dvc_makes_them(save_graph, tmp_path):
    path = external(save_graph, tmp_path / "out")
    (tmp_path / "in the cache").hardlink_to(path.with_name(EXTERNAL_DATA))
    assert load_model(path).graph.initializer[0].raw_data == WEIGHT.tobytes()


def test_a_file_of_weights_that_is_too_short_is_named(save_graph, tmp_path):
    path = external(save_graph, tmp_path / "out")
    path.with_name(EXTERNAL_DATA).write_bytes(WEIGHT.tobytes()[:-100])
    with pytest.raises(GraphError, match=rf"{EXTERNAL_DATA} is too short: it lacks 100 bytes of weight"):
        load_model(path)


def test_missing_external_data_is_named(save_graph, tmp_path):
    (tmp_path / "out").mkdir()
    path = save_model(adding(save_graph), tmp_path / "out", threshold=0)
    path.with_name(EXTERNAL_DATA).unlink()
    for read in (check_model_file, load_model, describe_model):
        with pytest.raises(GraphError, match=EXTERNAL_DATA):
            read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GraphError, match=r"nowhere\.onnx is not there"):
        load_model(tmp_path / "nowhere.onnx")


def test_a_file_that_is_no_model_is_named(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(GraphError, match=r"text\.onnx is not an ONNX model, or damaged"):
        load_model(path)


def test_a_value_that_nothing_produces_is_refused(save_graph):
    path = save_graph([relu("nothing", "y")], [("x", ["batch", 2])], [("y", ["batch", 2])])
    with pytest.raises(GraphError, match=r"is invalid.*'nothing'"):
        check_model_file(path)


def test_a_shape_that_contradicts_the_operators_is_refused(save_graph):
    path = save_graph([relu("x", "y")], [("x", ["batch", 2])], [("y", ["batch", 3])])
    with pytest.raises(GraphError, match=r"is invalid.*\(2\) vs \(3\)"):
        check_model_file(path)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([relu("x", "y"), helper.make_node("Neg", ["x"], ["y"])], {}),
        ([relu("x", "y")], {"y": WEIGHT}),
        ([relu("x", "x"), relu("x", "y")], {}),
    ],
    ids=["two nodes", "a node and a weight", "a node and an input"],
)
def test_a_value_with_two_producers_is_refused(save_graph, nodes, weights):
    path = save_graph(nodes, [("x", ["batch", 512])], [("y", ["batch", 512])], weights)
    with pytest.raises(GraphError, match=r"is invalid: [xy] is produced more than once"):
        check_model_file(path)


def test_an_input_with_a_default_has_one_producer(save_graph):
    check_model_file(save_graph([relu("x", "y")], [("x", [512])], [("y", [512])], {"x": WEIGHT}))


def test_a_graph_that_onnx_runtime_does_not_know_is_refused(save_graph):
    odd = helper.make_node("Odd", ["x"], ["y"], domain="nowhere")
    path = save_graph([odd], [("x", ["batch", 2])], [("y", ["batch", 2])])
    onnx.checker.check_model(str(path), full_check=True)  # the checker lets other domains pass
    with pytest.raises(GraphError, match=r"does not load.*nowhere:Odd"):
        check_model_file(path)


def test_the_opset_is_that_of_the_default_domain():
    def importing(*opsets: tuple[str, int]) -> onnx.ModelProto:
        return onnx.ModelProto(opset_import=[helper.make_opsetid(*opset) for opset in opsets])

    assert default_opset(importing(("com.microsoft", 1), ("", 17))) == 17
    assert default_opset(importing(("ai.onnx", 20))) == 20
    with pytest.raises(GraphError, match=r"no ai\.onnx opset"):
        default_opset(importing(("com.microsoft", 1)))


def test_axes_are_sizes_symbols_or_unknown():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, None, 0])
    assert axes(value) == ["batch", 3, "?", 0]


def test_dtypes_have_numpys_names():
    types = (TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8, TensorProto.STRING)
    names = [dtype_name(helper.make_tensor_value_info("x", element, [1])) for element in types]
    assert names == ["float16", "int64", "bool", "uint8", "string"]


def test_parameters_are_the_elements_of_all_weights(save_graph):
    weights = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64), "c": np.zeros((0, 4), np.float32)}
    path = save_graph([relu("x", "y")], [("x", [1])], [("y", [1])], weights)
    assert parameter_count(load_model(path)) == 6 + 1 + 0


def test_a_description_says_what_is_in_the_file(save_graph):
    nodes = [
        relu("x", "hidden"),
        relu("hidden", "again"),
        helper.make_node("Add", ["again", "weight"], ["sum"]),
        helper.make_node("FusedGelu", ["sum"], ["y"], domain="custom"),
        helper.make_node("Cast", ["ids"], ["flags"], to=TensorProto.BOOL),
    ]
    path = save_graph(
        nodes,
        # A weight that is an input as well is nothing that a caller has to give.
        [("x", ["batch", 2]), ("ids", TensorProto.INT64, ["batch", "length"]), ("weight", [2])],
        [("y", ["batch", 2]), ("flags", TensorProto.BOOL, ["batch", "length"])],
        {"weight": np.ones(2, np.float32)},
    )
    assert describe_model(path) == {
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": ["batch", 2]},
            {"name": "ids", "dtype": "int64", "shape": ["batch", "length"]},
        ],
        "outputs": [
            {"name": "y", "dtype": "float32", "shape": ["batch", 2]},
            {"name": "flags", "dtype": "bool", "shape": ["batch", "length"]},
        ],
        "ir_version": 10,
        "opsets": {"ai.onnx": 18, "custom": 1},
        "producer": "",
        "symbols": ["batch", "length"],
        "nodes": 5,
        "operators": {"Relu": 2, "Add": 1, "Cast": 1, "custom.FusedGelu": 1},
        "parameters": 2,
        "size_mb": path.stat().st_size / 1e6,
    }
    assert list(describe_model(path)["operators"]) == ["Relu", "Add", "Cast", "custom.FusedGelu"]


def test_initializers_that_nothing_uses_are_not_written(save_graph, tmp_path):
    inner = helper.make_node("Identity", ["inner"], ["a"])
    used, unused = (onnx.numpy_helper.from_array(np.zeros(2, np.float32), name) for name in ("inner", "inner_unused"))
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("a", 1, [2])], [used, unused])
    nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=capturing("captured"))]
    weights = ("captured", "unused", "passed_on", "default")
    path = save_graph(
        nodes,
        [("flag", TensorProto.BOOL, []), ("default", [2])],
        [("y", [2]), ("passed_on", [2])],
        {name: np.ones(2, np.float32) for name in weights},
    )
    (tmp_path / "out").mkdir()
    graph = load_model(save_model(load_model(path), tmp_path / "out")).graph
    assert [tensor.name for tensor in graph.initializer] == ["captured", "passed_on", "default"]
    assert [value.name for value in graph.input] == ["flag", "default"]
    then = next(attribute.g for attribute in graph.node[0].attribute if attribute.name == "then_branch")
    assert [tensor.name for tensor in then.initializer] == ["inner"]
    check_model_file(tmp_path / "out/model.onnx")


def capturing(name: str) -> onnx.GraphProto:
    """A branch that gives a value of the graph around it."""
    node = helper.make_node("Identity", [name], ["b"])
    return helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("b", 1, [2])])
