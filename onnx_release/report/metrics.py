"""List every metric that a stage writes; report, gates, comparison and docs read this table."""

import difflib
import functools
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.metrics import LEFT_OUT, NOT_MADE, Metric, metrics_of
from onnx_release.data.metrics import PrepareMetrics
from onnx_release.export.metrics import ExportMetrics, SlimMetrics
from onnx_release.performance.metrics import OptimizeMetrics, ProfileMetrics
from onnx_release.reduce.metrics import CalibrateMetrics, Fp16Metrics, QuantizeDynamicMetrics
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.timing.metrics import BenchmarkMetrics
from onnx_release.validate.metrics import ValidateMetrics

# In the order of the pipeline.
FILES = (
    *(PrepareMetrics, ExportMetrics, SlimMetrics, Fp16Metrics, QuantizeDynamicMetrics, CalibrateMetrics),
    *(QuantizeStaticMetrics, ValidateMetrics, BenchmarkMetrics, OptimizeMetrics, ProfileMetrics),
    SummaryMetrics,
)
ALL_METRICS = (
    *(metric for file in FILES for metric in metrics_of(file)),
    Metric("present only if the model's spec leaves the variant out", file="*", key=LEFT_OUT),
    Metric("present only if the variant could not be made: why, and what to do", file="*", key=NOT_MADE),
)


@functools.cache
def metric(file: str, key: str) -> Metric:
    """Return the metric at the dotted `key` of a model's `file`.json. Raises KeyError if the table does not have it."""
    for item in ALL_METRICS:
        if fnmatchcase(file, item.file) and fnmatchcase(key, item.key):
            return item
    raise KeyError(f"{file}: {key} is in no class of onnx_release/report/metrics.py")


def known_metric(file: str, key: str) -> Metric:
    """Return the metric from the table, or one without a direction for a key that this version does not know."""
    try:
        return metric(file, key)
    except KeyError:
        return Metric("not in the table of this version", file=file, key=key)


def nearest_names(name: str, count: int = 3) -> list[str]:
    """Return the names of the table, FILE.KEY, that are most like `name`."""
    return difflib.get_close_matches(name, [item.name for item in ALL_METRICS], n=count, cutoff=0)


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and the values of nested metrics."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
