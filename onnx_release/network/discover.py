"""Read the inputs and outputs of a network, and their sizes, by running it at several sizes.

An axis that the network takes at other sizes is symbolic. A size of an output that follows from one of the inputs has a
formula, and one that follows from values has none.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from onnx_release.core.errors import NetworkError
from onnx_release.core.spec import ITEM_BYTES
from onnx_release.network.empty_axes import empty_axes, with_filled_axes
from onnx_release.network.example_arguments import Arguments
from onnx_release.network.input_dimensions import (
    BATCH,
    InputDimension,
    following_formulas,
    input_dimensions,
    with_batch_of_two,
)
from onnx_release.network.size_formula import added, size_formula
from onnx_release.network.trial import Shapes, Trial, shapes_of

IDENTIFIER = re.compile(r"\w+")
VALUES = "the values of the inputs"


@dataclass(frozen=True)
class FoundTensor:
    """An input or an output by its path, with a number, the name of a size or a formula for each axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    example: torch.Tensor


@dataclass(frozen=True)
class Discovery:
    """What a network takes and gives.

    `derived` maps the name of each size that only outputs have to its formula, or to what it follows. `fixed` has the
    sizes of pictures that may vary but that no output follows, which are declared as numbers.
    """

    inputs: tuple[FoundTensor, ...]
    outputs: tuple[FoundTensor, ...]
    dimensions: tuple[InputDimension, ...]
    derived: Mapping[str, str]
    fixed: tuple[InputDimension, ...]


@dataclass(frozen=True)
class Run:
    """The shapes of the outputs with the dimension `name` at `size`; an empty name for a change of values alone."""

    name: str
    size: int
    shapes: Shapes


def discover(network: torch.nn.Module, arguments: Arguments) -> Discovery:
    """Run the network on its example inputs and at other sizes, and return what it takes and gives.

    Raises NetworkError if it fails on the example inputs, if these have axes of length 0 and it takes no other, and for
    a dtype that no spec can declare.
    """
    given = Trial(network, arguments)
    trial = with_batch_of_two(with_filled_axes(given))
    dimensions = input_dimensions(trial, empty_axes(given.inputs))
    runs = [*size_runs(trial, dimensions), *value_runs(trial)]
    fixed = [dimension for dimension in dimensions if not_followed(dimension, trial, runs)]
    kept = [dimension for dimension in dimensions if dimension not in fixed]
    symbolic = {axis: dimension.name for dimension in kept for axis in dimension.axes} | following_formulas(kept)
    inputs = tuple(
        FoundTensor(
            name,
            dtype_name(name, tensor),
            tuple(symbolic.get((name, axis), size) for axis, size in enumerate(tensor.shape)),
            tensor,
        )
        for name, tensor in trial.inputs.items()
    )
    outputs, derived = found_outputs(trial, kept, runs)
    return Discovery(inputs, outputs, tuple(kept), derived, tuple(fixed))


def dtype_name(name: str, tensor: torch.Tensor) -> str:
    """Return the dtype of a tensor as a spec has it. Raises NetworkError if a spec cannot have it."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    dtype = "float32" if dtype in ("float64", "bfloat16") else dtype  # what the pipeline brings them to
    if dtype not in ITEM_BYTES:
        raise NetworkError(f"{name} is {dtype}, and a spec knows only {', '.join(ITEM_BYTES)}: convert it in forward()")
    return dtype


def size_runs(trial: Trial, dimensions: Sequence[InputDimension]) -> list[Run]:
    """Return runs with each dimension at its example and at other sizes, and all else as in the examples."""
    found = []
    for dimension in dimensions:
        # Sizes far from each other and of several remainders tell one formula from another.
        near = (dimension.example + steps * dimension.step for steps in (0, 1, 2, 3, 5, 7))
        far = (dimension.smallest, 2 * dimension.example) if dimension.name != BATCH else ()
        for size in sorted({*near, *far}):
            shapes = trial.shapes(dimension.at(size))
            if shapes is not None:
                found.append(Run(dimension.name, size, shapes))
    return found


def value_runs(trial: Trial) -> list[Run]:
    """Return runs at the example sizes with other values: floating-point inputs negated, and the others zero."""
    negated = {name: -tensor for name, tensor in trial.inputs.items() if tensor.is_floating_point()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in trial.inputs.items() if name not in negated}
    runs = [trial.run({**trial.inputs, **change}) for change in (negated, zeros) if change]
    return [
        Run("", 0, shapes_of(found)) for found in runs if found is not None and found.keys() == trial.outputs.keys()
    ]


def not_followed(dimension: InputDimension, trial: Trial, runs: Sequence[Run]) -> bool:
    """Return whether a size is the side of a picture that the network pools away: no output has a size from it."""
    name, axis = dimension.axes[0]
    tensor = trial.inputs[name]
    picture = tensor.ndim >= 4 and tensor.is_floating_point() and axis >= 2
    usual = shapes_of(trial.outputs)
    return picture and all(run.shapes == usual for run in runs if run.name == dimension.name)


def found_outputs(
    trial: Trial, dimensions: Sequence[InputDimension], runs: Sequence[Run]
) -> tuple[tuple[FoundTensor, ...], dict[str, str]]:
    """Return the outputs, and the formula of each derived size by its name."""
    names: dict[tuple[str, tuple[int, ...]], str] = {}
    outputs = []
    for path, tensor in trial.outputs.items():
        shape: list[int | str] = []
        for axis, size in enumerate(tensor.shape):
            formula = axis_formula(path, axis, size, dimensions, runs)
            if formula is None or any(formula == dimension.name for dimension in dimensions):
                shape.append(size if formula is None else formula)
                continue
            sizes = tuple(run.shapes[path][axis] for run in runs)
            name = derived_name(formula, path, axis, dimensions, list(names.values()))
            shape.append(names.setdefault((formula, sizes), name))
        outputs.append(FoundTensor(path, dtype_name(path or "the output", tensor), tuple(shape), tensor))
    return tuple(outputs), {name: formula for (formula, _), name in names.items()}


def axis_formula(
    path: str, axis: int, size: int, dimensions: Sequence[InputDimension], runs: Sequence[Run]
) -> str | None:
    """Return what an axis of an output follows, as the name of a dimension, a formula or words; None for a constant."""
    if any(run.shapes[path][axis] != size for run in runs if not run.name):
        return VALUES
    followed = []
    for dimension in dimensions:
        own = [run for run in runs if run.name == dimension.name]
        if any(run.shapes[path][axis] != size for run in own):
            followed.append((dimension, [run.size for run in own], [run.shapes[path][axis] for run in own]))
    if not followed:
        return None
    if len(followed) == 1:
        dimension, given, found = followed[0]
        return size_formula(dimension.name, given, found) or f"a size that follows {dimension.name}"
    return (
        sum_formula(size, followed)
        or product_formula(size, followed)
        or " and ".join(dimension.name for dimension, _, _ in followed)
    )


def sum_formula(size: int, followed: list[tuple[InputDimension, list[int], list[int]]]) -> str | None:
    """Return the formula of a size that is the sum of dimensions and a number, or None."""
    for dimension, given, found in followed:
        if any(other - size != at - dimension.example for at, other in zip(given, found, strict=True)):
            return None
    rest = size - sum(dimension.example for dimension, _, _ in followed)
    return " + ".join(dimension.name for dimension, _, _ in followed) + added(rest)


def product_formula(size: int, followed: Sequence[tuple[InputDimension, list[int], list[int]]]) -> str | None:
    """Return the formula of a size that is a multiple of the product of dimensions, or None."""
    examples = math.prod(dimension.example for dimension, _, _ in followed)
    for dimension, given, found in followed:
        if any(other * dimension.example != size * at for at, other in zip(given, found, strict=True)):
            return None
    factor, rest = divmod(size, examples)
    if rest:
        return None
    names = [dimension.name for dimension, _, _ in followed]
    return " * ".join([str(factor), *names] if factor > 1 else names)


def derived_name(formula: str, path: str, axis: int, dimensions: Sequence[InputDimension], used: Sequence[str]) -> str:
    """Return a name for a size that only outputs have, such as height_out."""
    followed = [dimension.name for dimension in dimensions if dimension.name in IDENTIFIER.findall(formula)]
    base = "_".join(followed) if followed else f"{path.replace('.', '_') or 'output'}_{axis}"
    candidates = [f"{base}_out", *(f"{base}_out_{number}" for number in range(2, 1000))]
    return next(name for name in candidates if name not in used)
