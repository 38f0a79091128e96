"""`exclude` names nodes, operators and modules."""

import json

import pytest
from onnx import helper, load

from onnx_release.core.errors import SpecError
from onnx_release.graph.excluded import excluded_nodes

MODULES = {"one": "body.attention.query", "two": "body.attention", "three": "body.attentions"}


@pytest.fixture
def case(save_graph, tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="one"), helper.make_node("Erf", ["y"], ["z"], name="two")]
    nodes.append(helper.make_node("Erf", ["z"], ["a"], name="three"))
    sources = tmp_path / "sources.json"
    sources.write_text(json.dumps({name: {"module": module} for name, module in MODULES.items()}))
    return load(save_graph(nodes, [("x", [2])], [("a", [2])])), sources


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("two", {"two"}),
        ("Erf", {"two", "three"}),
        ("body.attention", {"one", "two"}),
        ("body.attention.query", {"one"}),
        ("body", {"one", "two", "three"}),
    ],
)
def test_a_name_is_a_node_an_operator_or_a_module_with_all_within_it(case, name, found):
    assert excluded_nodes([name], *case) == found


def test_a_name_that_is_nothing_is_an_error_with_names_like_it(case):
    with pytest.raises(SpecError, match=r"exclude: body.atention is no node.*names like it: body.attention"):
        excluded_nodes(["Erf", "body.atention"], *case)


def test_without_names_no_file_is_read(case, tmp_path):
    assert excluded_nodes([], case[0], tmp_path / "none.json") == frozenset()
