"""Fill the axes of length 0 in a network's example inputs, as those of an empty cache, so that their size is seen."""

import itertools
from collections.abc import Iterator, Mapping

import torch

from onnx_release.core.errors import NetworkError
from onnx_release.core.plain_text import first_few
from onnx_release.network.trial import Axis, Trial

# The least size that they are tried at; the least of a spec's example is 2.
FILLED = 4


def empty_axes(tensors: Mapping[str, torch.Tensor]) -> list[Axis]:
    """Return the axes of length 0."""
    return [(name, axis) for name, tensor in tensors.items() for axis, size in enumerate(tensor.shape) if not size]


def with_filled_axes(trial: Trial) -> Trial:
    """Return the trial with all axes of length 0 at a size that no other axis has, and that the network takes.

    A mask may have to grow with them. Raises NetworkError if the network fails at every such size.
    """
    empty = empty_axes(trial.inputs)
    if not empty:
        return trial
    known = {size for tensor in trial.inputs.values() for size in tensor.shape}
    size = next(size for size in itertools.count(FILLED) if size not in known)
    for sizes in choices(trial.inputs, empty, size):
        tensors = {name: filled(tensor, name, sizes) for name, tensor in trial.inputs.items()}
        found = trial.run(tensors)
        if found is not None and found.keys() == trial.outputs.keys():
            return Trial(trial.network, trial.arguments.replaced(tensors))
    shapes = first_few(
        [f"{name} {list(trial.inputs[name].shape)}" for name in dict.fromkeys(name for name, _ in empty)]
    )
    raise NetworkError(
        f"an axis has the length 0 in the example of {shapes}, and the network fails with {size} there: "
        f"{trial.failure or 'it returns other outputs'}\nGive an example without such an axis; the smallest size in "
        "spec.yaml may be 0"
    )


def choices(tensors: Mapping[str, torch.Tensor], empty: list[Axis], size: int) -> Iterator[dict[Axis, int]]:
    """Yield the sizes of the empty axes, at first alone, then with each axis of a mask longer by as much."""
    filled = dict.fromkeys(empty, size)
    yield filled
    masks = [name for name in tensors if "mask" in name]
    for axis in (-1, 1, -2):
        yield filled | {
            (name, axis % tensors[name].ndim): tensors[name].shape[axis] + size
            for name in masks
            if -tensors[name].ndim <= axis < tensors[name].ndim
        }


def filled(tensor: torch.Tensor, name: str, sizes: Mapping[Axis, int]) -> torch.Tensor:
    """Return a tensor at these sizes: its own values repeated, or for an empty one normal numbers, True or 0."""
    shape = [sizes.get((name, axis), size) for axis, size in enumerate(tensor.shape)]
    if tensor.numel():
        for axis, size in enumerate(shape):
            tensor = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
        return tensor
    if tensor.is_floating_point():
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(tensor.dtype)
    return torch.full(shape, tensor.dtype is torch.bool, dtype=tensor.dtype)
