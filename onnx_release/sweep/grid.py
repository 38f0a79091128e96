"""Read a grid file, which says what a sweep varies, and check every key and combination before anything runs."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from onnx_release.core.errors import SweepError
from onnx_release.core.params import Params
from onnx_release.core.paths import MODELS, PARAMS
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

    `set` applies to every experiment. `grid` is a list of mappings, each of which stands for all of its combinations.
    Keys are dotted names in params.yaml, or FILE:NAME in a model's spec.yaml. Without `timing`, no stage from the
    benchmark on runs. `objectives` are FILE:KEY of metrics/FILE.json, and span the Pareto front.
    """

    set: dict[str, Any] = Field(default_factory=dict)
    grid: list[dict[str, list[Any]]]
    timing: bool = True
    objectives: list[str] = Field(default_factory=list)

    @field_validator("grid", mode="before")
    @classmethod
    def one_mapping_is_a_union_of_one(cls, grid: Any) -> Any:
        return [grid] if isinstance(grid, dict) else grid

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
    """Read a grid file, and check every combination with params.yaml and the models' specs in this folder.

    Raises SweepError, which names each key and value that is wrong.
    """
    grid = read_yaml(path, Grid, SweepError)
    problems = list(wrong_files(grid))
    if not problems:
        contents = {file: load_yaml(file, SweepError) for file in files_of(grid)}
        problems = list(dict.fromkeys(line for params in combinations(grid) for line in wrong_values(contents, params)))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise SweepError(f"{path} has values that cannot run:\n{lines}")
    return grid


def swept_keys(grid: Grid) -> list[str]:
    """Return the keys that have more than one value in the sweep, in the order of the file."""
    rows = combinations(grid)
    return [key for key in keys_of(grid) if any(not same_value(row[key], rows[0][key]) for row in rows)]


def combinations(grid: Grid) -> list[dict[str, Any]]:
    """Return the parameters of every experiment, in the order of the file, and each combination once.

    All have the same keys: a key that only another mapping varies has its value of params.yaml or the spec.
    """
    models = {
        file: model_class(file).model_validate(load_yaml(file, SweepError)).model_dump(by_alias=True)
        for file in files_of(grid)
    }
    rows: list[dict[str, Any]] = []
    for mapping in grid.grid:
        for values in itertools.product(*mapping.values()):
            row = {**grid.set, **{key: value_at(models, key) for key in keys_of(grid)}}
            row |= dict(zip(mapping, values, strict=True))
            if not any(all(same_value(row[key], other[key]) for key in row) for other in rows):
                rows.append(row)
    return rows


def keys_of(grid: Grid) -> list[str]:
    return list(dict.fromkeys(key for mapping in grid.grid for key in mapping))


def files_of(grid: Grid) -> list[Path]:
    return list(dict.fromkeys([PARAMS, *(split_key(key)[0] for key in (*grid.set, *keys_of(grid)))]))


def split_key(key: str) -> tuple[Path, list[str]]:
    """Return the file of a key, and its path in that file."""
    file, _, name = key.rpartition(":")
    return Path(file) if file else PARAMS, name.split(".")


def model_class(file: Path) -> type[Params] | type[Spec]:
    return Params if file == PARAMS else Spec


def wrong_files(grid: Grid) -> Iterator[str]:
    specs = sorted(MODELS.glob("*/spec.yaml"))
    for file in files_of(grid):
        if file not in (PARAMS, *specs):
            known = ", ".join(spec.as_posix() for spec in specs)
            yield f"{file}: has no parameters; {PARAMS} has them (without a file's name), and {known}"
        else:
            read_yaml(file, model_class(file), SweepError)


def value_at(models: Mapping[Path, Any], key: str) -> Any:
    """Return the value without the sweep; None for a key that does not exist, which the check then names."""
    file, names = split_key(key)
    value = models[file]
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def wrong_values(contents: Mapping[Path, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each of these values that params.yaml or a spec refuses."""
    for file, content in contents.items():
        changed = copy.deepcopy(content)
        for key, value in params.items():
            if split_key(key)[0] == file:
                set_value(changed, split_key(key)[1], value)
        try:
            model_class(file).model_validate(changed)
        except ValidationError as error:
            for problem in describe_problems(error, model_class(file)):
                yield f"{file}: {problem}"
    model = params.get("model")
    if isinstance(model, str) and not (MODELS / model / "spec.yaml").is_file():
        known = ", ".join(sorted(path.parent.name for path in MODELS.glob("*/spec.yaml")))
        yield f"{PARAMS}: there is no model called {model}: {MODELS}/ has {known}"


def set_value(content: dict[str, Any], names: list[str], value: Any) -> None:
    """Set the value at this path, and make missing sections."""
    *sections, last = names
    for name in sections:
        if not isinstance(content.get(name), dict):
            content[name] = {}  # replaces a plain value, too: the check then refuses the type
        content = content[name]
    content[last] = value
