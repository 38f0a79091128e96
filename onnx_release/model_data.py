"""Load a model's data.py by the model's name. No torch."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from onnx_release.errors import SpecError
from onnx_release.paths import MODELS
from onnx_release.types import Prediction, Sample


class ModelData(Protocol):
    """What models/NAME/data.py defines.

    Where clients send raw items, it also has encoded(raw), which yields some of them as bytes, and decode(bytes), which
    gives what preprocess() takes.
    """

    def samples(self, raw: Path, split: str) -> Iterator[Sample]:
        """The samples of "calibration" or "evaluation", one after the other."""

    def preprocess(self, item: Any) -> dict[str, np.ndarray]:
        """One raw item as the network's inputs, without the batch axis."""

    def postprocess(self, outputs: dict[str, np.ndarray]) -> Prediction:
        """The network's outputs for one item, without the batch axis, as an answer."""


def load_data(model: str) -> ModelData:
    """models/`model`/data.py. Raises SpecError where it is missing or lacks a function."""
    return cast(ModelData, load_module(model, "data", ("samples", "preprocess", "postprocess")))


def load_module(model: str, name: str, functions: tuple[str, ...]) -> Any:
    """The module models.`model`.`name`. Raises SpecError where it is missing or lacks one of `functions`."""
    path = MODELS / model / f"{name}.py"
    if not path.is_file():
        raise SpecError(f"{path} is not there: it must define {', '.join(functions)}")
    module = importlib.import_module(f"models.{model}.{name}")
    for function in functions:
        if not hasattr(module, function):
            raise SpecError(f"{path} does not define {function}()")
    return module
