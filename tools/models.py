"""Let a tool be told which of the listed models it is about."""

import argparse

from onnx_release.core.errors import ParameterError
from onnx_release.core.model_list import load_models
from onnx_release.core.paths import MODEL_LIST, ModelFiles


def add_model_option(parser: argparse._ActionsContainer) -> None:
    """Add --model to the command line."""
    parser.add_argument("--model", metavar="NAME", help=f"a model that {MODEL_LIST} lists (default: the first)")


def chosen_model(name: str | None) -> ModelFiles:
    """Return the model of this name, without one the first on the list. Raises ParameterError if it is not listed."""
    listed = load_models()
    if name is not None and name not in listed:
        raise ParameterError(
            f"{MODEL_LIST} does not list {name}, but {', '.join(listed)}: choose one of them, or add a line `- {name}` "
            "there for a folder below models/"
        )
    return ModelFiles(name or listed[0])
