"""Read a YAML file into a pydantic model, with error messages that name the key."""

import copy
import difflib
import functools
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from onnx_release.core.errors import DataError, ReleaseError
from onnx_release.core.files import refuse_conflict


class Strict(BaseModel):
    """A model that refuses unknown keys, coerces nothing ("18" is not an integer), and cannot be changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Model = TypeVar("Model", bound=Strict)


def read_yaml(path: Path, model: type[Model], error: type[ReleaseError], text: str | None = None) -> Model:
    """Read `path`, or `text` as if it were in there, as `model`. Raises `error` with a line for every wrong key."""
    return validate_yaml(path, load_yaml(path, error, text), model, error)


def validate_yaml(path: Path, content: Any, model: type[Model], error: type[ReleaseError]) -> Model:
    """Return the content of `path` as `model`. Raises `error` with a line for every wrong key."""
    try:
        return model.model_validate(content)
    except ValidationError as cause:
        problems = "".join(f"\n  {problem}" for problem in describe_problems(cause, model))
        raise error(f"{path} has wrong values:{problems}") from cause


def validate_made(source: str, content: Any, model: type[Model], name: str = "NAME") -> Model:
    """Return the content of `source`, which a stage has written, as `model`.

    Raises DataError if another version of the stages has written it; `name` is the network's, in the command to run.
    """
    try:
        return model.model_validate(content)
    except ValidationError as cause:
        problems = "; ".join(describe_problems(cause, model))
        raise DataError(
            f"{source} is of another version of the stages ({problems}): run `make repro MODEL={name}`"
        ) from cause


def load_yaml(path: Path, error: type[ReleaseError], text: str | None = None, if_empty: str = "") -> Any:
    """Read a YAML file, or `text` in its place. Raises `error` if it is missing, empty, not valid, or in conflict.

    `if_empty` is what may be done about an empty file, other than to bring the committed one back.
    """
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
        refuse_conflict(path, text, error)
        content = parse_yaml(text)
    except FileNotFoundError as cause:
        raise error(f"{path} is not there: run this from the repository root, or write the file") from cause
    except (YAMLError, ValueError) as cause:  # ValueError: not UTF-8, or an impossible date
        what = str(cause).partition("\nTo suppress")[0].strip()  # the rest is for programmers
        remedy = f"fix it, or run `git restore {path}` for the committed version"
        raise error(f"{path} is not valid YAML: {what}\n{remedy}") from cause
    if content is None:
        raise error(f"{path} is empty: {if_empty}run `git restore {path}` for the committed version")
    return content


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML document. Raises YAMLError or ValueError if it is none."""
    return copy.deepcopy(parse_once(text))


@functools.lru_cache(maxsize=64)
def parse_once(text: str) -> Any:
    """Do what `parse_yaml` says, once for each text: a process reads the same files often, which takes milliseconds."""
    # DVC reads it with the same library and YAML version: 1e-4 is a number to both. The parser in C would refuse a
    # colon within a word of a list, as in [validate/fp32:sqnr_db].
    return YAML(typ="safe", pure=True).load(text)


def describe_problems(cause: ValidationError, model: type[BaseModel]) -> list[str]:
    """Describe each of pydantic's findings in a line: the key, what is wrong with it, and the value that was given."""
    return [describe_problem(problem, model) for problem in cause.errors()]


def describe_problem(problem: Any, model: type[BaseModel]) -> str:
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
    """Return the keys that `model` allows at `location`."""
    for part in location:
        if hasattr(model, "model_fields"):
            model = {field.alias or name: field.annotation for name, field in model.model_fields.items()}[part]
            if type(None) in get_args(model):  # Model | None
                model = get_args(model)[0]
        else:  # list[Model] or dict[str, Model]
            model = get_args(model)[-1]
    return [field.alias or name for name, field in model.model_fields.items()]
