"""Convert a network of the zoo with torch.onnx.export alone, as its documentation says, and compare it at all sizes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.zoo_networks.building import build, run, tensors
from benchmarks.zoo_networks.catalogue import NETWORKS
from benchmarks.zoo_networks.declaration import Network
from benchmarks.zoo_networks.sizes import size_cases

# Right is within this share of the output's largest value, with 1e-4 where that is small: float32 on both sides.
SHARE = 1e-3
FLOOR = 1e-4


def convert(name: str, exporter: str, folder: Path) -> str:
    """Return an empty text if the exporter, dynamo or torchscript, converts the network rightly, else what is wrong."""
    declared = NETWORKS[name]
    network = build(name)
    path = folder / f"{exporter}.onnx"
    examples = tuple(
        torch.from_numpy(array)
        for array in declared.draw({key: size.example for key, size in declared.sizes.items()}, 0).values()
    )
    axes = [
        {position: axis for position, axis in enumerate(given.shape) if isinstance(axis, str)}
        for given in declared.inputs.values()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(network, examples, path, exporter, dict(zip(declared.inputs, axes, strict=True)))
    return compare(declared, network, path)


def export(
    network: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    path: Path,
    exporter: str,
    axes: dict[str, dict[int, str]],
) -> None:
    names: dict[str, Any] = {"input_names": list(axes)}
    if exporter == "dynamo":
        torch.onnx.export(network, examples, path, dynamo=True, dynamic_shapes=tuple(axes.values()), **names)
    else:
        torch.onnx.export(network, examples, path, dynamo=False, dynamic_axes=axes, **names)


def compare(declared: Network, network: torch.nn.Module, path: Path) -> str:
    """Return what is wrong with the model in `path` at the first sizes where it is, or an empty text."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}
    for number, sizes in enumerate(size_cases(declared)):
        inputs = declared.draw(sizes, number)
        expected = [tensor.numpy() for tensor in tensors(run(network, inputs))]
        place = ", ".join(f"{name}={size}" for name, size in sizes.items())
        try:
            found = session.run(None, {name: array for name, array in inputs.items() if name in taken})
        except Exception as cause:  # ONNX Runtime has no exception of its own
            return f"ONNX Runtime fails at {place}: {first_line(cause)}"
        if len(found) != len(expected):
            return f"{len(found)} outputs where PyTorch gives {len(expected)}"
        for position, (one, other) in enumerate(zip(found, expected, strict=True)):
            problem = difference(one, other)
            if problem:
                return f"output {position} at {place}: {problem}"
    return ""


def difference(found: np.ndarray, expected: np.ndarray) -> str:
    """Describe how an output differs from PyTorch's, or return an empty text."""
    if found.shape != expected.shape:
        return f"shape {list(found.shape)} where PyTorch gives {list(expected.shape)}"
    if found.dtype == bool or np.issubdtype(found.dtype, np.integer):
        return "" if np.array_equal(found, expected) else "other integers than PyTorch's"
    if not found.size:
        return ""
    error = np.abs(found.astype(np.float64) - expected).max()
    largest = np.abs(expected).max()
    return "" if error <= max(FLOOR, SHARE * largest) else f"off by {error:.2g}, of values up to {largest:.2g}"


def first_line(cause: BaseException) -> str:
    """Return the kind of an error, by its first cause, and the first line of what that says."""
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0][:300] if lines else ''}"
