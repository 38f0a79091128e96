"""Make the shape cases: inputs at the corners of the declared dimensions, from real samples."""

import itertools
import math

import numpy as np

from onnx_release.core.spec import (
    Dimension,
    Spec,
    batch_dimension,
    example_sizes,
    input_dimensions,
)
from onnx_release.data.examples import examples_of
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import SampleFile, stack_items

Sizes = dict[str, int]
ALL_CORNERS = 5  # dimensions of which all corners are tried, which are 32


def shape_cases(spec: Spec) -> list[Sizes]:
    """Return the sizes to try: the corners of `corners`, then the examples, then odd sizes."""
    dimensions = input_dimensions(spec)
    cases = [
        {
            name: (bounds.smallest, bounds.largest)[end]
            for (name, bounds), end in zip(dimensions.items(), ends, strict=True)
        }
        for ends in corners(len(dimensions))
    ]
    cases.append(example_sizes(spec))
    cases.append({name: odd_size(bounds) for name, bounds in dimensions.items()})
    return [case for index, case in enumerate(cases) if case not in cases[:index]]


def corners(count: int) -> list[tuple[int, ...]]:
    """Return the corners of `count` dimensions to try: for each dimension 0 for its minimum and 1 for its maximum.

    Up to ALL_CORNERS dimensions these are all corners. Of more they are all minima, all maxima, and a few corners
    between them, so that any two dimensions are at each of the four pairs of their bounds: 7 corners of 10 dimensions.
    """
    if count <= ALL_CORNERS:
        return list(itertools.product((0, 1), repeat=count))
    # A dimension is at its maximum in a set of the corners between. All these sets have one size and differ, so no set
    # holds another, and any two dimensions are at both pairs of a minimum and a maximum. Half of the corners give the
    # most such sets (E. Sperner, "Ein Satz ueber Untermengen einer endlichen Menge", 1928).
    between = next(number for number in itertools.count() if math.comb(number, number // 2) >= count)
    sets = list(itertools.islice(itertools.combinations(range(between), between // 2), count))
    return [(0,) * count, *(tuple(int(corner in own) for own in sets) for corner in range(between)), (1,) * count]


def odd_size(bounds: Dimension) -> int:
    """Return the odd size nearest to the geometric mean of the bounds; if none is between them, the minimum.

    In steps, it is an odd number of steps.
    """
    step = bounds.multiple_of
    low, high = bounds.smallest // step, bounds.largest // step
    middle = round(math.sqrt(low * high))
    odd = middle if middle % 2 else middle + 1
    return (odd if odd <= high else low) * step


def case_name(sizes: Sizes) -> str:
    """Return the name of a case, as in batch=2,width=7."""
    return ",".join(f"{name}={size}" for name, size in sizes.items()) or "fixed"


def case_inputs(
    spec: Spec, sizes: Sizes, samples: SampleFile, seed: int, data: ModelData | None = None
) -> dict[str, np.ndarray]:
    """Return a batch of these sizes from samples drawn with `seed`, each repeated or cut along its axes to fit.

    Real values keep every network in the range that it was trained on: token ids stay in the vocabulary. Inputs that
    examples() of `data` gives are taken from there. Raises DataError if they contradict the spec.
    """
    batch = batch_dimension(spec)
    count = sizes[batch] if isinstance(batch, str) else 1
    chosen = np.random.default_rng(seed).choice(len(samples), count, replace=count > len(samples))
    inputs = stack_items([samples.inputs(int(index)) for index in chosen], sizes, spec)
    return inputs | examples_of(data, spec, sizes)
