"""How much a search may compute, in multiply-adds rather than seconds: the same on a fast and on a slow day."""

from collections.abc import Container, Mapping

import numpy as np
from onnx import ModelProto

from onnx_release.data.samples import SampleFile, with_batch_axis
from onnx_release.graph.activations import extract_subgraph, session_of
from onnx_release.graph.layers import initializers, weighted_layers
from onnx_release.runtime.session import run_session

# Multiply-adds a second of float32, on two cores of 2020: what turns minutes into multiply-adds.
MACS_PER_SECOND = 50e9
# What running a sample costs beside its multiply-adds: a fifth of a millisecond.
OVERHEAD = 10e6
# What opening a session costs, in samples that it could run.
OPENING = 10
# What fitting to a sample costs, in runs of it: most of it is the products of its patches.
FITTING = 20


class ComputeLimit:
    """`minutes` of computing on a model with `macs` multiply-adds in each layer; how much is left, and `held` back."""

    def __init__(self, minutes: float, macs: Mapping[str, float]) -> None:
        self.macs = macs
        self.total = minutes * 60 * MACS_PER_SECOND
        self.held = 0.0

    @property
    def left(self) -> float:
        """Return what may be done now, in multiply-adds; below zero once the last step took more."""
        return self.total - self.held

    def run(self, samples: int, layers: Container[str] | None = None) -> None:
        """Count a session that is opened and runs `samples`, through the layers named or through all."""
        macs = sum(macs for name, macs in self.macs.items() if layers is None or name in layers)
        self.total -= (macs + OVERHEAD) * (samples + OPENING)

    def fit(self, samples: int) -> None:
        """Count one fit of all weights to `samples`."""
        self.total -= (sum(self.macs.values()) + OVERHEAD) * samples * FITTING


def multiply_adds(model: ModelProto, samples: SampleFile) -> dict[str, float]:
    """Of each layer with weights, by name, for the first sample."""
    layers = weighted_layers(model)
    if not layers:
        return {}
    tensors = initializers(model)
    names = [layer.node.output[0] for layer in layers]
    outputs = run_session(session_of(extract_subgraph(model, names)), with_batch_axis(samples.inputs(0)))
    macs = {}
    for layer, name in zip(layers, names, strict=True):
        weight = tuple(tensors[layer.weight].dims)
        channels = outputs[name].shape[1 if layer.node.op_type == "Conv" else -1]
        macs[layer.name] = float(np.prod(weight)) * outputs[name].size / channels
    return macs
