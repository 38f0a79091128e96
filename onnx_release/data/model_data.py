"""Load a model's data by the model's name, from its data.py or from the photographs in its spec, without torch."""

import importlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from onnx_release.core.errors import ReleaseError, SpecError
from onnx_release.core.paths import MODELS
from onnx_release.core.spec import load_spec
from onnx_release.core.types import Answer, Sample

# What in a spec.yaml replaces a file.
INSTEAD = {
    "data": "declare photographs under `images` in spec.yaml",
    "network": "name a class of the package transformers under `transformers` in spec.yaml",
}


class ModelData(Protocol):
    """The functions of models/NAME/data.py; the task tensor needs no postprocess().

    If clients send raw items, it also has encoded(raw), which yields some of them as bytes, and decode(bytes), which
    returns the input of preprocess(). Without decode() the server has no /predict. For a text it is annotated with str.

    It may have examples(sizes) for inputs whose values follow the sizes, such as lengths, masks and the ends of edges.
    `sizes` has the size of each dimension by name, the batch too. It returns these inputs by name, of exactly these
    sizes, or all inputs; the others are real samples, repeated or cut.
    """

    def samples(self, raw: Path, split: str) -> Iterator[Sample]:
        """Yield the samples of "calibration" or "evaluation"."""

    def preprocess(self, item: Any) -> dict[str, np.ndarray]:
        """Return the network's inputs for one raw item, without the batch axis.

        For detection it is the whole picture, resized, as [channels, height, width]: the server scales boxes back.
        """

    def postprocess(self, outputs: dict[str, np.ndarray]) -> Answer:
        """Turn the network's outputs for one item, without the batch axis, into an answer."""


def load_data(model: str) -> ModelData:
    """Load models/`model`/data.py, or the photographs that `images` in its spec.yaml declares.

    Raises SpecError if there are both or neither, and if data.py cannot be loaded.
    """
    spec, path = load_spec(model), MODELS / model / "data.py"
    if spec.images is not None:
        if path.is_file():
            raise SpecError(
                f"models/{model} has a data.py and `images` in spec.yaml: remove data.py if the photographs are all of "
                "the data, else `images`"
            )
        from onnx_release.data.image_folder import ImageFolder  # it needs Pillow, and a data.py may not

        return ImageFolder(spec)
    functions = ("samples", "preprocess") if spec.task == "tensor" else ("samples", "preprocess", "postprocess")
    return cast(ModelData, load_module(model, "data", functions))


def load_module(model: str, name: str, functions: tuple[str, ...]) -> Any:
    """Import the module models.`model`.`name`, "data" or "network".

    Raises SpecError if it is missing, fails on import, or lacks one of `functions`.
    """
    path = MODELS / model / f"{name}.py"
    if not path.is_file():
        needed = ", ".join(f"{function}()" for function in functions)
        raise SpecError(f"{path} is not there: write it with {needed}, or {INSTEAD[name]}")
    try:
        module = importlib.import_module(f"models.{model}.{name}")
    except ReleaseError:
        raise
    except Exception as cause:  # a model's file may raise anything
        raise SpecError(f"{path} cannot be imported: {place_of(cause, model)}: {reason_of(cause)}") from cause
    for function in functions:
        if not callable(getattr(module, function, None)):
            raise SpecError(f"{path} does not define {function}()")
    return module


def place_of(cause: BaseException, model: str) -> str:
    """Return FILE:LINE of the innermost frame of `cause` in the model's own code; without one, the model's folder."""
    folder = MODELS / model
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(cause.__traceback__)]
    if isinstance(cause, SyntaxError) and cause.filename is not None:
        places.append((cause.filename, cause.lineno))  # the file was never run
    for file, line in reversed(places):
        if folder.resolve() in Path(file).resolve().parents:
            return f"{folder / Path(file).resolve().relative_to(folder.resolve())}:{line}"
    return str(folder)


def reason_of(cause: BaseException) -> str:
    """Return the type and message of `cause`, without the place that a SyntaxError repeats."""
    text = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
