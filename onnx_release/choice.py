"""Which variant goes into the release: the fastest of those that passed."""

from collections.abc import Mapping
from typing import Any

from onnx_release.variants import SHIPPABLE

# What is tuned, optimised and profiled while no variant passes.
FALLBACK = "fp32"


def choose(validations: Mapping[str, Mapping[str, Any]], benchmark: Mapping[str, Any]) -> str | None:
    """The variant with the lowest median latency among those that may ship, passed and could be timed; or None.

    `validations` holds metrics/validate/VARIANT.json by variant, `benchmark` is metrics/benchmark.json.
    """
    latencies = {
        variant: benchmark[variant]["latency_ms"]["median"] for variant in SHIPPABLE if validations[variant]["passed"]
    }
    timed = {variant: latency for variant, latency in latencies.items() if latency is not None}
    return min(timed, key=lambda variant: timed[variant], default=None)
