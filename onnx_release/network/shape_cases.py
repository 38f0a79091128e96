"""Make the shape cases: inputs at every corner of the declared dimensions, from real samples."""

import itertools
import math

import numpy as np

from onnx_release.core.spec import Dimension, Spec, concrete_shape, example_sizes
from onnx_release.data.samples import SampleFile, fit_to_shape

Sizes = dict[str, int]


def shape_cases(spec: Spec) -> list[Sizes]:
    """Return the sizes to try: every corner of minima and maxima, then the examples, then odd sizes."""
    names = list(spec.dimensions)
    corners = itertools.product(*((bounds.min, bounds.max) for bounds in spec.dimensions.values()))
    cases = [dict(zip(names, corner, strict=True)) for corner in corners]
    cases.append(example_sizes(spec))
    cases.append({name: odd_size(bounds) for name, bounds in spec.dimensions.items()})
    return [case for index, case in enumerate(cases) if case not in cases[:index]]


def odd_size(bounds: Dimension) -> int:
    """Return the odd size nearest to the geometric mean of the bounds; if none is between them, the minimum."""
    middle = round(math.sqrt(bounds.min * bounds.max))
    odd = middle if middle % 2 else middle + 1
    return odd if odd <= bounds.max else bounds.min


def case_name(sizes: Sizes) -> str:
    """Return the name of a case, as in batch=2,width=7."""
    return ",".join(f"{name}={size}" for name, size in sizes.items()) or "fixed"


def case_inputs(spec: Spec, sizes: Sizes, samples: SampleFile, seed: int) -> dict[str, np.ndarray]:
    """Return a batch of these sizes from samples drawn with `seed`, each repeated or cut along its axes to fit.

    Real values keep every network in the range that it was trained on: token ids stay in the vocabulary.
    """
    shapes = {tensor.name: concrete_shape(tensor, sizes) for tensor in spec.inputs}
    batch = shapes[spec.inputs[0].name][0]
    chosen = np.random.default_rng(seed).choice(len(samples), batch, replace=batch > len(samples))
    items = [samples.inputs(int(index)) for index in chosen]
    return {name: np.stack([fit_to_shape(item[name], shape[1:]) for item in items]) for name, shape in shapes.items()}
