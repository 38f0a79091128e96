"""Compute the memory that docs/serving.md promises for a worker of the server ("Memory", in "Tune it")."""

import math
from collections.abc import Sequence

import numpy as np

from onnx_release.core.hardware import available_cores
from onnx_release.core.spec import Spec, Tensor, batch_dimension, concrete_shape, largest_batch
from serving.decoders import PLACES, decode_memory
from serving.settings import Settings

BASE_BYTES = 400_000_000  # Python, the libraries, the processes and the model: docs/serving.md
CONNECTION_BYTES = 500_000  # what a connection may hold besides what counts towards `buffered_bytes`
JSON_GROWTH = 6  # bytes of JSON for a byte of an output, at most: "false,"


def memory_bound(settings: Settings, spec: Spec) -> int:
    """Return the bytes; all sizes of the outputs must be among the dimensions of the spec."""
    threads = settings.threads or available_cores()
    inputs, outputs = row_bytes(spec, spec.inputs), row_bytes(spec, spec.outputs)
    answer = JSON_GROWTH * outputs * min(largest_batch(spec), settings.queue)
    each_thread = decode_memory(settings) + settings.upload_bytes + PLACES * inputs + 2 * answer
    queued = settings.queue * 2 * (inputs + outputs)
    connected = settings.connections * CONNECTION_BYTES
    return BASE_BYTES + 2 * settings.buffered_bytes + threads * each_thread + queued + connected


def row_bytes(spec: Spec, tensors: Sequence[Tensor]) -> int:
    """Return the bytes of these tensors for one item, at the largest sizes that the spec declares."""
    batch = batch_dimension(spec)
    sizes = {name: 1 if name == batch else bounds.largest for name, bounds in spec.dimensions.items()}
    return sum(math.prod(concrete_shape(tensor, sizes)) * np.dtype(tensor.dtype).itemsize for tensor in tensors)
