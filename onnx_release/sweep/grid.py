"""Read a grid file, which says what a sweep varies, and check every key and combination before anything runs."""

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from onnx_release.core.errors import SweepError
from onnx_release.core.model_list import load_models
from onnx_release.core.params import ParamsAndGates, merge_params
from onnx_release.core.paths import MODEL_LIST, PARAMS, ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.core.yaml_files import Strict, describe_problems, load_yaml, read_yaml
from onnx_release.report.metrics import metric

# Each experiment takes seconds at best, and all are planned before the first runs.
MOST_EXPERIMENTS = 10_000
# In an objective, this stands for the variant that the experiment would release.
RELEASED = "released"
# The metrics files of the stages from the benchmark on.
TIMED_METRICS = ("benchmark", "optimize", "profile", "summary")
# Exactness and speed; if nothing is timed, exactness and size.
TIMED_OBJECTIVES = [f"validate/{RELEASED}:sqnr_db", f"benchmark:{RELEASED}.speedup_vs_eager"]
UNTIMED_OBJECTIVES = ["validate/int8_static:sqnr_db", "quantize_static:size_mb"]


class Grid(Strict):
    """The content of a grid file.

    The sweep runs for each of `models`, by default for the first of models.yaml. `set` applies to every experiment.
    `grid` is a list of mappings, each of which stands for all of its combinations. A key is a dotted name in
    params.yaml, whose value becomes the model's own, or FILE:NAME in its spec.yaml. Without `timing`, no stage from the
    benchmark on runs. `objectives` are FILE:KEY of metrics/NAME/FILE.json, and span the Pareto front of each model.
    """

    models: list[str] = Field(default_factory=lambda: load_models()[:1])
    set: dict[str, Any] = Field(default_factory=dict)
    grid: list[dict[str, list[Any]]]
    timing: bool = True
    objectives: list[str] = Field(default_factory=list)

    @field_validator("grid", mode="before")
    @classmethod
    def one_mapping_is_a_union_of_one(cls, grid: Any) -> Any:
        return [grid] if isinstance(grid, dict) else grid

    @field_validator("models")
    @classmethod
    def listed_models(cls, models: list[str]) -> list[str]:
        if not models:
            raise ValueError(f"it names no model: name one, or leave the key out for the first of {MODEL_LIST}")
        listed = load_models()
        for position, model in enumerate(models):
            if model not in listed:
                raise ValueError(f"{MODEL_LIST} does not list {model}, but {', '.join(listed)}")
            if model in models[:position]:
                raise ValueError(f"it names {model} twice")
        return models

    @model_validator(mode="after")
    def no_key_for_the_model(self) -> "Grid":
        for key in (*self.set, *keys_of(self)):
            if key == "model":
                raise ValueError(
                    "model is no parameter now: write `models: [NAME]` beside `grid`, and each of these models is swept"
                )
        return self

    @model_validator(mode="after")
    def every_combination_once(self) -> "Grid":
        if not self.grid or not all(self.grid):
            raise ValueError("grid varies nothing: give it at least one key with its values")
        experiments = sum(math.prod(len(values) for values in mapping.values()) for mapping in self.grid)
        if experiments > MOST_EXPERIMENTS:
            raise ValueError(
                f"grid has {experiments:,} combinations, and {MOST_EXPERIMENTS:,} is the most: take values out"
            )
        for mapping in self.grid:
            for key, values in mapping.items():
                if key in self.set:
                    raise ValueError(f"{key} is in both set and grid: leave it in one of them")
                if not values:
                    raise ValueError(f"grid.{key} has no values")
                for position, value in enumerate(values):
                    if isinstance(value, dict):
                        raise ValueError(f"grid.{key}: a value is a mapping; name its keys with dots instead")
                    if any(same_value(value, other) for other in values[:position]):
                        raise ValueError(f"grid.{key} has the value {value!r} twice")
        for key, value in self.set.items():
            if isinstance(value, dict):
                raise ValueError(f"set.{key}: the value is a mapping; name its keys with dots instead")
        return self

    @model_validator(mode="after")
    def objectives_have_a_direction(self) -> "Grid":
        if not self.objectives:
            self.objectives.extend(TIMED_OBJECTIVES if self.timing else UNTIMED_OBJECTIVES)
        for objective in self.objectives:
            file, _, key = objective.partition(":")
            try:
                better = metric(file, key).better
            except KeyError as cause:
                raise ValueError(
                    f"{objective} is not a metric: write FILE:KEY of one in onnx_release/report/metrics.py"
                ) from cause
            if better == "neither":
                raise ValueError(f"{objective} is neither better higher nor lower: choose another objective")
            if not self.timing and (file in TIMED_METRICS or RELEASED in objective):
                raise ValueError(f"{objective} depends on timings, and this sweep has timing: false: take it out")
        return self


def same_value(first: Any, second: Any) -> bool:
    """Return whether two values of YAML are the same: 1 and 1.0 are, 1 and true are not."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def load_grid(path: Path) -> Grid:
    """Read a grid file, and check every combination with the parameters and the spec of each of its models.

    Raises SweepError, which names each key and value that is wrong.
    """
    grid = read_yaml(path, Grid, SweepError)
    problems = list(wrong_files(grid))
    if not problems:
        problems = list(dict.fromkeys(line for model in grid.models for line in wrong_values(grid, model)))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise SweepError(f"{path} has values that cannot run:\n{lines}")
    return grid


def swept_keys(grid: Grid) -> list[str]:
    """Return the keys that have more than one value in the sweep of a model, in the order of the file."""
    sweeps = [combinations(grid, model) for model in grid.models]
    return [key for key in keys_of(grid) if any(varies(key, rows) for rows in sweeps)]


def varies(key: str, rows: Iterable[Mapping[str, Any]]) -> bool:
    first, *others = (row[key] for row in rows)
    return any(not same_value(value, first) for value in others)


def combinations(grid: Grid, model: str) -> list[dict[str, Any]]:
    """Return the parameters of every experiment with a model, in the order of the file, and each combination once.

    All have the same keys: a key that only another mapping varies has the model's own value, or its default.
    """
    files = ModelFiles(model)
    now = {PARAMS: merge_params(files).model_dump(by_alias=True)}
    if files.spec in files_of(grid):
        now[files.spec] = read_yaml(files.spec, Spec, SweepError).model_dump(by_alias=True)
    rows: list[dict[str, Any]] = []
    for mapping in grid.grid:
        for values in itertools.product(*mapping.values()):
            row = {**grid.set, **{key: value_at(now, key) for key in keys_of(grid)}}
            row |= dict(zip(mapping, values, strict=True))
            if not any(all(same_value(row[key], other[key]) for key in row) for other in rows):
                rows.append(row)
    return rows


def keys_of(grid: Grid) -> list[str]:
    return list(dict.fromkeys(key for mapping in grid.grid for key in mapping))


def files_of(grid: Grid) -> list[Path]:
    return list(dict.fromkeys(split_key(key)[0] for key in (*grid.set, *keys_of(grid))))


def split_key(key: str) -> tuple[Path, list[str]]:
    """Return the file of a key, and its path in that file. A key of PARAMS is set in the model's own file."""
    file, _, name = key.rpartition(":")
    return Path(file or PARAMS), name.split(".")


def wrong_files(grid: Grid) -> Iterator[str]:
    """Yield a line for each file that is not the spec of the one model of the grid."""
    specs = [ModelFiles(model).spec for model in grid.models]
    for file in files_of(grid):
        if file == PARAMS:
            continue
        if file not in specs:
            known = ", ".join(spec.as_posix() for spec in specs)
            yield f"{file}: has no keys for this grid; {PARAMS} has them (without a file's name), and {known}"
        elif len(specs) > 1:
            yield f"{file}: is of one model, and the grid is for {', '.join(grid.models)}: give that model its own grid"


def value_at(contents: Mapping[Path, Any], key: str) -> Any:
    """Return the value without the sweep; None for a key that does not exist, which the check then names."""
    file, names = split_key(key)
    value = contents[file]
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def wrong_values(grid: Grid, model: str) -> Iterator[str]:
    """Yield a line for each value that the parameters of this model, or its spec, refuse."""
    files = ModelFiles(model)
    checks: dict[Path, tuple[Path, Any, type[Strict]]] = {
        PARAMS: (files.overrides, merge_params(files).model_dump(by_alias=True), ParamsAndGates),
        files.spec: (files.spec, load_yaml(files.spec, SweepError), Spec),
    }
    for params in combinations(grid, model):
        for of_keys in files_of(grid):
            file, content, kind = checks[of_keys]
            changed = copy.deepcopy(content)
            for key, value in params.items():
                if split_key(key)[0] == of_keys:
                    set_value(changed, split_key(key)[1], value)
            try:
                kind.model_validate(changed)
            except ValidationError as error:
                for problem in describe_problems(error, kind):
                    yield f"{file}: {problem}"


def set_value(content: dict[str, Any], names: list[str], value: Any) -> None:
    """Set the value at this path, and make missing sections."""
    *sections, last = names
    for name in sections:
        if not isinstance(content.get(name), dict):
            content[name] = {}  # replaces a plain value, too: the check then refuses the type
        content = content[name]
    content[last] = value
