"""The operators to keep in float32 are found by what ONNX Runtime says, or by halves, with few tries."""

from onnx import TensorProto, helper

from onnx_release.reduce.fp16_passes.attempts import kinds_to_keep
from onnx_release.reduce.fp16_passes.names import name_inner_values

OPERATORS = ["MatMul", "Add", "Relu", "Tanh", "Erf", "Exp", "Log", "Sqrt", "Neg"]


def model_of(operators):
    nodes = [
        helper.make_node(operator, ["x"], [f"y{i}"], name=f"the_{operator}") for i, operator in enumerate(operators)
    ]
    return helper.make_model(helper.make_graph(nodes, "graph", [], []))


def keep(reason, tries, culprits):
    def fails(kinds):
        tries.append(kinds)
        return "" if culprits <= kinds else reason(sorted(culprits - kinds))

    return kinds_to_keep(model_of(OPERATORS), fails)


def test_nothing_is_kept_if_the_graph_runs():
    tries: list[frozenset[str]] = []
    assert keep(None, tries, set()) == (frozenset(), "")
    assert len(tries) == 1


def test_the_operators_that_a_message_names_are_kept_one_after_the_other():
    tries: list[frozenset[str]] = []
    found = keep(lambda left: f"NOT_IMPLEMENTED : {left[0]}(12) node with name 'the_{left[0]}'", tries, {"Erf", "Log"})
    assert found == (frozenset({"Erf", "Log"}), "")
    assert len(tries) == 3


def test_an_operator_of_a_crash_is_found_by_halves():
    tries: list[frozenset[str]] = []
    found = keep(lambda _: "crashed its process (SIGSEGV)", tries, {"Tanh"})
    assert found == (frozenset({"Tanh"}), "")
    assert len(tries) <= 14


def test_what_no_choice_of_operators_mends_is_said_as_it_was_first():
    found = kinds_to_keep(model_of(OPERATORS), lambda kinds: f"bad with {len(kinds)}")
    assert found == (frozenset(), "bad with 0")


def test_an_inner_name_hides_an_outer_one():
    """Equal takes the c of its own graph, and after renaming still does."""

    def inner(nodes, weights):
        return helper.make_graph(
            nodes, "inner", [], [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)], weights
        )

    def constant(value):
        return helper.make_tensor("c", TensorProto.FLOAT, [], [value])

    deepest = inner([helper.make_node("Neg", ["c"], ["z"])], [constant(3)])
    middle = inner([helper.make_node("If", ["b"], ["y"], then_branch=deepest, else_branch=deepest)], [constant(2)])
    graph = helper.make_graph(
        [helper.make_node("If", ["b"], ["x"], then_branch=middle, else_branch=middle)], "g", [], []
    )
    graph.initializer.append(constant(1))
    model = helper.make_model(graph)
    name_inner_values(model)
    found = [item for outer in model.graph.node[0].attribute for item in outer.g.node[0].attribute]
    assert len({item.g.initializer[0].name for item in found}) == 4
    assert all(item.g.node[0].input[0] == item.g.initializer[0].name for item in found)
