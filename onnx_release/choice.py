"""Which variant goes into the release: of those that passed, the most exact of the fastest."""

from collections.abc import Mapping
from typing import Any

from onnx_release.budget import signal
from onnx_release.variants import SHIPPABLE

# What is tuned, optimised and profiled while no variant may be released.
FALLBACK = "fp32"


def choose(validations: Mapping[str, dict[str, Any]], benchmark: Mapping[str, Any]) -> str | None:
    """The fastest by its median of the variants that may ship, passed and could be timed; None if there is none.

    Where no difference sets others apart from it, the one with the highest SQNR of them all: noise does not cost
    accuracy. `validations` holds metrics/validate/VARIANT.json by variant that was made, `benchmark` is
    metrics/benchmark.json.
    """
    latencies = {
        variant: benchmark[variant]["latency_ms"]["median"]
        for variant in SHIPPABLE
        if variant in validations and validations[variant]["passed"]
    }
    timed = {variant: latency for variant, latency in latencies.items() if latency is not None}
    if not timed:
        return None
    fastest = min(timed, key=lambda variant: timed[variant])
    alike = {fastest, *benchmark[fastest]["no_difference_from"].split(", ")}
    return max((variant for variant in timed if variant in alike), key=lambda variant: signal(validations[variant]))
