"""Take the inputs whose values follow the sizes, such as the ends of edges, from examples() in a model's data.py."""

from typing import TYPE_CHECKING

import numpy as np

from onnx_release.core.errors import DataError
from onnx_release.core.spec import Spec, check_array, concrete_shape

if TYPE_CHECKING:
    from onnx_release.data.model_data import ModelData


def examples_of(data: "ModelData | None", spec: Spec, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Return what examples(sizes) in data.py gives, checked; nothing if it is not there.

    Raises DataError if it fails, or if an array is not a declared input or not of these sizes.
    """
    examples = getattr(data, "examples", None)
    if examples is None:
        return {}
    given = examples(dict(sizes))
    declared = {tensor.name: tensor for tensor in spec.inputs}
    found = {}
    for name, value in given.items():
        if name not in declared:
            raise DataError(f"examples({sizes}) in data.py gives {name}, spec.yaml declares {', '.join(declared)}")
        array = np.asarray(value)
        problem = check_array(declared[name], str(array.dtype), array.shape, dict(sizes))
        if problem:
            shape = list(concrete_shape(declared[name], sizes))
            raise DataError(f"examples({sizes}) in data.py: {problem}: return {declared[name].dtype} {shape}")
        found[name] = array
    return found
