"""Which variant goes into the release: of those that passed, the most exact of the fastest."""

from collections.abc import Mapping
from typing import Any

from onnx_release.core.variants import SHIPPABLE
from onnx_release.measure.budget import signal

# What is tuned, optimised and profiled while no variant may be released.
FALLBACK = "fp32"


def choose(validations: Mapping[str, dict[str, Any]], benchmark: Mapping[str, Any]) -> str | None:
    """The one with the highest SQNR of `fastest_variants`; None if there is none: noise does not cost accuracy."""
    alike = fastest_variants(validations, benchmark)
    return max(alike, key=lambda variant: signal(validations[variant]), default=None)


def fastest_variants(validations: Mapping[str, dict[str, Any]], benchmark: Mapping[str, Any]) -> list[str]:
    """Of the variants that are `releasable`, the fastest by its median and what is as fast.

    As fast are those that no measured difference sets apart from it. Where speed was not measured those are all, and
    the choice is not by speed. `validations` holds metrics/validate/VARIANT.json by variant that was made, `benchmark`
    is metrics/benchmark.json.
    """
    found = releasable(validations, benchmark)
    if not found:
        return []
    fastest = min(found, key=lambda variant: benchmark[variant]["latency_ms"]["median"])
    alike = {fastest, *benchmark[fastest]["no_difference_from"].split(", ")}
    return [variant for variant in found if variant in alike]


def releasable(validations: Mapping[str, dict[str, Any]], benchmark: Mapping[str, Any]) -> list[str]:
    """The variants that may ship, passed and could be timed."""
    passed = [variant for variant in SHIPPABLE if variant in validations and validations[variant]["passed"]]
    return [variant for variant in passed if benchmark[variant]["latency_ms"]["median"] is not None]
