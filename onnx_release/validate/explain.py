"""Explain a variant's error: how much each step of the graph adds, and how much has accumulated there.

A step is the part between values that both graphs have, such as a Conv with its ReLU6, or an Add. The error that it
adds is the difference between its output in the variant and that of the float step on the variant's inputs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_release.core.files import read_json
from onnx_release.core.paths import ModelFiles
from onnx_release.core.variants import REFERENCES
from onnx_release.core.workers import map_in_order
from onnx_release.data.samples import SampleFile, spread_evenly
from onnx_release.graph.activations import extract_subgraph, float_values, session_of
from onnx_release.graph.graph import DEQUANTIZED, load_model, node_inputs, producers, rename_inputs, tensor_array
from onnx_release.graph.layers import as_matrix, initializers, weighted_layers
from onnx_release.graph.source_lines import file_and_line
from onnx_release.measure.numerics import OutputError, finite_or_none
from onnx_release.runtime.session import run_session

# The only column of the table of a variant that could not be explained; its one row says why.
NOT_EXPLAINED = "not_explained"
# What the names of a step's inputs from the variant begin with, and those of what the float step makes of them.
GIVEN, ALONE = "given/", "alone/"
CHUNK = 4
SAMPLES = 16


@dataclass(frozen=True)
class Step:
    """The nodes that compute one value that both graphs have, from other values that both have."""

    value: str
    inputs: tuple[str, ...]
    nodes: tuple[NodeProto, ...]

    @property
    def name(self) -> str:
        """Return the name of the main node."""
        return str(self.main.name)

    @property
    def main(self) -> NodeProto:
        """Return the first node with weights, or else the last node."""
        weighted = [node for node in self.nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
        return (weighted or list(reversed(self.nodes)))[0]


@dataclass
class StepErrors:
    """The error that a step adds, the error accumulated there, and the extremes of the reference."""

    added: OutputError = field(default_factory=OutputError)
    total: OutputError = field(default_factory=OutputError)
    low: float = math.inf
    high: float = -math.inf

    def add(self, found: np.ndarray, alone: np.ndarray, expected: np.ndarray) -> None:
        """Count one sample: the variant's value, that of the float step on the variant's inputs, the reference's."""
        self.added.add(alone, found)
        self.total.add(expected, found)
        self.low, self.high = min(self.low, expected.min()), max(self.high, expected.max())


def explain_variant(files: ModelFiles, variant: str) -> list[dict[str, Any]]:
    """Explain a variant of the pipeline by its reference, on SAMPLES calibration samples."""
    samples, reference = SampleFile(files.calibration_samples), files.variant(REFERENCES[variant])
    used = spread_evenly(len(samples), SAMPLES)
    return explain_model(files.variant(variant), reference, samples, used, read_json(files.sources))


def explain_model(
    variant: Path, reference: Path, samples: SampleFile, used: Sequence[int], sources: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a row for each step in the order of the graph.

    Columns: `node`, `operators`, and PyTorch's `module` and `source` if known. `added` is the power of the error that
    the step adds, divided by the power of its output; `sqnr_db` is the accumulated SQNR. `low` and `high` are the least
    and the greatest value of the reference. `weight_spread` is the largest magnitude of a row of weights divided by the
    median one, None without weights.
    """
    float_model = load_model(reference, weights=False)
    steps = make_steps(float_model, load_model(variant, weights=False))
    errors = measure_steps(steps, reference, variant, samples, used)
    spreads = weight_spreads(float_model, reference.parent)
    return [
        {
            "node": step.name,
            "operators": "+".join(node.op_type for node in step.nodes),
            "module": sources.get(step.name, {}).get("module", ""),
            "source": file_and_line(sources.get(step.name, {})),
            "added": error_share(error.added),
            "sqnr_db": finite_or_none(error.total.sqnr_db),
            "low": float(error.low),
            "high": float(error.high),
            "weight_spread": spreads.get(step.name),
        }
        for step, error in zip(steps, errors, strict=True)
    ]


def measure_steps(
    steps: Sequence[Step], reference: Path, variant: Path, samples: SampleFile, used: Sequence[int]
) -> list[StepErrors]:
    """Run the reference and the variant on the samples `used`, and count the errors at each step."""
    model = load_model(reference, weights=False)
    whole = non_float_inputs(model)  # both graphs get them as they are
    session, seen = variant_session({name for step in steps for name in (step.value, *step.inputs)} - {*whole}, variant)
    wanted = session_of(with_steps(model, steps), weights=reference.parent)

    def run(index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        feed = samples.batch(index)
        values = run_session(session, feed)
        found = {name: values[real].astype(np.float32) for name, real in seen.items()}
        taken = {GIVEN + name: found[name] for step in steps for name in step.inputs if name in found}
        return found, run_session(wanted, feed | taken)

    errors = [StepErrors() for _ in steps]
    for found, expected in map_in_order(run, used, CHUNK):
        for step, error in zip(steps, errors, strict=True):
            error.add(found[step.value], expected[ALONE + step.value], expected[step.value])
    return errors


def variant_session(names: Iterable[str], path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    """Open a session on the variant that returns these values, and return its own name of each."""
    model = load_model(path, weights=False)
    seen = names_in_variant(model, names)
    return session_of(extract_subgraph(model, sorted(set(seen.values()))), weights=path.parent), seen


def make_steps(reference: ModelProto, variant: ModelProto) -> list[Step]:
    """Divide the reference into steps whose values the variant has too, in float32 or in float16, in its order."""
    made = {name for node in variant.graph.node for name in node.output} | {value.name for value in variant.graph.input}
    values = float_values(reference)
    shared = {name for name in values if name in made} | set(non_float_inputs(reference))
    makers = producers(reference)
    steps = []
    for value in values:
        if value not in shared or value not in makers:
            continue
        nodes, inputs, waiting = [], set(), [value]
        while waiting:
            name = waiting.pop()
            node = makers[name]
            nodes.append(node)
            for taken in node_inputs(node):
                if taken in shared:
                    inputs.add(taken)
                elif taken in makers and makers[taken] not in nodes:
                    waiting.append(taken)
        ordered = [node for node in reference.graph.node if node in nodes]
        steps.append(Step(value, tuple(sorted(inputs)), tuple(ordered)))
    return steps


def non_float_inputs(model: ModelProto) -> dict[str, int]:
    """Return the inputs of the graph that are not float32, such as token ids, with their element types."""
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    constants = initializers(model)
    return {name: kind for name, kind in types.items() if kind != TensorProto.FLOAT and name not in constants}


def with_steps(reference: ModelProto, steps: Sequence[Step]) -> ModelProto:
    """Return the part of the reference that computes all steps, and beside it each step on inputs of its own.

    They are in one graph so that both have the same weights in memory. Those inputs are float32 of any shape; their
    names begin with GIVEN, and those of what the steps then make with ALONE.
    """
    model = extract_subgraph(reference, [step.value for step in steps])
    whole = non_float_inputs(reference)
    given = dict.fromkeys(name for step in steps for name in step.inputs if name not in whole)
    for name in given:
        model.graph.input.append(helper.make_tensor_value_info(GIVEN + name, TensorProto.FLOAT, None))
    for index, step in enumerate(steps):
        inner = {name: f"{ALONE}{index}/{name}" for node in step.nodes for name in node.output if name}
        renamed = inner | {name: GIVEN + name for name in step.inputs if name in given}
        renamed[step.value] = ALONE + step.value
        for node in step.nodes:
            copy = NodeProto()
            copy.CopyFrom(node)
            rename_inputs(copy, renamed)
            copy.name, copy.output[:] = f"{ALONE}{index}/{node.name}", [renamed.get(name, name) for name in node.output]
            model.graph.node.append(copy)
        model.graph.output.append(ValueInfoProto(name=ALONE + step.value))
    return model


def names_in_variant(model: ModelProto, names: Iterable[str]) -> dict[str, str]:
    """Return the variant's name of each value: that of the dequantized one if it is quantized."""
    makers = producers(model)
    return {name: name + DEQUANTIZED if name + DEQUANTIZED in makers else name for name in names}


def error_share(error: OutputError) -> float | None:
    """Return the power of the error divided by that of the signal; None if it is not finite, 0 without any error."""
    if error.noise == 0:
        return 0.0  # a mask of 0 and -inf has no signal either
    return finite_or_none(error.noise / error.signal) if error.signal else None


def weight_spreads(model: ModelProto, folder: Path) -> dict[str, float]:
    """Return the largest magnitude of a row of weights divided by the median one, by the layer's name.

    Weights may be in files of `folder`.
    """
    tensors = initializers(model)
    spreads = {}
    for layer in weighted_layers(model):
        rows = np.abs(as_matrix(layer, tensor_array(tensors[layer.weight], folder))).max(axis=2)
        spreads[layer.name] = float(rows.max() / max(float(np.median(rows)), 1e-12))
    return spreads


def first_beyond(rows: Sequence[Mapping[str, Any]], bound_db: float) -> Mapping[str, Any] | None:
    """Return the first step whose SQNR is below `bound_db`, or whose value is not finite; None without one."""
    for row in rows:
        if row["sqnr_db"] is None and row["added"] != 0:
            return row
        if row["sqnr_db"] is not None and row["sqnr_db"] < bound_db:
            return row
    return None
