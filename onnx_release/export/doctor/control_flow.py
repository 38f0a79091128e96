"""Find control flow that an export fixes: compare the captured network with the network at other sizes and values."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch.jit._fuser import optimized_execution
from torch.jit._trace import TracerWarning

from onnx_release.core.errors import ExportError
from onnx_release.core.spec import batch_dimension, example_sizes, input_dimensions, smallest_sizes, symbolic_axes
from onnx_release.export.doctor.findings import Finding, Patient, failing_run, first_line, place_in, unexamined
from onnx_release.export.doctor.lines import user_file
from onnx_release.export.doctor.watch import OperatorCounter, Watch, keeping_state, run_eagerly
from onnx_release.export.dynamo import capture, quiet
from onnx_release.network.shape_cases import Sizes, case_name, odd_size

# The tolerance between captured and eager, which run the same kernels.
RTOL = 1e-3


@dataclass(frozen=True)
class Expected:
    """The network's answers in eager mode, with the inputs and their sizes."""

    sizes: Sizes
    inputs: tuple[torch.Tensor, ...]
    answers: list[torch.Tensor]


@dataclass(frozen=True)
class Difference:
    """How a captured network differs from eager, in words, for which inputs, and FILE:LINE if torch names it."""

    what: str
    inputs: tuple[torch.Tensor, ...]
    line: str | None = None


def find_fixed_control_flow(patient: Patient, watch: Watch) -> list[Finding]:
    """Find Python control flow and numbers that a trace fixes, by running the trace at other sizes and values."""
    network, spec = patient.network, patient.spec
    example = patient.inputs(example_sizes(spec))
    suspects: dict[str, None] = {}
    untraced: Exception | None = None
    try:
        with keeping_state(network, watch):
            traced = trace(network, example, suspects)
    except Exception as cause:  # not every network can be traced
        untraced = cause
    expected: list[Expected] = []
    for sizes, inputs in other_cases(patient, values=bool(suspects) or untraced is not None):
        try:
            with keeping_state(network, watch):
                expected.append(Expected(sizes, inputs, run_eagerly(network, inputs)))
        except Exception as cause:
            return [failing_run(patient, sizes, cause)]
    if untraced is None:
        differs = first_difference(traced, expected, network, watch)
    elif patient.params.exporter == "torchscript":
        return [unexamined(patient, "control flow", untraced)]
    else:
        differs = Difference("without a trace", expected[0].inputs)
    if differs is not None and patient.params.exporter != "torchscript":  # it may capture what a trace does not
        differs = captured_difference(patient, expected, watch)
    if differs is None:
        return []
    lines = list(suspects) or ([differs.line] if differs.line else other_ways(patient, watch, example, differs.inputs))
    return [fixed_by_export(line, differs) for line in lines or [patient.home()]]


def fixed_by_export(line: str, differs: Difference) -> Finding:
    """Return the finding for a line whose control flow the export fixes."""
    return Finding(
        "error",
        f"the export fixes a branch, a loop or a number that depends on the inputs: {differs.what}",
        line,
        "use tensor operators: torch.where or torch.cond for a branch on values, and x.shape[i] itself instead of "
        "int(), len() or a loop over it",
    )


def other_ways(
    patient: Patient, watch: Watch, first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]
) -> list[str]:
    """Return the lines that call operators more often for one of these inputs than for the other.

    These are in branches and in loops; torch does not warn of a loop over range(x.shape[0]).
    """
    counts = []
    for inputs in (first, second):
        with keeping_state(patient.network, watch), OperatorCounter() as count:
            run_eagerly(patient.network, inputs)
        counts.append(count.lines)
    return [line for line in {**counts[0], **counts[1]} if counts[0][line] != counts[1][line]]


def other_cases(patient: Patient, values: bool) -> list[tuple[Sizes, tuple[torch.Tensor, ...]]]:
    """Return inputs of the smallest sizes and of odd sizes; with `values`, also the example with negated floats.

    Negation changes the signs. torch warns of each use of a value, so without a warning no other values are needed.
    """
    spec = patient.spec
    example = example_sizes(spec)
    least = smallest_sizes(spec)
    odd = {name: odd_size(bounds) for name, bounds in input_dimensions(spec).items()}
    batch = batch_dimension(spec)
    if isinstance(batch, str):  # a large batch only takes time
        nearest = example[batch] + 1 + example[batch] % 2
        odd[batch] = nearest if nearest <= spec.dimensions[batch].max else odd[batch]
    cases = [(sizes, patient.inputs(sizes)) for sizes in (least, odd) if sizes != example]
    if values:
        floats = tuple(-tensor if tensor.is_floating_point() else tensor for tensor in patient.inputs(example))
        cases.append((example, floats))
    return cases


def trace(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...], suspects: dict[str, None]) -> Any:
    """Trace the network with torch.jit.trace. Each line that torch warns of is added to `suspects`."""

    def note(_: Warning | str, category: type[Warning], file: str, number: int, *__: Any) -> None:
        shown = user_file(file)  # not torch's own modules: they raise, or take the same branch
        if issubclass(category, TracerWarning) and shown:
            suspects[f"{shown}:{number}"] = None

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TracerWarning)
        warnings.showwarning = note  # type: ignore[assignment]
        copies = tuple(tensor.clone() for tensor in inputs)  # the network may change its inputs in place
        return torch.jit.trace(network, copies, check_trace=False, strict=False)


def first_difference(other: Any, expected: list[Expected], network: torch.nn.Module, watch: Watch) -> Difference | None:
    """Return the first difference of `other`, made from `network`, from the expected answers and shapes, or None."""
    for case in expected:
        at = f"at {case_name(case.sizes)} the captured network"
        try:
            with keeping_state(network, watch), optimized_execution(False):
                found = run_eagerly(other, case.inputs)
        except Exception as cause:
            reason = (str(cause).strip().splitlines() or [type(cause).__name__])[-1]
            return Difference(f"{at} fails ({reason})", case.inputs)
        for answer, value in zip(case.answers, found, strict=True):
            if answer.shape != value.shape:
                shapes = f"{list(value.shape)}, eager {list(answer.shape)}"
                return Difference(f"{at} returns the shape {shapes}", case.inputs)
            if not close(answer, value):
                return Difference(f"{at} returns other values than eager", case.inputs)
    return None


def close(answer: torch.Tensor, value: torch.Tensor) -> bool:
    """Return whether `value` is `answer` within RTOL of the largest finite element."""
    if answer.dtype != value.dtype or not answer.is_floating_point():
        return torch.equal(answer, value)
    finite = answer[answer.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(answer, value, rtol=RTOL, atol=RTOL * scale, equal_nan=True)


def without_assertions(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Remove what torch asserts of sizes: no ONNX file has it, and it may hold for the captured size alone."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def captured_difference(patient: Patient, expected: list[Expected], watch: Watch) -> Difference | None:
    """Compare what torch.export captures as `first_difference` does; an error of torch.export is a difference too."""
    spec = patient.spec
    names = tuple(symbolic_axes(tensor) for tensor in spec.inputs)
    try:
        with quiet(), keeping_state(patient.network, watch):
            program = capture(patient.network, spec, patient.inputs(example_sizes(spec)), names)
            module = without_assertions(program).module()
    except ExportError as cause:
        return Difference(first_line(cause), expected[0].inputs, place_in(cause))
    return first_difference(module, expected, patient.network, watch)
