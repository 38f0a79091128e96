"""Divide the rows of a request among calls of the model, and put their outputs together again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_release.core.spec import Spec, batch_axis, batch_dimension, largest_batch
from onnx_release.core.types import Arrays
from serving.tensors import aligned

Axes = Mapping[str, int | None]


@dataclass(frozen=True)
class Rows:
    """The axis of the rows, the items of a batch, in each input and output of a model; None in one that has no rows.

    `most` is the most rows of a call. `split` says whether a request's rows may run in several calls, and `shared`
    whether several requests' may run in one. An output without rows allows neither: then each request is one call.
    """

    inputs: Axes
    outputs: Axes
    most: int
    split: bool
    shared: bool

    def count(self, inputs: Arrays) -> int:
        """Return how many rows a request has; 1 where the model has no batch."""
        axes = ((array, self.inputs[name]) for name, array in inputs.items())
        return next((max(array.shape[axis], 1) for array, axis in axes if axis is not None and array.ndim > axis), 1)

    def shape_of_row(self, name: str, array: np.ndarray) -> tuple[int, ...]:
        """Return the shape of an input without its rows."""
        axis = self.inputs[name]
        return array.shape if axis is None else array.shape[:axis] + array.shape[axis + 1 :]

    def divide(self, inputs: Arrays) -> list[Arrays]:
        """Return the inputs of calls with up to `most` rows each: contiguous arrays, views where that is possible."""
        rows, most = self.count(inputs), self.most
        if not self.split or rows <= most:
            return [inputs]
        return [self.rows_of(inputs, self.inputs, start, min(start + most, rows)) for start in range(0, rows, most)]

    def rows_of_outputs(self, outputs: Arrays, start: int, stop: int) -> Arrays:
        return self.rows_of(outputs, self.outputs, start, stop)

    def rows_of(self, arrays: Arrays, axes: Axes, start: int, stop: int) -> Arrays:
        part = {}
        for name, array in arrays.items():
            axis = axes[name]
            part[name] = array if axis is None else aligned(array[(slice(None),) * axis + (slice(start, stop),)])
        return part

    def join_inputs(self, parts: Sequence[Arrays]) -> Arrays:
        return join(parts, self.inputs)

    def join_outputs(self, parts: Sequence[Arrays]) -> Arrays:
        """Return the outputs of all rows. Raises ValueError if a size other than the rows' differs between calls."""
        return join(parts, self.outputs)


def join(parts: Sequence[Arrays], axes: Axes) -> Arrays:
    joined = {}
    for name, array in parts[0].items():
        axis = axes[name]
        joined[name] = array if axis is None else np.concatenate([part[name] for part in parts], axis)
    return joined


def find_rows(spec: Spec, wanted: int) -> Rows:
    """Find the rows of a model by the batch of its spec, which may be on any axis; a call has at most `wanted`."""
    batch = batch_dimension(spec)
    inputs = {tensor.name: batch_axis(tensor, spec) for tensor in spec.inputs}
    outputs = {tensor.name: batch_axis(tensor, spec) for tensor in spec.outputs}
    # A matrix of batch by batch compares the rows with one another.
    once = all(tensor.shape.count(batch) <= 1 for tensor in (*spec.inputs, *spec.outputs)) if batch else False
    split = isinstance(batch, str) and once and None not in outputs.values()
    most = min(largest_batch(spec), wanted) if split else 1
    return Rows(inputs, outputs, most, split, shared=split and None not in inputs.values())
