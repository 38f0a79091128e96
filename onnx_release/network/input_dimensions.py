"""Find which axes of a network's inputs may vary, which of them are one size, and how far they go."""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from onnx_release.network.arguments import CACHES
from onnx_release.network.independent_items import are_independent
from onnx_release.network.size_formula import added
from onnx_release.network.trial import Axis, Trial, shapes_of

STEPS = (1, 2, 4, 8, 16, 32, 64)  # networks that halve a size n times take multiples of 2**n
BATCH = "batch"
LARGEST_BATCH = 16
CHOICES = 64  # of the axes that may be the batch, or that may vary together with another size
# Pictures, waves and maps are tried from half of the example on, sequences from 2 to this many times the example.
LONGER = 8
SMALLEST = 2
EDGE = re.compile(r"(?:^|[._])edges?(?:[._]|$)")  # as in edge_index
IMAGE_AXES = {4: ("", "channels", "height", "width"), 5: ("", "channels", "depth", "height", "width")}


@dataclass(frozen=True)
class InputDimension:
    """Axes of the inputs that are one size: its bounds, its example, and the step between two sizes.

    `following` are axes of other inputs that grow with it, each with its size in the examples.
    """

    name: str
    axes: tuple[Axis, ...]
    example: int
    step: int = 1
    smallest: int = 1
    largest: int = LARGEST_BATCH
    following: tuple[tuple[Axis, int], ...] = ()

    def at(self, size: int) -> dict[Axis, int]:
        """Return `size` for each of the axes, and what it makes of those that follow."""
        return at_once([(self, size)])

    @property
    def others(self) -> tuple[int, int]:
        """Return two other sizes than the example, close to it and larger."""
        return self.example + self.step, self.example + 3 * self.step

    @property
    def smaller(self) -> tuple[int, ...]:
        """Return the next smaller size than the example, unless that is the smallest."""
        return (self.example - self.step,) if self.example > self.step else ()


def at_once(sizes: Sequence[tuple[InputDimension, int]]) -> dict[Axis, int]:
    """Return the sizes of the axes where each dimension has its size; an axis may follow several of them."""
    found: dict[Axis, int] = {}
    for dimension, size in sizes:
        found |= dict.fromkeys(dimension.axes, size)
        for axis, example in dimension.following:
            found[axis] = found.get(axis, example) + size - dimension.example
    return found


def following_formulas(dimensions: Sequence[InputDimension]) -> dict[Axis, str]:
    """Return the formula of each axis that follows sizes, such as `past + sequence`."""
    examples = {axis: example for dimension in dimensions for axis, example in dimension.following}
    formulas = {}
    for axis, example in examples.items():
        followed = [item for item in dimensions if axis in dict(item.following)]
        rest = example - sum(item.example for item in followed)
        formulas[axis] = " + ".join(item.name for item in followed) + added(rest)
    return formulas


def with_batch_of_two(trial: Trial) -> Trial:
    """Return the trial with a batch of 2, if the examples have a batch of 1 and the network takes more."""
    for axes in batch_choices(trial.inputs, 1):
        batch = dict.fromkeys(axes, 2)
        if trial.shapes(batch) not in (None, shapes_of(trial.outputs)):
            return Trial(trial.network, trial.arguments.replaced(trial.resized(batch)))
    return trial


def input_dimensions(trial: Trial, may_be_empty: Collection[Axis] = ()) -> list[InputDimension]:
    """Return the sizes that may vary: first the batch, then the others in the order of the inputs.

    Axes of one example size at one position of several inputs count as one size where the network takes them together.
    Then come sizes that vary only where an axis of another input grows with them, as a mask does with a cache, and last
    those that can only be larger: of a mask that is too long, a network may use the part that it needs. The sizes of
    the axes in `may_be_empty` go from 0.
    """
    found = [batch] if (batch := find_batch(trial)) else []
    free = [
        (name, axis)
        for name, tensor in trial.inputs.items()
        for axis in range(tensor.ndim)
        if tensor.shape[axis] >= SMALLEST
    ]
    # Of sizes that follow each other, the smaller are those that are added.
    by_size = sorted(free, key=lambda axis: trial.inputs[axis[0]].shape[axis[1]])
    for find, axes in ((find_dimension, free), (find_followed, by_size), (partial(find_dimension, larger=True), free)):
        for axis in axes:
            taken = {other for dimension in found for other in dimension.axes}
            if axis in taken or axis in following_formulas(found):
                continue
            dimension = find(trial, axis, [other for other in free if other not in taken])
            if dimension is not None:
                name = unused_name(dimension_name(trial.inputs, axis), axis, [item.name for item in found])
                found.append(
                    bounded(trial, replace(dimension, name=name), any(item in may_be_empty for item in dimension.axes))
                )
    return together(trial, masks_follow(trial, found))


def masks_follow(trial: Trial, found: list[InputDimension]) -> list[InputDimension]:
    """Return the dimensions with the size of a mask as the sum of two others, where that is so in the examples.

    Decoders of transformers pad and cut a mask, so that they run at every size of it, and no output follows it. It is
    an input with mask in its name.
    """
    for mask in found:
        if mask.name == BATCH or not all("mask" in name for name, _ in mask.axes):
            continue
        if any(trial.shapes(mask.at(other)) != shapes_of(trial.outputs) for other in mask.others):
            continue
        others = [item for item in found if item.name not in (BATCH, mask.name)]
        pairs = [
            pair for pair in itertools.combinations(others, 2) if sum(item.example for item in pair) == mask.example
        ]
        if len(pairs) == 1:
            following = tuple((axis, mask.example) for axis in mask.axes)
            followed = [
                replace(item, following=item.following + following) if item in pairs[0] else item for item in found
            ]
            return [item for item in followed if item.name != mask.name]
    return found


def find_batch(trial: Trial) -> InputDimension | None:
    """Return the batch: an axis of the first input, with those of the others that vary with it, of independent items.

    It is the first axis; or the second, if the first varies but its items depend on each other, as steps of time do.
    """
    shape = next((tensor.shape for tensor in trial.inputs.values() if tensor.ndim), torch.Size([1]))
    for front in (0, 1) if len(shape) > 2 else (0,):
        size, varies = shape[front], False
        for axes in batch_choices(trial.inputs, size, front) if size >= SMALLEST else []:
            batch = InputDimension(BATCH, axes, size)
            if changes_outputs(trial, batch):
                if are_independent(trial, axes):
                    return batch
                varies = True
        if not varies:
            break
    return None


def batch_choices(tensors: Mapping[str, torch.Tensor], size: int, front: int = 0) -> list[tuple[Axis, ...]]:
    """Return sets of axes of this size that may be the batch, one axis or none of each input, the likeliest first.

    The first input has it at the axis `front`. As many others as can be have it, as far in front as can be.
    """
    choices: list[list[Axis | None]] = []
    for name, tensor in tensors.items():
        axes = [(name, axis) for axis in range(tensor.ndim) if choices or axis == front]
        choices.append([axis for axis in axes if tensor.shape[axis[1]] == size] or [None])
        if len(choices) > 1 and choices[-1] != [None]:
            choices[-1].append(None)
    products = list(itertools.islice(itertools.product(*choices), 8 * CHOICES))
    ordered = sorted(products, key=lambda axes: (axes.count(None), sum(axis[1] for axis in axes if axis)))
    return [tuple(axis for axis in axes if axis) for axes in ordered[:CHOICES] if any(axes)]


def changes_outputs(trial: Trial, dimension: InputDimension) -> bool:
    """Return whether the network runs at two other sizes, and the shape of an output follows."""
    shapes = [trial.shapes(dimension.at(size)) for size in dimension.others]
    return None not in shapes and shapes[0] != shapes[1]


def find_dimension(trial: Trial, axis: Axis, free: Sequence[Axis], larger: bool = False) -> InputDimension | None:
    """Return the axes that go with `axis`, without a name or bounds; None if the network fixes the size.

    With `larger`, larger sizes are enough, and else it takes a smaller one too.
    """
    size = trial.inputs[axis[0]].shape[axis[1]]
    for axes in groups(trial, axis, free):
        for step in STEPS:
            candidate = InputDimension("", axes, size, step)
            others = candidate.others if larger else (*candidate.others, *candidate.smaller)
            # Without a smaller size to try, a step is a guess, which is left for later.
            known = larger or step == 1 or candidate.smaller
            if size % step == 0 and known and all(trial.accepts(candidate.at(other)) for other in others):
                return candidate
    return None


def find_followed(trial: Trial, axis: Axis, free: Sequence[Axis]) -> InputDimension | None:
    """Return the axes that go with `axis`, and axes of other inputs that grow with them; None without such axes."""
    size = trial.inputs[axis[0]].shape[axis[1]]
    candidates = (
        InputDimension("", axes, size, following=following)
        for axes in groups(trial, axis, free)
        for following in followers(trial, axes, free)
    )
    for candidate in itertools.islice(candidates, CHOICES):
        if all(trial.accepts(candidate.at(other)) for other in (*candidate.others, *candidate.smaller)):
            return candidate
    return None


def followers(trial: Trial, axes: tuple[Axis, ...], free: Sequence[Axis]) -> Iterator[tuple[tuple[Axis, int], ...]]:
    """Yield sets of axes of one other size, of other inputs than those of `axes`, the largest sets first."""
    inputs = {name for name, _ in axes}
    sizes = {other: trial.inputs[other[0]].shape[other[1]] for other in free if other[0] not in inputs}
    own = trial.inputs[axes[0][0]].shape[axes[0][1]]
    different = dict.fromkeys(size for size in sizes.values() if size != own)
    whole = [tuple((axis, size) for axis, size in sizes.items() if size == wanted) for wanted in different]
    yield from dict.fromkeys((*whole, *(((axis, size),) for axis, size in sizes.items() if size != own)))


def groups(trial: Trial, axis: Axis, free: Sequence[Axis]) -> Iterator[tuple[Axis, ...]]:
    """Yield sets of axes of one size that may only vary together, `axis` among them, the likeliest first."""
    size = trial.inputs[axis[0]].shape[axis[1]]
    same = [other for other in free if trial.inputs[other[0]].shape[other[1]] == size]
    from_end = axis[1] - trial.inputs[axis[0]].ndim
    choices = [
        tuple(other for other in same if other[1] == axis[1]),
        tuple(other for other in same if other[1] - trial.inputs[other[0]].ndim == from_end),
        (axis,),
        tuple(other for other in same if other[0] == axis[0]),
        tuple(same),
        *(tuple(sorted((axis, other))) for other in same if other != axis),
    ]
    yield from dict.fromkeys(choices)


def dimension_name(tensors: Mapping[str, torch.Tensor], axis: Axis) -> str:
    """Return a name for a size by the rank and dtype of its tensor, such as height or sequence."""
    name, position = axis
    tensor = tensors[name]
    if name.partition(".")[0] in CACHES:
        return "past"
    if position == 0 or EDGE.search(name):
        return first_name(tensors, name)
    if tensor.ndim in IMAGE_AXES and tensor.is_floating_point():
        return IMAGE_AXES[tensor.ndim][position]
    if position == 1 and (tensor.ndim == 3 or (tensor.ndim == 2 and not tensor.is_floating_point())):
        return "sequence"
    return "length" if position == tensor.ndim - 1 else f"{name.replace('.', '_')}_{position}"


def first_name(tensors: Mapping[str, torch.Tensor], name: str) -> str:
    """Return a name for a first axis that is no batch, since its items depend on each other, and for edges."""
    if EDGE.search(name):
        return "edges"
    if name == next(iter(tensors)):
        return "nodes" if any(EDGE.search(other) for other in tensors) else "sequence"
    return f"{name.replace('.', '_')}_0"


def unused_name(name: str, axis: Axis, used: Sequence[str]) -> str:
    """Return `name`, or one with the tensor's path before it and a number after it that is not used yet."""
    longer = f"{axis[0].replace('.', '_')}_{name}"
    numbered = (f"{longer}_{number}" for number in itertools.count(2))
    return next(item for item in itertools.chain((name, longer), numbered) if item not in used)


def is_spatial(trial: Trial, dimension: InputDimension) -> bool:
    """Return whether a size is that of pictures, waves or maps, and not the length of a sequence or a batch."""
    name, axis = dimension.axes[0]
    tensor = trial.inputs[name]
    return tensor.is_floating_point() and axis >= 1 and (tensor.ndim >= 4 or axis == tensor.ndim - 1)


def bounded(trial: Trial, dimension: InputDimension, may_be_empty: bool) -> InputDimension:
    """Return the dimension with bounds at which the network was seen to run."""
    example, step = dimension.example, dimension.step
    if may_be_empty:
        return replace_bounds(dimension, 0, largest_accepted(trial, dimension, LONGER * example))
    spatial = is_spatial(trial, dimension)
    lowest = max(example // 2, SMALLEST) if spatial else SMALLEST
    lower = [size for size in growing_sizes(step) if lowest <= size < example]
    smallest = next((size for size in lower if trial.accepts(dimension.at(size))), example)
    if spatial:
        larger = smallest == example and trial.accepts(dimension.at(2 * example))
        return replace_bounds(dimension, smallest, 2 * example if larger else example)
    high = largest_accepted(trial, dimension, LONGER * example)
    return replace_bounds(dimension, smallest, high)


def growing_sizes(step: int) -> list[int]:
    """Return multiples of `step` that grow by about a half each."""
    return sorted({multiple * 2**power * step for multiple in (2, 3) for power in range(16)} | {step})


def largest_accepted(trial: Trial, dimension: InputDimension, limit: int) -> int:
    """Return the largest size up to `limit` at which the network runs, if those above a size all fail, by halving."""
    if trial.accepts(dimension.at(limit)):
        return limit
    step = dimension.step
    low, high = dimension.example // step, limit // step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if trial.accepts(dimension.at(middle * step)) else (low, middle)
    return low * step


def together(trial: Trial, dimensions: list[InputDimension]) -> list[InputDimension]:
    """Return the dimensions with those bounds at which the network also runs if all are at them at once."""
    others = [dimension for dimension in dimensions if dimension.name != BATCH]
    if len(others) < 2:
        return dimensions
    low = trial.accepts(at_once([(item, item.smallest) for item in others]))
    high = trial.accepts(at_once([(item, item.largest) for item in others]))
    return [
        item
        if item.name == BATCH
        else replace_bounds(item, item.smallest if low else item.example, item.largest if high else item.example)
        for item in dimensions
    ]


def replace_bounds(dimension: InputDimension, smallest: int, largest: int) -> InputDimension:
    """Return the dimension with these bounds."""
    return replace(dimension, smallest=smallest, largest=largest)
