"""Limit how much a search computes, in multiply-adds and not in seconds: the same on a fast and a slow machine."""

from collections.abc import Container, Mapping

import numpy as np
from onnx import ModelProto

from onnx_release.data.samples import SampleFile
from onnx_release.graph.activations import extract_subgraph, session_of
from onnx_release.graph.layers import initializers, weighted_layers
from onnx_release.runtime.session import run_session

# Multiply-adds in float32 per second, on two cores of 2020: it turns minutes into multiply-adds.
MACS_PER_SECOND = 50e9
# The cost of a run of one sample, besides its multiply-adds: a fifth of a millisecond.
OVERHEAD = 10e6
# The cost of opening a session, in runs of a sample.
OPENING = 10
# The cost of fitting to a sample, in runs of it. Most of it are the products of its patches.
FITTING = 20


class ComputeLimit:
    """Counts down `minutes` of computing on a model with `macs` multiply-adds in each layer; some are `reserved`."""

    def __init__(self, minutes: float, macs: Mapping[str, float]) -> None:
        self.macs = macs
        self.total = minutes * 60 * MACS_PER_SECOND
        self.reserved = 0.0

    @property
    def left(self) -> float:
        """Return how many multiply-adds are left, without the reserve; below zero if the last step took too many."""
        return self.total - self.reserved

    def run(self, samples: int, layers: Container[str] | None = None) -> None:
        """Count opening a session and running `samples` through `layers`, or through all layers."""
        macs = sum(macs for name, macs in self.macs.items() if layers is None or name in layers)
        self.total -= (macs + OVERHEAD) * (samples + OPENING)

    def fit(self, samples: int) -> None:
        """Count one fit of all weights to `samples`."""
        self.total -= (sum(self.macs.values()) + OVERHEAD) * samples * FITTING


def multiply_adds(model: ModelProto, samples: SampleFile) -> dict[str, float]:
    """Return the multiply-adds of each layer with weights, by name, for the first sample."""
    layers = weighted_layers(model)
    if not layers:
        return {}
    tensors = initializers(model)
    names = [layer.node.output[0] for layer in layers]
    outputs = run_session(session_of(extract_subgraph(model, names)), samples.batch(0))
    macs = {}
    for layer, name in zip(layers, names, strict=True):
        weight = tuple(tensors[layer.weight].dims)
        channels = outputs[name].shape[1 if layer.node.op_type == "Conv" else -1]
        macs[layer.name] = float(np.prod(weight)) * outputs[name].size / channels
    return macs
