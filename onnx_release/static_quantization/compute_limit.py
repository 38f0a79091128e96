"""Limit how much a search computes, in multiply-adds and not in seconds: the same on a fast and a slow machine."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto

from onnx_release.data.samples import SampleFile
from onnx_release.graph.activations import extract_subgraph, session_of
from onnx_release.graph.layers import initializers
from onnx_release.runtime.session import run_session
from onnx_release.static_quantization.operators import ACTIVATIONS

# Multiply-adds in float32 per second, on two cores of 2020: it turns minutes into multiply-adds.
MACS_PER_SECOND = 50e9
# The cost of a run of one sample, besides its multiply-adds: a fifth of a millisecond.
OVERHEAD = 10e6
# The cost of opening a session, in runs of a sample, and that of inserting and opening each node: half a millisecond.
OPENING = 10
NODE_OPENING = 25e6


@dataclass(frozen=True)
class Work:
    """The multiply-adds of each node for one sample, by name, and the elements of each value.

    An operator without a product counts one for each element of its output.
    """

    macs: Mapping[str, float]
    sizes: Mapping[str, int]


class ComputeLimit:
    """Counts down `minutes` of computing on a model with `macs` multiply-adds in each node; some are `reserved`."""

    def __init__(self, minutes: float, macs: Mapping[str, float]) -> None:
        self.macs = macs
        self.total = minutes * 60 * MACS_PER_SECOND
        self.reserved = 0.0

    @property
    def left(self) -> float:
        """Return how many multiply-adds are left, without the reserve; below zero if the last step took too many."""
        return self.total - self.reserved

    def run(self, samples: int, nodes: Container[str] | None = None) -> None:
        """Count opening a session and running `samples` through `nodes`, or through all nodes."""
        counted = [macs for name, macs in self.macs.items() if nodes is None or name in nodes]
        self.total -= (sum(counted) + OVERHEAD) * (samples + OPENING) + NODE_OPENING * len(counted)

    def fit(self, samples: int, layers: float) -> None:
        """Count one fit of all weights to `samples`, with `layers` multiply-adds besides running both graphs."""
        self.run(samples)
        self.run(samples)
        self.total -= layers


def measure_work(model: ModelProto, names: Iterable[str], samples: SampleFile, weights: Path | None = None) -> Work:
    """Return the work of the nodes that make the values `names`, for the first sample.

    `weights` is the folder of the files that have weights of `model`.
    """
    made = {name for node in model.graph.node for name in node.output}
    feed, tensors = samples.batch(0), initializers(model)
    shapes = {name: array.shape for name, array in feed.items()}
    part = extract_subgraph(model, [name for name in names if name in made])
    found = run_session(session_of(part, weights=weights), feed)
    shapes |= {name: array.shape for name, array in found.items()}
    for node in reversed(model.graph.node):
        if node.op_type in ACTIVATIONS and node.output[0] in shapes:
            shapes.setdefault(node.input[0], shapes[node.output[0]])  # has no range, and so no name in `names`
    shapes |= {name: tuple(tensor.dims) for name, tensor in tensors.items()}
    macs = {
        node.name: sum(node_macs(node, shapes, name) for name in node.output if name in shapes)
        for node in model.graph.node
        if any(name in shapes for name in node.output)
    }
    return Work(macs, {name: int(np.prod(shape)) for name, shape in shapes.items() if name not in tensors})


def node_macs(node: NodeProto, shapes: Mapping[str, tuple[int, ...]], output: str) -> float:
    """Return the multiply-adds with which a node makes `output`."""
    size = float(np.prod(shapes[output]))
    if node.op_type == "Conv" and node.input[1] in shapes:
        return size * float(np.prod(shapes[node.input[1]][1:]))
    if node.op_type == "Gemm" and node.input[1] in shapes:
        return size * float(np.prod(shapes[node.input[1]])) / shapes[output][-1]
    if node.op_type == "MatMul" and node.input[0] in shapes:
        return size * shapes[node.input[0]][-1]
    return size
