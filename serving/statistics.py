"""Count inferences, and where their time goes, for the statistics of Triton's protocol.

The counters are Prometheus', so that those of several worker processes add up. An upload of /predict is one inference,
as is a request to /infer. https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.multiprocess import MultiProcessCollector

from onnx_release.core.types import Arrays

INFERENCES = Counter("serving_inferences_total", "Inferences asked for", ["outcome"])
SECONDS = Counter("serving_inference_seconds_total", "Time from a request's head to its answer", ["outcome"])
STAGES = Counter("serving_inference_stage_seconds_total", "Time of the inferences that succeeded", ["stage"])
ROWS = Counter("serving_inference_rows_total", "Rows of the inferences that succeeded")
CALLS = Counter("serving_executions_total", "Calls of the model", ["rows"])
CALL_SECONDS = Counter("serving_execution_seconds_total", "Time in the model", ["rows"])
LAST = Gauge("serving_last_inference_timestamp_seconds", "When the last request ended", multiprocess_mode="max")

Prepare = Callable[[], Arrays]
Finish = Callable[[Arrays], Any]


class Call(Protocol):
    """What of an engine's Job is counted: when its call of the model began, how long it took, and the job's rows."""

    started: float
    milliseconds: float

    @property
    def rows(self) -> int: ...


@dataclass(eq=False)
class Inference:
    """The times of one inference, of time.perf_counter(): it is queued, prepared, run by the model and finished."""

    prepare: Prepare
    finish: Finish
    queued: float
    began: float = 0.0
    prepared: float = 0.0
    finish_began: float = 0.0
    finished: float = 0.0

    def timed_prepare(self) -> Arrays:
        self.began = time.perf_counter()
        inputs = self.prepare()
        self.prepared = time.perf_counter()
        return inputs

    def timed_finish(self, outputs: Arrays) -> Any:
        self.finish_began = time.perf_counter()
        value = self.finish(outputs)
        self.finished = time.perf_counter()
        return value

    def stages(self, call: Call) -> dict[str, float]:
        """Return the seconds of each stage, which the protocol names."""
        return {
            "queue": self.began - self.queued + max(0.0, call.started - self.prepared),
            "compute_input": self.prepared - self.began,
            "compute_infer": call.milliseconds / 1e3,
            "compute_output": self.finished - self.finish_began,
        }


class Counted:
    """The inferences of one request, each with the two functions that the engine is to call in place of its own."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.inferences: list[Inference] = []

    def timed(self, prepare: Prepare, finish: Finish) -> tuple[Prepare, Finish]:
        inference = Inference(prepare, finish, time.perf_counter())
        self.inferences.append(inference)
        return inference.timed_prepare, inference.timed_finish

    def ran(self, calls: Iterable[Call]) -> None:
        """Count the inferences as successful, with the calls of the model that ran them, in their order."""
        for inference, call in zip(self.inferences, calls, strict=True):
            ROWS.inc(call.rows)
            for stage, seconds in inference.stages(call).items():
                STAGES.labels(stage).inc(seconds)


@contextmanager
def counted() -> Iterator[Counted]:
    """Count the inferences of a request; they have failed, all of them, if the block raises."""
    counts = Counted()
    outcome = "fail"
    try:
        yield counts
        outcome = "success"
    finally:
        number = max(len(counts.inferences), 1)  # a request that is refused early is one
        INFERENCES.labels(outcome).inc(number)
        SECONDS.labels(outcome).inc(number * (time.perf_counter() - counts.start))
        LAST.set(time.time())


def observe_call(rows: int, seconds: float) -> None:
    """Count a call of the model."""
    CALLS.labels(rows).inc()
    CALL_SECONDS.labels(rows).inc(seconds)


class Counts:
    """The counters of all worker processes at one time."""

    def __init__(self) -> None:
        registry = REGISTRY
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
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
