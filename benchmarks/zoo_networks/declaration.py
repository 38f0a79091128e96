"""Say what a network of the zoo is: a function that builds it, its inputs, and the sizes that these may have.

Nothing here imports torch: a model's data.py draws its samples with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Size:
    """The sizes of an axis: the smallest, the largest and that of an example, all multiples of `multiple_of`."""

    min: int
    max: int
    example: int
    multiple_of: int = 1


BATCH = Size(1, 4, 2)


@dataclass(frozen=True)
class Input:
    """An input and how its values are drawn.

    `values` is normal (standard normal), uniform (in 0..1), integers (from `low` to below `high`), mask (along the last
    axis ones and then zeros), boxes (x1, y1, x2, y2 on a page of 1000) or lengths (from half to the whole of
    the axis `of`).
    """

    shape: tuple[int | str, ...]
    values: str = "normal"
    dtype: str = "float32"
    low: int = 0
    high: int = 0
    of: str = ""

    def draw(self, sizes: Sizes, rng: np.random.Generator) -> np.ndarray:
        """Return an array of this input at these sizes."""
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.shape)
        return np.asarray(self.values_of(shape, sizes, rng), self.dtype)

    def values_of(self, shape: tuple[int, ...], sizes: Sizes, rng: np.random.Generator) -> np.ndarray:
        if self.values == "normal":
            return rng.standard_normal(shape)
        if self.values == "uniform":
            return rng.random(shape)
        if self.values == "integers":
            return rng.integers(self.low, self.high, shape)
        if self.values == "mask":
            return np.arange(shape[-1]) < rng.integers((shape[-1] + 1) // 2, shape[-1] + 1, (*shape[:-1], 1))
        if self.values == "boxes":
            return rng.integers(0, 500, shape) + np.array([0, 0, 500, 500])
        if self.values == "lengths":
            return rng.integers((sizes[self.of] + 1) // 2, sizes[self.of] + 1, shape)
        raise ValueError(f"{self.values} is not a way to draw values")


def floats(*shape: int | str) -> Input:
    """Return a float32 input of standard normal values."""
    return Input(shape)


def uniform(*shape: int | str) -> Input:
    """Return a float32 input of values in 0..1."""
    return Input(shape, "uniform")


def integers(high: int, *shape: int | str, low: int = 0) -> Input:
    """Return an int64 input of values from `low` to below `high`."""
    return Input(shape, "integers", "int64", low, high)


def mask(*shape: int | str, dtype: str = "int64") -> Input:
    """Return a mask of padding along the last axis: ones, and then zeros in at most half of it."""
    return Input(shape, "mask", dtype)


def boxes(*shape: int | str) -> Input:
    """Return an int64 input of boxes on a page, x1, y1, x2, y2 in 0..999; the last axis is 4."""
    return Input((*shape, 4), "boxes", "int64")


def lengths(of: str, *shape: int | str) -> Input:
    """Return an int64 input of lengths, from half to the whole of the axis called `of`."""
    return Input(shape, "lengths", "int64", of=of)


@dataclass(frozen=True)
class Network:
    """A network of the zoo.

    `build` returns a torch module; its forward takes `inputs` by position. `outputs` are names of its outputs where it
    returns a mapping; without it, those that are tensors, and outputs by position get names of their own. `varies` are
    the sizes that differ from sample to sample, as the length of a text does.
    """

    name: str
    family: str
    build: Callable[[], Any]
    inputs: Mapping[str, Input]
    sizes: Mapping[str, Size] = field(default_factory=lambda: {"batch": BATCH})
    outputs: tuple[str, ...] = ()
    varies: tuple[str, ...] = ("sequence", "frames", "nodes")

    def draw(self, sizes: Sizes, seed: int) -> dict[str, np.ndarray]:
        """Return all inputs at these sizes."""
        rng = np.random.default_rng(seed)
        return {name: given.draw(sizes, rng) for name, given in self.inputs.items()}

    def following(self, sizes: Sizes) -> dict[str, np.ndarray]:
        """Return the inputs whose values follow the sizes, the lengths: one made for other sizes would not fit."""
        return {name: array for name, array in self.draw(sizes, 0).items() if self.inputs[name].values == "lengths"}

    def sample(self, seed: int) -> dict[str, np.ndarray]:
        """Return the inputs of one item, without the batch axis."""
        rng = np.random.default_rng(seed)
        sizes = {name: bounds.example for name, bounds in self.sizes.items()} | {"batch": 1}
        for name in self.varies:
            if name in self.sizes:
                bounds = self.sizes[name]
                steps = (bounds.max - bounds.min) // bounds.multiple_of
                sizes[name] = bounds.min + bounds.multiple_of * int(rng.integers(0, steps + 1))
        return {name: without_batch(given, given.draw(sizes, rng)) for name, given in self.inputs.items()}


def without_batch(given: Input, array: np.ndarray) -> np.ndarray:
    return array.take(0, given.shape.index("batch")) if "batch" in given.shape else array
