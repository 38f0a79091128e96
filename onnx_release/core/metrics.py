"""Declare the files below metrics/NAME/: a class for each file, with a field for each metric.

The classes are in the rooms that write the files. A field is declared as

    nodes: Annotated[int, Metric("nodes in the graph", better="lower")]

and report, gates, comparison and docs read its unit, direction and noise (onnx_release/report/metrics.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from onnx_release.core.errors import DataError
from onnx_release.core.files import read_json, write_json
from onnx_release.core.paths import METRICS
from onnx_release.core.yaml_files import Strict, validate_made

Better = Literal["lower", "higher", "neither"]
# Why a metric differs between two runs of the same code. "": it does not differ. "decision": it is chosen by timings.
# "by-product": it depends on how the measurement went, or other metrics say the same; it is not compared. "latency": it
# is not compared either, since the speed-up, which is measured in pairs, found 18 of 20 slowdowns by half and latencies
# none or one. The others are kinds of timings, and onnx_release/review/noise.py has an allowance for each.
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
# The only key of a file whose variant the model's spec leaves out, and of one whose variant could not be made: why.
LEFT_OUT = "left_out"
NOT_MADE = "not_made"


@dataclass(frozen=True)
class Metric:
    """The meaning of a metric, and how it is compared.

    A metric with an `interval` has the ends in two metrics beside it, under that name with _low and _high. `column` is
    the column of plots/validate/VARIANT.csv that the metric is the mean of; "drop" is torch_right less
    variant_right. `news` is the topic of the metric: a comment shows only the first metric in the table with the same
    topic. `file` is the metrics file without .json and `key` the dotted path in it; a * stands for any name.
    `metrics_of` fills these two in.
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
        """Return FILE.KEY, the name in comparisons and gates."""
        return f"{self.file}.{self.key}"

    @property
    def is_compared(self) -> bool:
        """Whether a comparison of two revisions has a row for it."""
        return not self.is_end and self.noise not in ("by-product", "latency")

    @property
    def is_end(self) -> bool:
        """Return whether it is an end of another metric's interval."""
        return self.key.endswith(("_low", "_high"))


class Metrics(Strict):
    """The base of the classes for one file of each model: `FILE` is its name below metrics/NAME/, * for a variant's."""

    FILE: ClassVar[str]

    @classmethod
    def path(cls, model: str, variant: str = "") -> Path:
        """Return the path of the model's file, relative to the repository root."""
        return METRICS / model / f"{cls.FILE.replace('*', variant)}.json"

    @classmethod
    def read(cls, model: str, variant: str = "") -> Self:
        """Read the file. Raises DataError if it is missing or damaged, has other fields, or is of no variant."""
        found = cls.read_if_made(model, variant)
        if found is None:
            raise DataError(
                f"{cls.path(model, variant)} has no metrics: the variant could not be made, or the model's spec.yaml "
                "leaves it out"
            )
        return found

    @classmethod
    def read_if_made(cls, model: str, variant: str = "") -> Self | None:
        """Do the same, but return None if the model's spec leaves the variant out, or it could not be made."""
        path = cls.path(model, variant)
        content = read_json(path)
        absent = content == {LEFT_OUT: True} or (isinstance(content, dict) and content.keys() == {NOT_MADE})
        return None if absent else cls.parse(content, path.as_posix())

    @classmethod
    def parse(cls, content: Any, source: str) -> Self:
        """Read the metrics from the content of `source`, a path or a revision. Raises DataError for other fields."""
        return validate_made(source, content, cls)

    def write(self, model: str, variant: str = "") -> None:
        """Write the model's file, whole or not at all, without the fields that were not given."""
        write_json(self.path(model, variant), self.content())

    def content(self) -> dict[str, Any]:
        """Return the content of the file, with floats as they are."""
        return self.model_dump(exclude_unset=True)


def metrics_of(file: type[Metrics]) -> list[Metric]:
    """Return every metric of a file, in the order of its fields."""
    return [replace(metric, file=file.FILE, key=key) for key, metric in walk_fields(file)]


def walk_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Metric]]:
    """Yield the dotted key of every metric with its meaning; a * stands for the names of a dict, and for free names.

    A part of the file has the free names of the file itself, whose * stands for a name with dots as well.
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
