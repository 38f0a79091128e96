"""Choose the sizes at which a network of the zoo is run: the corners, the example, and one between them."""

import itertools
import math

from benchmarks.zoo_networks.declaration import Network, Size


def size_cases(declared: Network) -> list[dict[str, int]]:
    """Return each corner of the smallest and the largest sizes, then the examples, then sizes between them."""
    bounds = declared.sizes
    corners = itertools.product(*((size.min, size.max) for size in bounds.values()))
    cases = [dict(zip(bounds, corner, strict=True)) for corner in corners]
    cases.append({name: size.example for name, size in bounds.items()})
    cases.append({name: between(size) for name, size in bounds.items()})
    return [case for index, case in enumerate(cases) if case not in cases[:index]]


def between(size: Size) -> int:
    """Return an odd multiple of the step near the geometric mean of the bounds, or the smallest size."""
    middle = round(math.sqrt(size.min * size.max) / size.multiple_of)
    found = (middle if middle % 2 else middle + 1) * size.multiple_of
    return found if size.min <= found <= size.max else size.min
