"""Export a PyTorch network to ONNX and check the file with the model's spec.

The file must have the opset that was asked for, and every symbolic dimension must be symbolic. Nothing in it depends on
the folder or the machine that it was made on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto

from onnx_release.core.errors import ExportError, GraphError
from onnx_release.core.files import replacing_folder, write_json
from onnx_release.core.params import Export
from onnx_release.core.paths import SOURCES
from onnx_release.core.spec import Spec, Tensor, check_array, concrete_shape, example_sizes
from onnx_release.export.dynamo import export_dynamo
from onnx_release.export.metrics import ExportMetrics
from onnx_release.export.opsets import newer_operators
from onnx_release.export.torchscript import export_torchscript
from onnx_release.graph.graph import (
    axes,
    check_model_file,
    default_opset,
    load_model,
    model_size_mb,
    parameter_count,
    save_model,
)
from onnx_release.network.network import refuse_training
from onnx_release.network.shape_cases import Sizes, odd_size
from onnx_release.runtime.session import open_session, run_session


def export_network(network: torch.nn.Module, spec: Spec, params: Export, folder: Path) -> None:
    """Write `folder` with model.onnx and sources.json, which maps each node to its PyTorch module and source line.

    Raises NetworkError in training mode, ExportError if the network does not convert as the spec and the parameters
    ask, and GraphError if the file is invalid.
    """
    refuse_training(network)
    exporter = {"dynamo": export_dynamo, "torchscript": export_torchscript}[params.exporter]
    with replacing_folder(folder) as partial:
        model, sources = exporter(network, spec, example_inputs(spec, example_sizes(spec)), params.opset, partial)
        # "2.13.0+cpu" on one machine is "2.13.0+cu130" on another.
        model.producer_version = model.producer_version.partition("+")[0]
        check_opset(model, params, sources)
        check_axes(model, spec)
        path = save_model(model, partial)
        write_json(partial / SOURCES.name, sources)
        check_model_file(path)
        check_sizes(path, spec)


def example_inputs(spec: Spec, sizes: Sizes) -> tuple[torch.Tensor, ...]:
    """Make inputs of these sizes: floats from a standard normal distribution, else ones."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for tensor in spec.inputs:
        dtype = getattr(torch, tensor.dtype)
        shape = concrete_shape(tensor, sizes)
        if dtype.is_floating_point:
            examples.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            examples.append(torch.ones(shape, dtype=dtype))
    return tuple(examples)


def check_opset(model: ModelProto, params: Export, sources: Mapping[str, Any]) -> None:
    """Raise ExportError, with the operators and lines to blame, if the file does not have the opset asked for."""
    found = default_opset(model)
    if found != params.opset:
        raise ExportError(
            f"asked for opset {params.opset}, the {params.exporter} exporter returned {found}: it builds 18 and could "
            f"not convert down. Set export.opset to {found}, or try "
            f"export.exporter={params.other_exporter}"
            + "".join(
                f"\n  {problem}: {line or 'an unknown line'}"
                for problem, line, _ in newer_operators(model, params.opset, sources)
            )
        )


def check_axes(model: ModelProto, spec: Spec) -> None:
    """Compare the file's inputs and outputs with the spec, and give the symbols of the outputs the spec's names.

    Raises ExportError for missing names, for a dimension that is symbolic in the spec and fixed in the file, and for a
    size that differs. A size that the spec fixes and the file leaves open is filled in: validation runs every shape
    case and so checks it.
    """
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


def check_tensor_axes(tensor: Tensor, found: list[int | str]) -> None:
    """Raise ExportError if the axes in the file are not those that the spec declares."""
    if len(found) != len(tensor.shape):
        raise ExportError(f"{tensor.name} has {len(found)} axes in the file, spec.yaml declares {tensor.shape}")
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
    for name, bounds in spec.dimensions.items():
        others = [size for size in (odd_size(bounds), bounds.min, bounds.max) if size != bounds.example]
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


def export_metrics(path: Path, params: Export) -> ExportMetrics:
    """Read the metrics of an export from its file."""
    model = load_model(path, weights=False)
    return ExportMetrics(
        opset=default_opset(model),
        exporter=params.exporter,
        nodes=len(model.graph.node),
        parameters=parameter_count(model),
        size_mb=model_size_mb(path),
    )
