"""Export with the default exporter: torch.export captures the network, torch.onnx translates the result.

The two steps are separate calls. In one call, torch.onnx.export would apply its own suggested fixes after a failure,
and silently lose dynamic dimensions. One capture also serves several opsets.
"""

import ast
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from onnx import ModelProto
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, NameFixPass
from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition

from onnx_release.core.errors import ExportError
from onnx_release.core.spec import Spec, symbolic_axes
from onnx_release.export.advice import or_try
from onnx_release.export.decompositions import decompose
from onnx_release.export.exact_rules import match_constants_exactly
from onnx_release.export.fixed_axes import describe_fixed_axes
from onnx_release.graph.graph import to_proto
from onnx_release.graph.source_lines import describe_source, source_entry, source_line


def export_dynamo(
    network: torch.nn.Module, spec: Spec, examples: tuple[torch.Tensor, ...], opset: int, folder: Path
) -> tuple[ModelProto, dict[str, Any]]:
    """Return the ONNX model, for `folder`, and the source of each node by its name. Raises ExportError."""
    with quiet():
        program = capture(network, spec, examples, input_axes(spec))
    return translate(program, spec, opset, folder)


def input_axes(spec: Spec) -> tuple[dict[int, str], ...]:
    """Return the symbolic axes of each input."""
    return tuple(symbolic_axes(tensor) for tensor in spec.inputs)


def translate(
    program: torch.export.ExportedProgram, spec: Spec, opset: int, folder: Path
) -> tuple[ModelProto, dict[str, Any]]:
    """Translate what was captured, which may be done for several opsets. Returns and raises as `export_dynamo`."""
    match_constants_exactly()
    # torch.onnx runs the program again. With gradients, attention with a mask takes another way than when it was
    # captured, its result lies otherwise in memory, and a view of it fails.
    with quiet(), torch.no_grad():
        try:
            onnx_program = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                dynamic_shapes=input_axes(spec),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as cause:
            raise ExportError(describe_untranslated(cause)) from cause
    if onnx_program is None:
        raise ExportError("torch.onnx.export returned nothing")
    model = onnx_program.model
    # An inner value may have the name of an output (an nn.Embedding and an output both called "embedding").
    NameFixPass()(model)
    sources = {node.name or "": node_source(node) for node in model.graph}
    # Stack traces have absolute paths, so the file would differ from folder to folder.
    ClearMetadataAndDocStringPass()(model)
    return to_proto(model, folder), sources


@contextmanager
def quiet() -> Iterator[None]:
    """Hide torch's warnings and dumps of the graph. The result is checked, and exceptions are raised."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "torch.fx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def capture(
    network: torch.nn.Module, spec: Spec, examples: tuple[torch.Tensor, ...], names: tuple[dict[int, str], ...]
) -> torch.export.ExportedProgram:
    """Capture the network with torch.export and every named axis dynamic, by running it or else by its bytecode.

    Raises the ExportError of the first way if both fail, as for an axis that is fixed.
    """
    try:
        return capture_once(network, spec, examples, names, strict=False)
    except ExportError:
        try:
            return capture_once(network, spec, examples, names, strict=True)
        except ExportError:
            pass
        raise


def capture_once(
    network: torch.nn.Module,
    spec: Spec,
    examples: tuple[torch.Tensor, ...],
    names: tuple[dict[int, str], ...],
    strict: bool,
) -> torch.export.ExportedProgram:
    """Capture the network: `strict` reads its bytecode, else torch.export runs it. Raises ExportError.

    Sizes and recurrent layers are treated as torch.onnx.export does when it captures by itself.
    """
    # Dim.DYNAMIC raises if a size is specialised; Dim("batch") may silently become a constant.
    dynamic = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in names)
    try:
        with (
            register_lstm_while_loop_decomposition(),
            register_gru_while_loop_decomposition(),
            torch.fx.experimental._config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
        ):
            program = torch.export.export(
                network,
                examples,
                dynamic_shapes=dynamic,
                strict=strict,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            return decompose(program)
    except Exception as cause:  # the network's code under tracing and torch.export may raise anything
        raise ExportError(describe_uncaptured(cause, network, spec)) from cause


def describe_uncaptured(cause: Exception, network: torch.nn.Module, spec: Spec) -> str:
    """Describe why torch.export failed: the axis that is fixed, or the reason, with the line to blame."""
    place = source_line("".join(traceback.format_exception(cause)))
    where = f" at {place[0]}:{place[1]}" if place else ""
    fixed = describe_fixed_axes(str(cause), where, network, spec)
    if fixed:
        return fixed
    reason = str(cause).strip().partition("\n\n")[0]
    return (
        f"torch.export cannot capture the network{where}: {reason}\n"
        f"Use torch.where or torch.cond for a branch on a value{or_try('torchscript')}"
    )


def describe_untranslated(error: BaseException) -> str:
    """Describe what torch.onnx could not translate: operator, module, source line, and what to try."""
    node = failed_node(error)
    root = list(causes(error))[-1]
    if node is None:
        return f"torch.onnx cannot translate the network: {root}"
    # The last entry is the innermost module.
    module, module_class = list((node.meta.get("nn_module_stack") or {"": ("", "")}).values())[-1]
    if not isinstance(module_class, str):
        module_class = f"{module_class.__module__}.{module_class.__qualname__}"
    place = describe_source(module, module_class, source_line(node.meta.get("stack_trace")))
    return (
        f"the operator {node.target} does not convert to ONNX. Used by {place}.\n"
        f"Try simpler operators or a newer export.opset{or_try('torchscript')}. "
        f"torch says: {root}"
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, the first cause last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def failed_node(error: BaseException) -> torch.fx.Node | None:
    """Return the node that torch.onnx was translating, from a variable in its frames: its errors only have a text."""
    for cause in causes(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            node = frame.f_locals.get("node")
            # A loop over all nodes that is done leaves the last one, which is that of the outputs.
            if isinstance(node, torch.fx.Node) and node.op != "output":
                return node
    return None


def node_source(node: onnx_ir.Node) -> dict[str, Any]:
    """Return the entry of sources.json for a node, from the metadata that torch.onnx leaves on it."""
    metadata = node.metadata_props
    scopes = ast.literal_eval(metadata.get("pkg.torch.onnx.name_scopes", "[]"))
    classes = ast.literal_eval(metadata.get("pkg.torch.onnx.class_hierarchy", "[]"))
    # Both lists end with the innermost module and the operator.
    module, module_class = (scopes[-2], classes[-2]) if len(scopes) > 1 and len(classes) > 1 else ("", "")
    operator = classes[-1] if classes else ""
    return source_entry(module, module_class, operator, source_line(metadata.get("pkg.torch.onnx.stack_trace")))
