"""Variants with the metrics of a validation and of a benchmark, for tests of what reads them."""

from typing import Any

from onnx_release.choice.choice import Candidate
from onnx_release.timing.metrics import ContenderMetrics
from onnx_release.validate.metrics import ValidateMetrics
from tests.validated import validated

LATENCIES = ("mean", "std", "min", "max", "p95", "p99")


def timing(median: float | None, **fields: Any) -> ContenderMetrics:
    """The metrics of a contender with this median in ms, and with what `fields` say; None for one that failed."""
    figures = dict.fromkeys(ContenderMetrics.model_fields)
    texts = {"failure": "" if median is not None else "it hangs", "no_difference_from": "", "samples": 100}
    latency = {"median": median, **dict.fromkeys(LATENCIES, median)}
    return ContenderMetrics.model_validate({**figures, **texts, "latency_ms": latency, **fields})


def candidate(
    name: str, median: float | None, no_difference_from: str = "", speeds: Any = None, **fields: Any
) -> Candidate:
    """A variant with this median in ms, whose validation is that of a task without answers but for `fields`."""
    found = ValidateMetrics.model_validate({**validated("tensor"), **fields})
    return Candidate(name, found, timing(median, no_difference_from=no_difference_from, **(speeds or {})))
