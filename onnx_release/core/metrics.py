"""What the files below metrics/ hold, said once: a class for each file, and at each field what the figure means.

The classes stand in the rooms that write them. A field is declared as

    nodes: Annotated[int, Metric("nodes in the graph", better="lower")]

and report, gates, comparison and docs read unit, direction and noise from there (onnx_release/report/metrics.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from onnx_release.core.errors import DataError
from onnx_release.core.files import read_json, write_json
from onnx_release.core.paths import METRICS
from onnx_release.core.yaml_files import Strict, describe

Better = Literal["lower", "higher", "neither"]
# What moves a metric when only the measuring is repeated. "" is for values that are the same each time; "decision", for
# choices that are made by timings; "by-product", for how the measuring went, and for what other metrics say as well.
# "latency" is not compared with another run either: the speed-up, which is measured in pairs, found 18 of 20 slowdowns
# by half, and latencies none or one. The others are kinds of timings with an allowance in onnx_release/review/noise.py.
Noise = Literal[
    "",
    "latency",
    "speedup",
    "fastest",
    "tail",
    "spread",
    "load",
    "memory",
    "preparation",
    "profile",
    "wall",
    "decision",
    "by-product",
]
# What a file holds, and nothing else, where the model's spec leaves its variant out.
LEFT_OUT = "left_out"


@dataclass(frozen=True)
class Metric:
    """What a figure means, and how it is compared.

    A figure with an `interval` has its ends beside it, under that name with _low and _high. `column` is the column of
    metrics/plots/validate/VARIANT.csv whose mean over the samples it is; "drop" is torch_right less variant_right.
    `news` is what the figure tells of its variant: of those with the same news, a comment shows the first in the table.
    `file` is the metrics file without .json and `key` the dotted path in it; a * stands for any name. `metrics_of`
    fills these two in.
    """

    meaning: str
    unit: str = ""
    better: Better = "neither"
    noise: Noise = ""
    interval: str = ""
    column: str = ""
    news: str = ""
    file: str = ""
    key: str = ""

    @property
    def name(self) -> str:
        """FILE.KEY, as comparison and gates call it."""
        return f"{self.file}.{self.key}"

    @property
    def is_compared(self) -> bool:
        """Whether a comparison of two revisions has a row for it."""
        return not self.is_end and self.noise not in ("by-product", "latency")

    @property
    def is_end(self) -> bool:
        """Whether it is an end of another figure's interval."""
        return self.key.endswith(("_low", "_high"))


class Metrics(Strict):
    """The base of the classes that are a file each: `FILE` is its name below metrics/, with a * for the variant's."""

    FILE: ClassVar[str]

    @classmethod
    def path(cls, variant: str = "") -> Path:
        """Where the file lies, relative to the repository root."""
        return METRICS / f"{cls.FILE.replace('*', variant)}.json"

    @classmethod
    def read(cls, variant: str = "") -> Self:
        """What is in the file. Raises DataError if it is missing, damaged, left out, or has other fields."""
        found = cls.read_if_made(variant)
        if found is None:
            raise DataError(f"{cls.path(variant)} has no figures: the model's spec.yaml leaves the variant out")
        return found

    @classmethod
    def read_if_made(cls, variant: str = "") -> Self | None:
        """The same, but None where the model's spec leaves the variant out."""
        path = cls.path(variant)
        content = read_json(path)
        return None if content == {LEFT_OUT: True} else cls.parse(content, path.as_posix())

    @classmethod
    def parse(cls, content: Any, source: str) -> Self:
        """The metrics in what `source`, a path or a revision, has. Raises DataError if it has other fields."""
        try:
            return cls.model_validate(content)
        except ValidationError as cause:
            problems = "; ".join(describe(problem, cls) for problem in cause.errors())
            raise DataError(f"{source} is of another version of the stages ({problems}): run `make repro`") from cause

    def write(self, variant: str = "") -> None:
        """Write the file, whole or not at all; fields that were not given are left out of it."""
        write_json(self.path(variant), self.content())

    def content(self) -> dict[str, Any]:
        """What the file has, with floats as they are."""
        return self.model_dump(exclude_unset=True)


def metrics_of(file: type[Metrics]) -> list[Metric]:
    """Every figure of a file, in the order of its fields."""
    return [replace(metric, file=file.FILE, key=key) for key, metric in walk_fields(file)]


def walk_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Metric]]:
    """The dotted key of every figure with what it means; a * for the names of a dict, and for free names.

    Free names within a part of the file are those of the file itself, whose * stands for a name with dots as well.
    """
    for name, field in model.model_fields.items():
        metric = next((item for item in field.metadata if isinstance(item, Metric)), None)
        if metric is not None:
            yield f"{prefix}{name}.*" if get_origin(field.annotation) is dict else f"{prefix}{name}", metric
        else:
            part: Any = get_args(field.annotation)[-1] if get_args(field.annotation) else field.annotation
            yield from walk_fields(part, f"{prefix}{name}.*." if get_args(field.annotation) else f"{prefix}{name}.")
    if model.model_config.get("extra") == "allow" and not prefix:
        free: type[BaseModel] = get_args(get_type_hints(model)["__pydantic_extra__"])[-1]
        yield from walk_fields(free, "*.")
