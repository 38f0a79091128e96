"""Export a PyTorch network to ONNX and check the file with the model's spec.

The file must have the opset that was asked for, and every symbolic dimension must be symbolic. Nothing in it depends on
the folder or the machine that it was made on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto

from onnx_release.core.errors import ExportError
from onnx_release.core.files import replacing_folder, write_json
from onnx_release.core.params import Export
from onnx_release.core.paths import SOURCES_FILE
from onnx_release.core.spec import Spec, example_sizes
from onnx_release.export.dynamo import export_dynamo
from onnx_release.export.example_inputs import example_inputs
from onnx_release.export.fixed_axes import check_axes, check_sizes
from onnx_release.export.metrics import ExportMetrics
from onnx_release.export.opsets import newer_operators
from onnx_release.export.torchscript import export_torchscript
from onnx_release.graph.graph import (
    check_model_file,
    default_opset,
    load_model,
    model_size_mb,
    parameter_count,
    save_model,
)
from onnx_release.network.network import refuse_training


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
        write_json(partial / SOURCES_FILE, sources)
        check_model_file(path)
        check_sizes(path, spec)


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
