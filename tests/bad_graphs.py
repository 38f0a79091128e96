"""Nodes from x to y, float32 [batch, 3], of models that do what no model should."""

from onnx import NodeProto, TensorProto, helper


def endless_for_zeros() -> list[NodeProto]:
    """A loop that ends at once for ones and never for zeros."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    return [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Less", ["largest", "half"], ["small"]),
        helper.make_node("Loop", ["", "small", "x"], ["y"], body=body),
    ]


def insatiable() -> list[NodeProto]:
    """A value of 2**45 times x, which no machine has the memory for."""
    return [
        helper.make_node("Constant", [], ["many"], value=helper.make_tensor("", TensorProto.INT64, [1], [2**45])),
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Concat", ["many", "size"], ["shape"], axis=0),
        helper.make_node("Expand", ["x", "shape"], ["large"]),
        helper.make_node("Constant", [], ["first"], value=helper.make_tensor("", TensorProto.INT64, [1], [0])),
        helper.make_node("ReduceMin", ["large", "first"], ["y"], keepdims=0),
    ]
