"""Read a YAML file, into a pydantic model, and turn what pydantic finds into messages that name the key."""

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from onnx_release.core.errors import ReleaseError
from onnx_release.core.files import refuse_conflict


class Strict(BaseModel):
    """Unknown keys are refused, nothing is coerced ("18" is no integer), and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Model = TypeVar("Model", bound=Strict)


def read_yaml(path: Path, model: type[Model], error: type[ReleaseError]) -> Model:
    """Read `path` as `model`. Raises `error` with one line for every key that is wrong."""
    content = load_yaml(path, error)
    try:
        return model.model_validate(content)
    except ValidationError as cause:
        problems = "\n".join(f"  {describe(problem, model)}" for problem in cause.errors())
        raise error(f"{path} has wrong values:\n{problems}") from cause


def load_yaml(path: Path, error: type[ReleaseError]) -> Any:
    """What is in a YAML file. Raises `error` if it is missing, empty, not valid, or in conflict after a merge."""
    try:
        text = path.read_text(encoding="utf-8")
        refuse_conflict(path, text, error)
        # The same library and YAML version with which DVC reads it: 1e-4 is a number to both.
        content = YAML(typ="safe", pure=True).load(text)
    except FileNotFoundError as cause:
        raise error(f"{path} is not there: run this from the repository root, or write the file") from cause
    except (YAMLError, ValueError) as cause:  # ValueError: not UTF-8, or a date that there is not
        what = str(cause).partition("\nTo suppress")[0].strip()  # how to allow a key twice, which is for programs
        remedy = f"fix that, or `git restore {path}` brings back what was committed"
        raise error(f"{path} is not valid YAML: {what}\n{remedy}") from cause
    if content is None:
        raise error(f"{path} is empty: `git restore {path}` brings back what was committed")
    return content


def describe(problem: Any, model: type[BaseModel]) -> str:
    """One line for one of pydantic's findings: the key, what is wrong with it, and the value that was given."""
    key = ".".join(str(part) for part in problem["loc"]) or "the file as a whole"
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(problem["loc"][-1]), keys_at(model, problem["loc"][:-1]), n=1)
        return f"{key}: no such key" + (f"; did you mean {close[0]}?" if close else "")
    if problem["type"] == "missing":
        return f"{key}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):
        return f"{key}: {message}"
    return f"{key}: {message}, not {problem['input']!r}"


def keys_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at `location` in `model`."""
    for part in location:
        if hasattr(model, "model_fields"):
            model = {field.alias or name: field.annotation for name, field in model.model_fields.items()}[part]
            if type(None) in get_args(model):  # Model | None
                model = get_args(model)[0]
        else:  # list[Model] or dict[str, Model]
            model = get_args(model)[-1]
    return [field.alias or name for name, field in model.model_fields.items()]
