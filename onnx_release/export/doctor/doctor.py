"""Find the usual mistakes of a network that is to be exported, each with its line and its fix.

The network runs in eager mode, watched operator by operator. Then a trace of it is compared with it at other sizes and
values. Weights are never copied.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

from onnx_release.core.errors import ExportError
from onnx_release.core.plain_text import count_of, first_few
from onnx_release.core.spec import batch_dimension, check_array, example_sizes
from onnx_release.export.doctor.control_flow import find_fixed_control_flow
from onnx_release.export.doctor.findings import Finding, Patient, failing_run, unexamined
from onnx_release.export.doctor.lines import spec_line, weight_line
from onnx_release.export.doctor.watch import Watch, keeping_state, network_tensors, run_eagerly, storage
from onnx_release.network.network import in_training
from onnx_release.network.shape_cases import Sizes


def examine(patient: Patient, control_flow: bool = True) -> list[Finding]:
    """Find what is wrong with the network, without converting or changing it. Errors come first.

    Without `control_flow` it does not look for what an export fixes, which takes a trace and a capture of the network.
    If a part of the examination itself fails, a warning says which and why.
    """
    network, spec = patient.network, patient.spec
    found = [*training_mode(patient), *fixed_batch(patient)]
    with in_eval_mode(network), torch.random.fork_rng(devices=[]):
        watch = Watch(network, patient.inputs(example_sizes(spec)))
        try:
            found += examine_run(patient, watch, control_flow)
        except Exception as cause:  # a user's network may raise anything
            found.append(unexamined(patient, "the watched run", cause))
        found += shared_weights(patient)
    return sorted(dict.fromkeys(found), key=lambda finding: finding.level)


def refuse_errors(findings: list[Finding]) -> None:
    """Raise one ExportError that lists the errors among the findings, if there are any."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        listed = "\n".join(f"{finding.where}: {finding.what}\n  fix: {finding.fix}" for finding in errors)
        raise ExportError(
            f"the network has {count_of(len(errors), 'error')} to fix before it can be exported:\n{listed}"
        )


def training_mode(patient: Patient) -> list[Finding]:
    """Find modules in training mode."""
    training = in_training(patient.network)
    if not training:
        return []
    return [
        Finding(
            "error",
            f"in training mode: {first_few(training, 3)}. Dropout and batch norm change the answers in it",
            patient.home(),
            "end build() with `return network.eval()`",
        )
    ]


def fixed_batch(patient: Patient) -> list[Finding]:
    """Find a batch of a fixed size."""
    if batch_dimension(patient.spec) != 1:
        return []
    tensor = patient.spec.inputs[0]
    return [
        Finding(
            "warning",
            f"the batch is fixed at {tensor.shape[0]}: the file accepts no other size",
            spec_line(patient.folder, rf"name:\s*['\"]?{tensor.name}\b"),
            "name a dimension, as in `shape: [batch, ...]` with `batch: {min: 1, max: 32, example: 2}` "
            "under dimensions",
        )
    ]


@contextmanager
def in_eval_mode(network: torch.nn.Module) -> Iterator[None]:
    """Put every module in eval mode for the block, and back into its own mode afterwards."""
    modes = {module: module.training for module in network.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def examine_run(patient: Patient, watch: Watch, control_flow: bool) -> list[Finding]:
    """Find the mistakes that show only in a run of the network."""
    network, spec = patient.network, patient.spec
    sizes = example_sizes(spec)
    inputs = patient.inputs(sizes)
    buffers = dict(network.named_buffers())
    replaced = []
    failed: Exception | None = None
    outputs: list[torch.Tensor] = []
    with keeping_state(network, watch):
        try:
            with watch:
                outputs = run_eagerly(network, inputs)
        except Exception as cause:
            failed = cause
        replaced = [name for name, tensor in network.named_buffers() if buffers.get(name, tensor) is not tensor]
    if failed is not None:
        try:
            with keeping_state(network, watch):
                run_eagerly(network, inputs)
        except Exception as cause:
            return [failing_run(patient, sizes, cause), *double_weights(patient, "error")]
        return [unexamined(patient, "the watched run", failed)]
    found = [
        *double_weights(patient, "warning"),
        *double_values(patient, watch),
        *bool_choices(patient, watch),
        *wrong_outputs(patient, watch, sizes, outputs),
        *random_answers(patient, watch),
        *changed_buffers(patient, watch, replaced),
        *unused_weights(patient, watch),
    ]
    del outputs
    if control_flow and not watch.random and not watch.batch_statistics:  # else two runs never agree
        found += find_fixed_control_flow(patient, watch)
    return found


def double_weights(patient: Patient, level: Literal["error", "warning"]) -> list[Finding]:
    """Find float64 parameters and buffers, with one finding for each line."""
    lines: dict[str, list[str]] = {}
    for name, tensor in network_tensors(patient.network):
        if tensor.dtype in (torch.float64, torch.complex128):
            lines.setdefault(weight_line(patient.network, name) or patient.home(), []).append(name)
    return [
        Finding(
            level,
            f"float64 in the network: {first_few(names, 3)}",
            line,
            "make it float32: `.float()`, or `dtype=torch.float32` if it is made from NumPy, whose floats are "
            "float64. ONNX Runtime lacks many operators in float64, and the others are slow",
        )
        for line, names in lines.items()
    ]


def double_values(patient: Patient, watch: Watch) -> list[Finding]:
    """Find operators that compute in float64."""
    return [
        Finding(
            "warning",
            f"{operator} computes in float64 inside forward()",
            line or patient.home(),
            "give `dtype=x.dtype`, or `.to(x.dtype)` for values from NumPy. ONNX Runtime lacks many operators in "
            "float64, and the others are slow",
        )
        for line, operator in watch.doubles.items()
    ]


def double_inputs(inputs: Mapping[str, np.ndarray], where: str) -> list[Finding]:
    """Find float64 inputs of a sample, which NumPy makes by default."""
    return [
        Finding(
            "error",
            f"data.py makes the input {name} in float64",
            where,
            f'end preprocess() with `{{"{name}": array.astype(np.float32)}}`',
        )
        for name, array in inputs.items()
        if np.asarray(array).dtype == np.float64
    ]


def bool_choices(patient: Patient, watch: Watch) -> list[Finding]:
    """Find torch.where between booleans, which only the older exporter keeps as it is."""
    if patient.params.exporter != "torchscript":
        return []
    return [
        Finding(
            "error",
            "torch.where chooses between booleans, and ONNX Runtime has no Where for them",
            line or patient.home(),
            "write it as logic, (c & a) | (~c & b); torch.where(c, True, False) is c itself",
        )
        for line in watch.bool_where
    ]


def wrong_outputs(patient: Patient, watch: Watch, sizes: Sizes, outputs: list[torch.Tensor]) -> list[Finding]:
    """Find outputs of another number, dtype or shape than declared."""
    declared = patient.spec.outputs
    if len(outputs) != len(declared):
        what = f"the network returns {count_of(len(outputs), 'output')}, spec.yaml declares {len(declared)}"
        return [Finding("error", what, patient.home(), "declare every output of the network, in its order")]
    found = []
    bound = dict(sizes)
    for tensor, value in zip(declared, outputs, strict=True):
        dtype = str(value.dtype).removeprefix("torch.")
        problem = check_array(tensor, dtype, tuple(value.shape), bound)
        if problem:
            found.append(
                Finding(
                    "error",
                    f"the network contradicts spec.yaml: {problem}",
                    watch.made.get(value) or patient.home(),
                    f"cast it, `.to(torch.{tensor.dtype})` (torch.where of two Python ints is int64; write 1.0), or "
                    "declare that dtype"
                    if dtype != tensor.dtype
                    else "declare the shape that the network returns",
                )
            )
    return found


def random_answers(patient: Patient, watch: Watch) -> list[Finding]:
    """Find dropout, other random numbers, and batch norms that use the batch's own statistics."""
    drawn = [
        Finding(
            "error",
            "dropout is still active" if source == "dropout" else f"{source} draws random numbers: no two runs agree",
            line or patient.home(),
            "use nn.Dropout, or F.dropout(x, p, training=self.training): its training is True unless given"
            if source == "dropout"
            else "take the random part out of forward(), or make it an input",
        )
        for line, source in watch.random.items()
    ]
    return drawn + [
        Finding(
            "error",
            "batch norm computes mean and variance from the batch: an answer depends on the rest of the batch",
            line or patient.home(),
            "use running statistics: nn.BatchNorm with track_running_stats=True in eval mode, F.batch_norm with "
            "training=False",
        )
        for line in watch.batch_statistics
    ]


def changed_buffers(patient: Patient, watch: Watch, replaced: list[str]) -> list[Finding]:
    """Find buffers and weights that a run changes, which an ONNX file cannot do."""
    names = {storage(tensor): name for name, tensor in network_tensors(patient.network)}
    changed = [
        (names[key], line, key) for key, (_, _, line) in watch.written.items() if line not in watch.batch_statistics
    ]
    for name in replaced:
        key = next(key for key, known in names.items() if known == name)
        changed.append((name, weight_line(patient.network, name, last=True), key))
    return [
        Finding(
            # One that nothing reads does not change an answer.
            "error" if key in watch.read else "warning",
            f"a run changes {name}, but an ONNX file cannot keep the change: each run starts from the exported value",
            line or patient.home(),
            "change it only if self.training, or make it an input and an output",
        )
        for name, line, key in changed
    ]


def unused_weights(patient: Patient, watch: Watch) -> list[Finding]:
    """Find parameters that no operator reads, with one finding for each line."""
    lines: dict[str, list[str]] = {}
    for name, tensor in patient.network.named_parameters():
        if tensor.numel() and storage(tensor) not in watch.read and storage(tensor) not in watch.written:
            lines.setdefault(weight_line(patient.network, name) or patient.home(), []).append(name)
    return [
        Finding(
            "warning",
            f"forward() never uses {first_few(names, 3)}: the ONNX file will not have them",
            line,
            "use them, or remove them; forward() may have left out a layer",
        )
        for line, names in lines.items()
    ]


def shared_weights(patient: Patient) -> list[Finding]:
    """Find parameters in the same memory under several names."""
    groups: dict[tuple[int, int, int], list[str]] = {}
    for name, tensor in patient.network.named_parameters(remove_duplicate=False):
        if tensor.numel():
            groups.setdefault((storage(tensor), int(tensor.storage_offset()), tensor.numel()), []).append(name)
    return [
        Finding(
            "warning",
            f"{' and '.join(names)} are the same weight: the ONNX file has it under one of these names, and "
            "a transposed copy if an operator needs one",
            weight_line(patient.network, names[-1]) or patient.home(),
            "nothing, if they are tied on purpose; else give each its own copy, with `.clone()`",
        )
        for names in groups.values()
        if len(names) > 1
    ]
