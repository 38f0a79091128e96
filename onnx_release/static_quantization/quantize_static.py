"""Quantize a calibrated model to static INT8 for a target, within the budget, and count the nodes on integers."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

from onnx import ModelProto
from threadpoolctl import threadpool_limits

from onnx_release.core.errors import GraphError
from onnx_release.core.files import read_json, replacing_folder
from onnx_release.core.plain_text import first_few
from onnx_release.graph.graph import load_model, load_weights, model_size_mb, save_checked
from onnx_release.graph.layers import initializers
from onnx_release.graph.precision import check_not_quantized
from onnx_release.graph.targets import Target
from onnx_release.static_quantization.fusion import count_fused
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.static_quantization.operators import PRODUCTS
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import Attempt, Goal, SearchResult, search


def quantize_statically(
    source: Path, ranges: Path, target: Target, scorer: Scorer, goal: Goal, folder: Path
) -> QuantizeStaticMetrics:
    """Write the best quantized form of `source` to `folder`, and return the metrics.

    `source` is the equalized float model and `ranges` the file with the ranges of its activations, both from
    calibration. The metrics say whether the budget was met on calibration samples; only validation decides whether the
    variant keeps it. Nothing is written before the end of the search, so an interrupted one starts anew. Raises
    GraphError if `source` is already quantized, or if no node of the best graph computes on integers.
    """
    model = load_model(source, weights=False)
    check_not_quantized(model, source)
    found = read_json(ranges)
    limits = {name: (low, high) for name, (low, high) in found["ranges"].items()}
    goal = replace(goal, narrowest=found["narrowest"])
    # Sums of products are then the same on any number of cores.
    with threadpool_limits(limits=1):
        result = search(model, limits, target, scorer, goal, source.parent)
    check_some_on_integers(result.best, goal)
    load_weights(result.best.model, source.parent)  # those of float layers
    with replacing_folder(folder) as partial:
        path = save_checked(result.best.model, partial)
        metrics = static_metrics(model, target, result, path)
    if not metrics.budget_met:
        print(
            f"no graph within the budget was found on calibration samples; the best one: {metrics.budget_failure}",
            file=sys.stderr,
        )
    return metrics


def check_some_on_integers(best: Attempt, goal: Goal) -> None:
    """Raise GraphError if the graph has no quantized value: it would be the float model under another name."""
    if any(node.op_type == "DequantizeLinear" for node in best.model.graph.node):
        return
    fix = "leave int8_static out of `variants` in the model's spec.yaml"
    if best.float_nodes:
        kept = first_few(sorted(best.float_nodes))
        reason, fix = f"to come near the budget, the search keeps {kept} in float", f"{fix}, or give a looser `budget`"
    elif goal.excluded:
        reason, fix = "`exclude` keeps what could in float, or nothing could", f"{fix}, or exclude less"
    else:
        reason = "it has no operator with an integer kernel, or none whose values have a finite range"
    raise GraphError(f"no node of the network would compute on integers: {reason}. fix: {fix}")


def static_metrics(model: ModelProto, target: Target, result: SearchResult, path: Path) -> QuantizeStaticMetrics:
    """Describe the result of the search: `model` is the float model, `path` the file of the best graph."""
    best, constants = result.best, initializers(model)
    kept = [node for node in model.graph.node if node.name in best.float_nodes]
    layers = [node.name for node in kept if node.op_type in PRODUCTS and node.input[1] in constants]
    return QuantizeStaticMetrics(
        size_mb=model_size_mb(path),
        target=target.name,
        weight_type="int8",
        activation_type=target.activation_type,
        reduce_range=target.reduce_range,
        budget_met=not best.failures,
        budget_failure="; ".join(best.failures),
        float_layers=", ".join(layers),
        float_operators=", ".join(dict.fromkeys(node.op_type for node in kept if node.name not in layers)),
        plain_layers=", ".join(node.name for node in model.graph.node if node.name in result.plain),
        fitted_graphs=result.fitted,
        refined_ranges=result.refined_ranges,
        calibration_sqnr_db=best.closeness.sqnr_db,
        calibration_agreement=best.closeness.agreement,
        **asdict(count_fused(path)),
    )
