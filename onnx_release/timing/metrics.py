"""Define metrics/NAME/benchmark.json."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict

from onnx_release.core.metrics import Metric, Metrics
from onnx_release.core.yaml_files import Strict


class LatencyMetrics(Strict):
    """The times of single calls; all None for a contender that failed."""

    median: Annotated[float | None, Metric("median time of a call", unit="ms", better="lower", noise="latency")]
    mean: Annotated[float | None, Metric("mean time of a call", unit="ms", better="lower", noise="latency")]
    std: Annotated[float | None, Metric("standard deviation", unit="ms", better="lower", noise="spread", news="time")]
    min: Annotated[float | None, Metric("fastest call", unit="ms", better="lower", noise="fastest", news="time")]
    max: Annotated[float | None, Metric("slowest call", unit="ms", better="lower", noise="spread", news="time")]
    p95: Annotated[
        float | None,
        Metric(
            "95th percentile; null with fewer than 200 samples", unit="ms", better="lower", noise="tail", news="time"
        ),
    ]
    p99: Annotated[
        float | None,
        Metric(
            "99th percentile; null with fewer than 1,000 samples", unit="ms", better="lower", noise="tail", news="time"
        ),
    ]


class ContenderMetrics(Strict):
    """One contender at one batch size and thread count; all None but `failure` and `samples` for one that failed."""

    failure: Annotated[str, Metric("why it could not be measured; empty if it was")]
    provider: Annotated[str | None, Metric("the provider that ran it")]
    provider_note: Annotated[str | None, Metric("what provider auto had to do without; empty if nothing")]
    samples: Annotated[int, Metric("timed calls", noise="by-product")]
    throughput_per_s: Annotated[
        float | None,
        Metric("items a second, one call after the other", unit="1/s", better="higher", noise="latency"),
    ]
    speedup_vs_eager: Annotated[
        float | None,
        Metric(
            "median over rounds of PyTorch eager's time divided by this one's",
            better="higher",
            noise="speedup",
            interval="speedup",
            news="time",
        ),
    ]
    speedup_low: Annotated[
        float | None, Metric("lower end of its 95 % interval, over starts and rounds", better="higher")
    ]
    speedup_high: Annotated[float | None, Metric("upper end of its 95 % interval", better="higher")]
    speedup_vs_compile: Annotated[
        float | None,
        Metric(
            "the same, over torch.compile", better="higher", noise="speedup", interval="speedup_vs_compile", news="time"
        ),
    ]
    speedup_vs_compile_low: Annotated[float | None, Metric("lower end of its interval", better="higher")]
    speedup_vs_compile_high: Annotated[float | None, Metric("upper end of its interval", better="higher")]
    latency_ms: LatencyMetrics
    no_difference_from: Annotated[
        str, Metric("contenders that may be as fast: the interval contains 1, or others took cores", noise="by-product")
    ]
    load_ms: Annotated[
        float | None,
        Metric("time to load the file, without imports; median over starts", unit="ms", better="lower", noise="load"),
    ]
    first_run_ms: Annotated[
        float | None,
        Metric(
            "the first call of the first start, with compilation; measured once, so not compared",
            unit="ms",
            better="lower",
            noise="by-product",
        ),
    ]
    peak_memory_mb: Annotated[
        float | None,
        Metric("peak resident memory of a process that keeps what it frees", unit="MB", better="lower", noise="memory"),
    ]


class TimedContenders(Strict):
    """Contenders that were timed together, each in a field of its name."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, ContenderMetrics]

    repeated_rounds: Annotated[
        int, Metric("rounds taken again, since other work used the cores", better="lower", noise="by-product")
    ]
    disturbed_rounds: Annotated[
        int, Metric("rounds that count although other work used the cores", better="lower", noise="by-product")
    ]

    @property
    def contenders(self) -> dict[str, ContenderMetrics]:
        """Everything that was timed, by name."""
        return self.__pydantic_extra__


class SettingMetrics(TimedContenders):
    """All contenders at another batch size or thread count."""


class PreparationMetrics(Strict):
    """The steps before the network: decoding and preprocessing a raw item."""

    decode_ms: Annotated[
        float | None, Metric("median time to decode a raw item", unit="ms", better="lower", noise="preparation")
    ]
    preprocess_ms: Annotated[
        float | None, Metric("median time to preprocess it", unit="ms", better="lower", noise="preparation")
    ]
    raw_items: Annotated[int, Metric("raw items; if there are none, the times are null")]


class BenchmarkMetrics(Metrics, TimedContenders):
    """A run of the benchmark. Its contenders are beside the other fields."""

    FILE: ClassVar[str] = "benchmark"

    machine: Annotated[str, Metric("the machine; only timings of the same one can be compared")]
    provider: Annotated[str | None, Metric("ONNX Runtime's execution provider on this machine")]
    provider_note: Annotated[str | None, Metric("why a GPU that is here is not used; empty otherwise")]
    copies: Annotated[str, Metric("whether copies to a GPU and back are included, on both sides")]
    batch: Annotated[int, Metric("items a call")]
    threads: Annotated[int, Metric("threads for every contender")]
    starts: Annotated[int, Metric("times that all contenders were started anew")]
    rounds: Annotated[int, Metric("rounds in all; every contender has a turn in each")]
    wall_s: Annotated[float, Metric("time that the benchmark took", unit="s", better="lower", noise="wall")]
    calling_s: Annotated[float, Metric("its part for the calls that are reported", unit="s", noise="by-product")]
    loading_s: Annotated[
        float, Metric("its part for loading and for first runs of first starts", unit="s", noise="by-product")
    ]
    overhead: Annotated[
        float,
        Metric(
            "the share of the rest: starting, warming up, gaps, repeated rounds", better="lower", noise="by-product"
        ),
    ]
    preparation: PreparationMetrics
    settings: dict[str, SettingMetrics]
