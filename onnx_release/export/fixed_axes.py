"""Refuse a network or a file that fixes an axis which its spec declares as symbolic.

Such an axis shows in torch.export's error, in the axes that the file declares, or when the file runs at another size.
"""

import inspect
import re
from pathlib import Path

import onnx
import torch
from onnx import ModelProto

from onnx_release.core.errors import ExportError, GraphError
from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Spec, Tensor, check_array, example_sizes, input_dimensions
from onnx_release.graph.graph import axes
from onnx_release.network.example_inputs import example_inputs
from onnx_release.network.shape_cases import odd_size
from onnx_release.runtime.session import open_session, run_session

# As in "You marked L['x'].size()[0] as dynamic but your code specialized it to be a constant (2)", and in "tracing
# inferred a static shape of 2 for dimension inputs['x'].shape[0]".
SPECIALISED = re.compile(
    r"marked L\['(\w+)'\]\.size\(\)\[(\d+)\] as dynamic but your code specialized it"
    r"|static shape of \d+ for dimension inputs\['(\w+)'\]\.shape\[(\d+)\]"
)


def describe_fixed_axes(message: str, where: str, network: torch.nn.Module, spec: Spec) -> str:
    """Describe the dimensions that torch.export's message calls specialised; empty if there are none.

    The message has the names of forward's parameters. `where` is the line to blame, as in " at network.py:7".
    """
    parameters = list(inspect.signature(network.forward).parameters)
    named = [(first or second, axis or other) for first, axis, second, other in SPECIALISED.findall(message)]
    found = {
        str(spec.inputs[parameters.index(name)].shape[int(axis)])
        for name, axis in named
        if name in parameters[: len(spec.inputs)]
    }
    if not found:
        return ""
    return (
        f"the network fixes the size of {', '.join(sorted(found))}, declared as symbolic in spec.yaml{where}. Look for "
        "loops over a size, int(x.shape[i]) and constants made for one size; or declare the size as a number"
    )


def check_axes(model: ModelProto, spec: Spec) -> None:
    """Compare the file's inputs and outputs with the spec, and give the symbols of the outputs the spec's names.

    Raises ExportError for missing names, for a dimension that is symbolic in the spec and fixed in the file, and for a
    size that differs. A size that the spec fixes and the file leaves open is filled in: validation runs every shape
    case and so checks it. The shapes are inferred anew if that of an output may be wrong.
    """
    renew_shapes(model, spec)
    for kind, declared, values in (
        ("input", spec.inputs, model.graph.input),
        ("output", spec.outputs, model.graph.output),
    ):
        found = [value.name for value in values]
        if found != [tensor.name for tensor in declared]:
            raise ExportError(
                f"the file's {kind}s are {found}, spec.yaml declares {[tensor.name for tensor in declared]}: "
                f"declare every {kind} of the network, in its order"
            )
        for tensor, value in zip(declared, values, strict=True):
            check_tensor_axes(tensor, axes(value))
            for axis, proto in zip(tensor.shape, value.type.tensor_type.shape.dim, strict=True):
                if isinstance(axis, str):
                    proto.dim_param = axis
                else:
                    proto.dim_value = axis


def renew_shapes(model: ModelProto, spec: Spec) -> None:
    """Infer all shapes anew, in place, if an output has a number where the spec has a symbol.

    An exporter may note the size of the example, as it does behind an LSTM, where the graph computes the right one.
    Sizes that inference does not know become those of the spec, which a run of the file then checks.
    """
    declared = {tensor.name: tensor for tensor in spec.outputs}
    doubtful = [
        value
        for value in model.graph.output
        if value.name in declared and has_fixed_symbol(declared[value.name], axes(value))
    ]
    if not doubtful:
        return
    del model.graph.value_info[:]
    for value in doubtful:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model).graph  # weights over 2 GB are in another file by now
    model.graph.value_info.extend(inferred.value_info)
    known = {value.name: value.type.tensor_type for value in inferred.output}
    for value in doubtful:
        if known[value.name].HasField("shape"):
            value.type.tensor_type.CopyFrom(known[value.name])
        else:
            for _ in declared[value.name].shape:
                value.type.tensor_type.shape.dim.add()


def has_fixed_symbol(tensor: Tensor, found: list[int | str]) -> bool:
    """Return whether the file has a number for an axis that the spec declares as symbolic."""
    pairs = zip(tensor.shape, found, strict=False)
    return any(isinstance(axis, str) and isinstance(size, int) for axis, size in pairs)


def check_tensor_axes(tensor: Tensor, found: list[int | str]) -> None:
    """Raise ExportError if the axes in the file are not those that the spec declares."""
    if len(found) != len(tensor.shape):
        raise ExportError(
            f"{tensor.name} has {count_of(len(found), 'axis')} in the file, spec.yaml declares {tensor.shape}"
        )
    for position, (axis, size) in enumerate(zip(tensor.shape, found, strict=True)):
        if isinstance(axis, str) and isinstance(size, int):
            raise ExportError(
                f"the dimension {axis} (axis {position} of {tensor.name}) is fixed at {size} in the file: the network "
                "uses it as a Python number. Look for int(), reshape or branches on x.shape, and use x.shape itself"
            )
        if isinstance(axis, int) and isinstance(size, int) and axis != size:
            raise ExportError(f"axis {position} of {tensor.name} is {size} in the file, spec.yaml declares {axis}")


def check_sizes(path: Path, spec: Spec) -> None:
    """Run the file with one dimension after the other at another size than the example.

    A trace can leave a size in the graph as a constant although the axes around it are symbolic. Raises ExportError,
    with the name of the dimension, if the run fails or an output's shape is not the declared one.
    """
    session = open_session(path)
    for name, bounds in input_dimensions(spec).items():
        others = [size for size in (odd_size(bounds), bounds.smallest, bounds.largest) if size != bounds.example]
        if not others:
            continue  # there is only one size
        sizes = {**example_sizes(spec), name: others[0]}
        inputs = {
            tensor.name: value.numpy() for tensor, value in zip(spec.inputs, example_inputs(spec, sizes), strict=True)
        }
        try:
            outputs = run_session(session, inputs)
        except GraphError as cause:
            raise ExportError(f"the dimension {name} is symbolic only in name: {cause}") from cause
        bound = dict(sizes)  # check_array adds the derived sizes
        for tensor in spec.outputs:
            problem = check_array(tensor, str(outputs[tensor.name].dtype), outputs[tensor.name].shape, bound)
            if problem:
                raise ExportError(f"the dimension {name} is symbolic only in name: at {name}={sizes[name]} {problem}")
