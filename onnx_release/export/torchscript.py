"""Export with the older exporter, a trace with TorchScript: deprecated, but some networks convert only with it."""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto

from onnx_release.core.errors import ExportError
from onnx_release.core.spec import Spec, symbolic_axes
from onnx_release.export.advice import or_try
from onnx_release.graph.graph import copy_weights, external_tensors, load_model
from onnx_release.graph.source_lines import describe_source, source_entry, source_line
from onnx_release.network.source_network import is_scripted

TRY = f"Try simpler operators or a newer export.opset{or_try('dynamo')}"


def export_torchscript(
    network: torch.nn.Module, spec: Spec, examples: tuple[torch.Tensor, ...], opset: int, folder: Path
) -> tuple[ModelProto, dict[str, Any]]:
    """Return the ONNX model, for `folder`, and the module of each node by the node's name. Raises ExportError."""
    tensors = (*spec.inputs, *spec.outputs)
    # In the folder of the result: over 2 GB torch writes a file for each weight, and /tmp may be in memory.
    with tempfile.TemporaryDirectory(dir=folder) as made, warnings.catch_warnings(), without_graph():
        warnings.simplefilter("ignore")  # about the deprecation, and about traced values, which validation checks
        path = Path(made) / "model.onnx"
        try:
            torch.onnx.export(
                # Its exporter takes a compiled network alone only, without what gives its outputs their order.
                torch.jit.trace(network, examples, check_trace=False) if is_scripted(network) else network,
                examples,
                str(path),  # a string, since over 2 GB torch takes a Path for an open file
                dynamo=False,
                opset_version=opset,
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                dynamic_axes={tensor.name: symbolic_axes(tensor) for tensor in tensors},
            )
        except torch.onnx.errors.UnsupportedOperatorError as cause:
            raise ExportError(describe_unsupported(network, examples, str(cause))) from cause
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as cause:
            raise ExportError(f"the TorchScript exporter fails: {first_line(cause)}\n{TRY}") from cause
        model = load_model(path, weights=False)
        if external_tensors(model):
            copy_weights(model, path.parent, folder)
    sources = {node.name: source_entry(scope_module(node.name), "", "", None) for node in model.graph.node}
    for node in model.graph.node:
        node.ClearField("doc_string")
    return model, sources


@contextmanager
def without_graph() -> Iterator[None]:
    """Hide what C++ writes to standard output: torch prints the whole graph of a conversion that fails."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def first_line(cause: Exception) -> str:
    """Return the first line of what torch says, without the value to blame: its stack in C++, some pages, follows."""
    return (str(cause).strip() or type(cause).__name__).splitlines()[0].partition("[Caused by")[0].strip()


def scope_module(node_name: str) -> str:
    """Return the module in a node's name: /block/layers/layers.0/Conv comes from block.layers.0.

    Each part is below the one before it, and that in a container has the container's name in front.
    """
    module, above = "", ""
    for scope in node_name.strip("/").split("/")[:-1]:
        inside = scope.removeprefix(f"{above}.") if above else scope
        module, above = f"{module}.{inside}" if module else inside, scope
    return module


def describe_unsupported(network: torch.nn.Module, examples: tuple[torch.Tensor, ...], message: str) -> str:
    """Find the operator that the exporter's message names in a fresh trace, with the module and line that used it."""
    traced = torch.jit.trace(network, examples, check_trace=False).inlined_graph
    for node in traced.nodes():
        if f"'{node.kind()}'" in message:
            # In a scope such as "__module.features/__module.features.0" the last part is the innermost module.
            scope = node.scopeName().rpartition("/")[2].removeprefix("__module").removeprefix(".")
            module = dict(network.named_modules()).get(scope, network)
            place = describe_source(scope, type(module).__qualname__, trace_line(node.sourceRange()))
            return (
                f"the operator {node.kind()} does not convert to ONNX. Used by {place}.\n{TRY}. torch says: {message}"
            )
    return f"the network does not convert to ONNX. {TRY}. torch says: {message}"


def trace_line(source_range: str) -> tuple[str, int] | None:
    """Return the place in a TorchScript source range, with lines such as "/a/file.py(12): forward", innermost first."""
    for line in source_range.splitlines():
        file, found, rest = line.partition("(")
        number = rest.partition(")")[0]
        if found and number.isdigit():
            place = source_line(f'File "{file.strip()}", line {number}')
            if place:
                return place
    return None
