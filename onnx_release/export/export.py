"""Export a PyTorch network to ONNX and check the file with the model's spec.

The file must have the opset that was asked for, and every symbolic dimension must be symbolic. Nothing in it depends on
the folder or the machine that it was made on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto

from onnx_release.core.errors import ExportError, GraphError, ReleaseError
from onnx_release.core.files import replacing_folder, write_json
from onnx_release.core.params import Export
from onnx_release.core.paths import SOURCES_FILE
from onnx_release.core.spec import Spec, example_sizes
from onnx_release.export.advice import or_try, without_advice
from onnx_release.export.dynamo import export_dynamo
from onnx_release.export.fixed_axes import check_axes, check_sizes
from onnx_release.export.opsets import newer_operators
from onnx_release.export.torchscript import export_torchscript
from onnx_release.graph.graph import (
    check_model_file,
    default_opset,
    save_model,
)
from onnx_release.network.example_inputs import example_inputs
from onnx_release.network.network import refuse_training

# The opset of an export that does not choose between several: the one that torch.onnx builds.
BUILT = 18


def export_network(network: torch.nn.Module, spec: Spec, params: Export, folder: Path) -> None:
    """Write `folder` with model.onnx and sources.json, which maps each node to its PyTorch module and source line.

    This makes one file, on examples of the declared sizes: with `auto` by the first exporter that works, for opset 18.
    Raises NetworkError in training mode, ExportError if the network does not convert as the spec and the parameters
    ask, and GraphError if the file is invalid.
    """
    refuse_training(network)
    exporters = [params.exporter] if params.exporter != "auto" else ["dynamo", "torchscript"]
    failed: ReleaseError | None = None
    for exporter in exporters:
        try:
            with replacing_folder(folder) as partial:
                make = {"dynamo": export_dynamo, "torchscript": export_torchscript}[exporter]
                opset = BUILT if params.opset == "auto" else params.opset
                model, sources = make(network, spec, example_inputs(spec, example_sizes(spec)), opset, partial)
                check_sizes(write_export(model, sources, spec, exporter, opset, partial), spec)
            return
        except (ExportError, GraphError) as error:
            failed = failed or error
    assert failed is not None
    raise type(failed)(without_advice(str(failed), exporters)) from failed


def write_export(
    model: ModelProto, sources: dict[str, Any], spec: Spec, exporter: str, opset: int, folder: Path
) -> Path:
    """Write what an exporter returned to `folder`, and return the path of the model.

    Raises ExportError if it does not have the opset or the axes, and GraphError if it is invalid.
    """
    # "2.13.0+cpu" on one machine is "2.13.0+cu130" on another.
    model.producer_version = model.producer_version.partition("+")[0]
    check_opset(model, exporter, opset, sources)
    check_axes(model, spec)
    path = save_model(model, folder)
    write_json(folder / SOURCES_FILE, sources)
    check_model_file(path)
    return path


def check_opset(model: ModelProto, exporter: str, opset: int, sources: Mapping[str, Any]) -> None:
    """Raise ExportError, with the operators and lines to blame, if the file does not have the opset asked for."""
    found = default_opset(model)
    if found != opset:
        other = "torchscript" if exporter == "dynamo" else "dynamo"
        raise ExportError(
            f"asked for opset {opset}, the {exporter} exporter returned {found}: it builds 18 and could "
            f"not convert down. Set export.opset to {found}{or_try(other)}"
            + "".join(
                f"\n  {problem}: {line or 'an unknown line'}"
                for problem, line, _ in newer_operators(model, opset, sources)
            )
        )
