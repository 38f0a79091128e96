"""Find the first module of a network whose exported nodes give other values than PyTorch, and its source line."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto

from onnx_release.core.array_files import ArrayFile
from onnx_release.core.files import read_json
from onnx_release.core.paths import MODEL_FILE, SOURCES_FILE, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.samples import SampleFile
from onnx_release.export.agreement import compare_with_torch, inputs_of
from onnx_release.graph.activations import extract_subgraph, session_of
from onnx_release.graph.graph import load_model
from onnx_release.graph.source_lines import file_and_line
from onnx_release.measure.numerics import is_wrong, largest_error
from onnx_release.network.network import network_as_built
from onnx_release.network.operators import unfused_layers
from onnx_release.network.outputs import array_of, flatten
from onnx_release.runtime.session import run_session


@dataclass(frozen=True)
class Difference:
    """A module's path and class, FILE:LINE or nothing, the node and operator to blame, and the largest error there."""

    module: str
    kind: str
    line: str
    node: str
    operator: str
    error: float

    def __str__(self) -> str:
        where = f" at {self.line}" if self.line else ""
        return (
            f"the first module that differs is {self.module or 'the network itself'} ({self.kind}){where}: the node "
            f"{self.node} ({self.operator}) is off by {self.error:.3g}"
        )


def explain_export(files: ModelFiles) -> str:
    """Say how the answers of the export differ from PyTorch's, and which module is the first that differs.

    Every evaluation sample and shape case is compared, as the validation does. Raises NetworkError if the network
    cannot be built.
    """
    path, spec = files.variant("export"), load_spec(files.model)
    agreement = compare_with_torch(path, spec, files, most_samples=None)
    if not agreement.wrong:
        less = f", but beyond the tolerance: {agreement.difference}" if agreement.difference else ""
        return f"the answers of the export are PyTorch's, up to rounding{less}"
    build = functools.partial(network_as_built, files.model, files.raw)
    found = difference_in(path.parent, build, agreement.key, files)
    return f"{agreement.wrong}; {found or 'no module that has a node with its result differs'}"


def difference_in(folder: Path, build: Callable[[], torch.nn.Module], key: str, files: ModelFiles) -> Difference | None:
    """Compare the network with the export in `folder` by `first_difference`, on the sample or shape case `key`."""
    inputs = inputs_of(key, ArrayFile(files.reference_cases), SampleFile(files.evaluation_samples))
    with unfused_layers():
        return first_difference(build(), load_model(folder / MODEL_FILE), read_json(folder / SOURCES_FILE), inputs)


def first_difference(
    network: torch.nn.Module,
    model: ModelProto,
    sources: Mapping[str, Mapping[str, Any]],
    inputs: Mapping[str, np.ndarray],
) -> Difference | None:
    """Run the network and its export on `inputs`, and return the first module whose result no node of it has.

    `network` takes the inputs by position, in the order of `inputs`, and `sources` is the content of sources.json.
    A module that runs more than once, or that has no node with a result of its shape, is not compared. One that another
    was folded into, as a batch norm into a convolution, is not to blame if its node has the other's result. Return None
    if none differs by more than `is_wrong` allows.
    """
    wanted = module_results(network, [torch.from_numpy(array.copy()) for array in inputs.values()])
    nodes = {
        module: [node for node in model.graph.node if is_inside(sources.get(node.name, {}).get("module", ""), module)]
        for module, _, _ in wanted
    }
    names = dict.fromkeys(node.output[0] for found in nodes.values() for node in found if node.output[0])
    if not names:
        return None
    values = run_session(session_of(extract_subgraph(model, names)), dict(inputs))
    results = [result for _, _, result in wanted]
    for module, kind, result in wanted:
        same = [node for node in nodes[module] if values[node.output[0]].shape == result.shape]
        found = [values[node.output[0]] for node in same]
        if not same or has_any(found, [result]):
            continue
        if not has_any(found, results):  # most modules have their own result, so that few are compared with all
            blamed = same[-1]
            line = file_and_line(sources.get(blamed.name, {}))
            error = error_beyond(result, values[blamed.output[0]])
            return Difference(module, kind, line, blamed.name, blamed.op_type, error)
    return None


def has_any(found: list[np.ndarray], results: list[np.ndarray]) -> bool:
    """Return whether one of the values of the file is the result of a module."""
    return any(error_beyond(result, value) == 0 for value in found for result in results)


def error_beyond(wanted: np.ndarray, found: np.ndarray) -> float:
    """Return the largest error, 0 if it is no more than `is_wrong` allows, and NaN for another shape."""
    if wanted.shape != found.shape:
        return math.nan
    known = ~np.isnan(wanted)
    error = largest_error(wanted[known], found[known])
    largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    return error if is_wrong(error, 0.0, largest) else 0.0


def is_inside(found: str, module: str) -> bool:
    """Return whether the module `found` is `module` or a part of it."""
    return found == module or not module or found.startswith(f"{module}.")


def module_results(network: torch.nn.Module, inputs: list[torch.Tensor]) -> list[tuple[str, str, np.ndarray]]:
    """Run the network; return path, class and first floating-point result of each module that runs once, in order."""
    results: list[tuple[str, str, np.ndarray]] = []

    def keep(name: str) -> Callable[[torch.nn.Module, Any, Any], None]:
        def hook(module: torch.nn.Module, _inputs: Any, result: Any) -> None:
            for _, tensor in flatten(result, fields=True):
                if tensor.is_floating_point():
                    results.append((name, type(module).__name__, array_of(tensor.float()).copy()))
                    return

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules()]
    try:
        with torch.inference_mode():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, _, _ in results]
    return [result for result in results if names.count(result[0]) == 1]
