"""Make the files that may become the export: one try of an exporter, in a process of its own.

A converter may crash, and a capture that failed spoils what torch patches for the next one.
"""

import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from onnx import ModelProto

from onnx_release.core.array_files import ArrayFile
from onnx_release.core.errors import ExportError, GraphError
from onnx_release.core.params import Runtime
from onnx_release.core.paths import ModelFiles
from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Spec, example_sizes
from onnx_release.export.agreement import Agreement, compare_with_torch
from onnx_release.export.dynamo import capture_once, input_axes, quiet, translate
from onnx_release.export.experts import choose_experts_by_index
from onnx_release.export.export import write_export
from onnx_release.export.first_difference import difference_in
from onnx_release.export.frozen_values import value_reads
from onnx_release.export.torchscript import export_torchscript
from onnx_release.graph.graph import external_files, graphs, load_model
from onnx_release.network.network import refuse_training
from onnx_release.network.operators import unfused_layers
from onnx_release.network.shape_cases import case_name
from onnx_release.runtime.providers import CPU
from onnx_release.runtime.session import create_session, session_options


@dataclass(frozen=True)
class Attempt:
    """One way to export: an exporter, how it captures the network, and the opsets to make files for.

    With `refuse_reads` a network is refused that reads values of its inputs into Python, which a trace fixes.
    """

    exporter: Literal["dynamo", "torchscript"]
    capture: Literal["non-strict", "strict", "trace"]
    opsets: tuple[int, ...]
    refuse_reads: bool = False

    @property
    def name(self) -> str:
        """Return its name in messages."""
        return "torchscript" if self.exporter == "torchscript" else f"dynamo ({self.capture} capture)"


@dataclass(frozen=True)
class Candidate:
    """A file in `folder` that may become the export.

    `nodes` are those once ONNX Runtime has optimised it at level extended, and `other_opsets` says what it has at the
    other opsets. `blamed` says where the first wrong value is made, if the answers are wrong and that was found.
    """

    attempt: Attempt
    opset: int
    nodes: int
    folder: Path
    agreement: Agreement
    other_opsets: str = ""
    blamed: str = ""

    @property
    def level(self) -> int:
        """Return 0 if it validates, 1 if its answers are right but less precise, and 2 if they are wrong."""
        if self.agreement.wrong:
            return 2
        return 0 if self.agreement.validates else 1


def make_candidate(
    build: Callable[[], torch.nn.Module], spec: Spec, attempt: Attempt, files: ModelFiles, folder: Path
) -> Candidate:
    """Build the network, export it to `folder`, and return the file of the opset that is right with the fewest nodes.

    The example inputs are those of the shape case at the example sizes. Raises ExportError or GraphError if no file can
    be made, or if each fails, has other shapes, or gives NaN where PyTorch does not.
    """
    with unfused_layers():
        made, failed = write_files(build, spec, attempt, files, folder)
    counts = {opset: optimized_nodes(path) for opset, path in made.items()}
    found: list[Candidate] = []
    for opset in sorted(counts, key=lambda opset: (counts[opset], opset)):
        agreement = compare_with_torch(made[opset], spec, files)
        if agreement.broken:
            failed.append(ExportError(f"at opset {opset}: {agreement.wrong}"))
            continue
        others = ", ".join(
            f"{count_of(count, 'node')} at opset {other}" for other, count in counts.items() if other != opset
        )
        found.append(Candidate(attempt, opset, counts[opset], made[opset].parent, agreement, others))
        if agreement.validates:
            break
    if not found:
        raise failed[0]
    best = min(found, key=lambda candidate: (candidate.level, candidate.nodes, candidate.opset))
    return replace(best, blamed=blame(build, best, files)) if best.agreement.wrong else best


def blame(build: Callable[[], torch.nn.Module], candidate: Candidate, files: ModelFiles) -> str:
    """Say which module of the network is the first whose nodes give other values; empty if that cannot be found."""
    try:
        found = difference_in(candidate.folder, build, candidate.agreement.key, files)
    except Exception:  # a help only: the network's code and parts of a wrong graph may raise anything
        return ""
    return str(found or "")


def write_files(
    build: Callable[[], torch.nn.Module], spec: Spec, attempt: Attempt, files: ModelFiles, folder: Path
) -> tuple[dict[int, Path], list[Exception]]:
    """Write a file for each opset, and return their paths and the errors. Raises ExportError if there is none."""
    network = build()
    refuse_training(network)
    choose_experts_by_index(network)
    export = exporter_of(network, spec, attempt, files)
    made: dict[int, Path] = {}
    failed: list[Exception] = []
    for opset in attempt.opsets:
        partial = folder / str(opset)
        partial.mkdir(parents=True)
        try:
            model, sources = export(opset, partial)
            made[opset] = write_export(model, sources, spec, attempt.exporter, opset, partial)
        except Exception as error:  # a converter may raise anything
            known = isinstance(error, ExportError | GraphError)
            failed.append(error if known else ExportError(f"{type(error).__name__}: {error}"))
            shutil.rmtree(partial)
    if not made:
        raise failed[0]
    if attempt.refuse_reads:  # after the trace, since a run may leave something in the network
        refuse_value_reads(network, spec, files)
    return made, failed


def exporter_of(
    network: torch.nn.Module, spec: Spec, attempt: Attempt, files: ModelFiles
) -> Callable[[int, Path], tuple[ModelProto, dict[str, Any]]]:
    """Return what exports the network for an opset to a folder. Raises ExportError if it cannot be captured."""
    if attempt.exporter == "dynamo":
        with quiet():
            strict = attempt.capture == "strict"
            program = capture_once(network, spec, examples(spec, files), input_axes(spec), strict)
        return lambda opset, folder: translate(program, spec, opset, folder)
    return lambda opset, folder: export_torchscript(network, spec, examples(spec, files), opset, folder)


def examples(spec: Spec, files: ModelFiles) -> tuple[torch.Tensor, ...]:
    """Return the inputs of the shape case at the example sizes, of which a network may change its own copy."""
    inputs = ArrayFile(files.reference_cases).folder(f"{case_name(example_sizes(spec))}/inputs")
    return tuple(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs)


def refuse_value_reads(network: torch.nn.Module, spec: Spec, files: ModelFiles) -> None:
    """Raise ExportError if the network reads values of its inputs into Python, or if that cannot be found out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lines = value_reads(network, examples(spec, files))
    except Exception as cause:  # the network's code under a mode of torch may raise anything
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ExportError(f"a trace may fix a branch, and its values cannot be followed: {reason}") from cause
    if lines:
        raise ExportError(
            f"a trace fixes the value that {', '.join(lines)} reads from the inputs, and so a branch or a size that "
            "follows from it. Use torch.where or torch.cond; if the value is the same for all inputs, write "
            "`exporter: torchscript` in spec.yaml"
        )


def optimized_nodes(path: Path) -> int:
    """Count the nodes, those of subgraphs too, that ONNX Runtime is left with at level extended.

    What the level `all` adds depends on the CPU. Raises GraphError if ONNX Runtime does not load the model.
    """
    options = session_options(Runtime(provider="cpu", graph_optimization="extended"))
    with tempfile.TemporaryDirectory(dir=path.parent) as made:
        written = Path(made) / "optimized.onnx"
        options.optimized_model_filepath = str(written)
        if external_files(path):
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        create_session(path, options, [CPU])
        return sum(len(graph.node) for graph in graphs(load_model(written, weights=False).graph))
