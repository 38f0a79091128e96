"""Compare the names and shapes of weights with those of a network."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch


def state_problems(state: Mapping[str, Any], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """Describe each weight of `state` that does not fit the network's own, `expected`."""
    # Batch norms count batches since PyTorch 0.4.1, and use the count only in training.
    # A .safetensors file has weights that two layers share under one of their names.
    loaded = {memory_of(tensor) for name, tensor in expected.items() if name in state}
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    problems = misfits(
        [
            name
            for name, tensor in expected.items()
            if name not in state and memory_of(tensor) not in loaded and not name.endswith("num_batches_tracked")
        ],
        [name for name in state if name not in expected],
        [
            (name, tensors[name].shape, tensor.shape)
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    )
    return problems + [
        f"{name} is a {type(value).__name__}, not a tensor"
        for name, value in state.items()
        if name in expected and name not in tensors
    ]


def memory_of(tensor: torch.Tensor) -> tuple[int, torch.Size]:
    """Return the same value for two tensors only if they are the same memory."""
    return tensor.data_ptr(), tensor.shape


def misfits(
    missing: Iterable[str], unknown: Iterable[str], shapes: Iterable[tuple[str, Sequence[int], Sequence[int]]]
) -> list[str]:
    """Describe each weight that does not fit its network; `shapes` has a name, the shape found and the network's."""
    return [
        *(f"missing: {name}" for name in missing),
        *(f"not in the network: {name}" for name in unknown),
        *(f"{name} has the shape {list(found)}, the network's {list(wanted)}" for name, found, wanted in shapes),
    ]
