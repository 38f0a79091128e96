"""Count inferences, and where their time goes, for the statistics of Triton's protocol.

The counters are Prometheus', so that those of several worker processes add up. An upload of /predict is one inference,
as is a request to /infer. https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.record import Item, RequestRecord

INFERENCES = Counter("serving_inferences_total", "Inferences asked for", ["outcome"])
SECONDS = Counter("serving_inference_seconds_total", "Time from a request's head to its answer", ["outcome"])
STAGES = Counter("serving_inference_stage_seconds_total", "Time of the inferences that succeeded", ["stage"])
ROWS = Counter("serving_inference_rows_total", "Rows of the inferences that succeeded")
CALLS = Counter("serving_executions_total", "Calls of the model", ["rows"])
CALL_SECONDS = Counter("serving_execution_seconds_total", "Time in the model", ["rows"])
LAST = Gauge("serving_last_inference_timestamp_seconds", "When the last request ended", multiprocess_mode="max")


@contextmanager
def counted(record: RequestRecord) -> Iterator[None]:
    """Count the inferences of a request; they have failed, all of them, if the block raises."""
    outcome = "fail"
    try:
        yield
        outcome = "success"
        for item in record.items:
            count_success(item)
    finally:
        number = max(len(record.items), 1)  # a request that is refused early is one
        INFERENCES.labels(outcome).inc(number)
        SECONDS.labels(outcome).inc(number * (time.perf_counter() - record.start))
        LAST.set(time.time())


def count_success(item: Item) -> None:
    """Count an item that was answered: its rows, and the seconds of each stage, which the protocol names."""
    ROWS.inc(item.rows)
    STAGES.labels("queue").inc(item.waited)
    STAGES.labels("compute_input").inc(item.prepared - item.began)
    STAGES.labels("compute_infer").inc(item.run)
    STAGES.labels("compute_output").inc(item.finished - item.finish_began)


def observe_call(rows: int, seconds: float) -> None:
    """Count a call of the model."""
    CALLS.labels(rows).inc()
    CALL_SECONDS.labels(rows).inc(seconds)


class Counts:
    """The counters in a registry, which may have those of all worker processes, at one time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.samples: dict[tuple[str, str], float] = {}
        for family in registry.collect():
            if family.name.startswith("serving_"):
                self.samples |= {
                    (sample.name, ",".join(sample.labels.values())): sample.value for sample in family.samples
                }

    def of(self, metric: Counter | Gauge, label: str = "") -> float:
        """Return a counter's value; 0 if it has not been counted yet."""
        return self.samples.get((sample_name(metric), label), 0.0)

    def by_label(self, metric: Counter) -> Mapping[str, float]:
        return {label: value for (name, label), value in self.samples.items() if name == sample_name(metric)}


def sample_name(metric: Counter | Gauge) -> str:
    (family,) = metric.describe()
    return f"{family.name}_total" if family.type == "counter" else family.name
