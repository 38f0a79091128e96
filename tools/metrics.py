"""Show the metrics of a model, or one metric of all models side by side.

    python -m tools.metrics --model minilm                        # all of one model
    python -m tools.metrics --metric summary.speedup_vs_eager     # one of every model on the list
    python -m tools.metrics --metric 'validate/*.sqnr_db'         # * stands for any name

Without arguments it shows the first model. A metric is FILE.KEY, for a file below metrics/NAME/.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from onnx_release.core.command import run_tool
from onnx_release.core.errors import DataError, ParameterError
from onnx_release.core.files import read_json
from onnx_release.core.model_list import load_models
from onnx_release.core.paths import ModelFiles
from onnx_release.core.plain_text import align_columns
from onnx_release.report.metrics import ALL_METRICS, flatten, known_metric, nearest_names
from onnx_release.report.text import number
from tools.models import add_model_option, chosen_model

# The name of a metric, as file and key.
Name = tuple[str, str]


def main(arguments: argparse.Namespace) -> None:
    one = arguments.model is not None or arguments.metric is None
    models = [chosen_model(arguments.model).model] if one else load_models()
    found = {model: dict(read_metrics(model)) for model in models}
    without = [model for model, metrics in found.items() if not metrics]
    if arguments.metric is not None:
        found = {model: matching(metrics, arguments.metric) for model, metrics in found.items()}
    for model in without:
        print(f"note: {model} has no metrics yet: run `make repro MODEL={model}`", file=sys.stderr)
    if not any(found.values()):
        refuse(arguments.metric, [model for model in models if model not in without])
    print(align_columns(table(found)))


def read_metrics(model: str) -> Iterator[tuple[Name, Any]]:
    """Yield the name and the value of each metric of a model; none for a model that has not run."""
    folder = ModelFiles(model).metrics
    for path in sorted(folder.rglob("*.json")):
        file = path.relative_to(folder).with_suffix("").as_posix()
        for key, value in flatten(read_json(path)):
            yield (file, key), value


def matching(metrics: Mapping[Name, Any], pattern: str) -> dict[Name, Any]:
    """Return the metrics whose name is the pattern, in which * stands for any characters."""
    return {name: value for name, value in metrics.items() if fnmatchcase(".".join(name), pattern)}


def refuse(pattern: str | None, models: Sequence[str]) -> None:
    """Raise DataError if no model has run or has the metric, and ParameterError if there is no such metric at all."""
    if pattern is not None and not is_known(pattern):
        raise ParameterError(f"no metric is called {pattern}; the nearest are {', '.join(nearest_names(pattern))}")
    if pattern is None or not models:
        raise DataError("there are no metrics to show")
    has = "has" if len(models) == 1 else "have"
    raise DataError(f"{', '.join(models)} {has} no {pattern}, which other models may have")


def is_known(pattern: str) -> bool:
    """Return whether the table has a metric of this name; both may have a * in them."""
    return any(fnmatchcase(pattern, row.name) or fnmatchcase(row.name, pattern) for row in ALL_METRICS)


def table(found: Mapping[str, Mapping[Name, Any]]) -> list[list[str]]:
    """Return the lines of the table: name, unit, and a column for each model."""
    names = dict.fromkeys(name for metrics in found.values() for name in metrics)
    lines = [["metric", "unit", *found]]
    for name in names:
        values = [written(metrics[name]) if name in metrics else "" for metrics in found.values()]
        lines.append([".".join(name), known_metric(*name).unit, *values])
    return lines


def written(value: Any) -> str:
    """Write a value as a person reads it; null is a metric that was not measured or that the model does not have."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "yes", False: "no"}[value]
    return number(value, 6) if isinstance(value, int | float) else " ".join(str(value).split())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    parser.add_argument("--metric", metavar="FILE.KEY", help="only metrics of this name, of all models without --model")
    run_tool(main, parser)
