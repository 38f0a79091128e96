"""Find out whether the items of a batch are independent of each other, by changing some of them."""

from collections.abc import Iterable, Mapping, Sequence

import torch

from onnx_release.network.trial import Axis, Trial

# Of the largest value of an output. Other items do not even change the rounding: the shapes are the same.
TOLERANCE = 1e-5


def are_independent(trial: Trial, axes: Sequence[Axis]) -> bool:
    """Return whether the outputs of each item stay as they are while other items change, in each pair of items.

    `axes` are those along which the inputs have the items. Changes that the network does not take show nothing, and
    neither does an output whose shape follows from values.
    """
    name, axis = axes[0]
    size = trial.inputs[name].shape[axis]
    runs = [(changed, run_changed(trial, axes, changed)) for changed in halves(size)]
    for path, usual in trial.outputs.items():
        found = [(changed, outputs[path]) for changed, outputs in runs if path in outputs]
        if all(tensor.shape == usual.shape for _, tensor in found) and not all(
            keeps_items(usual, tensor, size, [item for item in range(size) if item not in changed])
            for changed, tensor in found
        ):
            return False
    return True


def halves(size: int) -> Iterable[list[int]]:
    """Yield sets of items, so that of any two items each is in one without the other: one of them for each bit."""
    for bit in range((size - 1).bit_length()):
        for value in (0, 1):
            yield [item for item in range(size) if item >> bit & 1 == value]


def run_changed(trial: Trial, axes: Sequence[Axis], changed: Sequence[int]) -> Mapping[str, torch.Tensor]:
    """Return the outputs with other values in the items `changed`, or in their floats alone, or nothing if it fails."""
    floats = [axis for axis in axes if trial.inputs[axis[0]].is_floating_point()]
    for chosen in (axes, floats):
        tensors = dict(trial.inputs)
        for name, axis in chosen:
            tensors[name] = with_changed_items(tensors[name], axis, changed)
        outputs = trial.run(tensors)
        if outputs is not None:
            return outputs
    return {}


def with_changed_items(tensor: torch.Tensor, axis: int, changed: Sequence[int]) -> torch.Tensor:
    """Return the tensor with other values in these items, from the same range, as ids and indices must be."""
    front = tensor.movedim(axis, 0).clone()
    items = front[changed].flatten(1) if front.ndim > 1 else front[changed].unsqueeze(1)
    values = items.roll(1, 1)
    if tensor.is_floating_point():
        values = values * 0.5 + 0.3  # zeros too become others
        values = torch.where(values == items, values + 0.1, values)
    elif tensor.dtype is torch.bool:
        values = values if not torch.equal(values, items) else ~items
    elif items.numel() and torch.equal(values, items):
        values = tensor.max() + tensor.min() - items
        if torch.equal(values, items):
            values = torch.zeros_like(items) if items.any() else torch.ones_like(items)
    front[changed] = values.reshape(front[changed].shape)
    return front.movedim(0, axis)


def keeps_items(usual: torch.Tensor, found: torch.Tensor, size: int, kept: Sequence[int]) -> bool:
    """Return whether an output is the same for the items `kept`, or the same as a whole.

    An axis may have the items, one or several rows of each, one item after the other or in turn.
    """
    for axis, length in enumerate(usual.shape):
        if length % size or not length:
            continue
        rows = length // size
        blocks = [item * rows + row for item in kept for row in range(rows)]
        turns = [row * size + item for row in range(rows) for item in kept]
        for indices in (torch.tensor(blocks), torch.tensor(turns)):
            if are_close(usual.index_select(axis, indices), found.index_select(axis, indices)):
                return True
    return are_close(usual, found)


def are_close(usual: torch.Tensor, found: torch.Tensor) -> bool:
    """Return whether two tensors of one shape are equal within TOLERANCE."""
    wide = torch.complex128 if usual.is_complex() else torch.float64
    first, second = (torch.where(torch.isfinite(tensor), tensor, 0).to(wide) for tensor in (usual, found))
    return not first.numel() or bool((first - second).abs().max() <= TOLERANCE * first.abs().max())
