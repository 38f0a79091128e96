"""Write benchmarks/serving.json as Markdown, for docs/serving.md."""

from collections.abc import Callable, Mapping
from typing import Any

from onnx_release.report.text import number, percent, table

MODEL = "mobilenet_v2"
STARTS = 5
# The latencies of a load in milliseconds, and their names in tables; `tail` is p99 divided by the median.
LATENCIES = {"median_ms": "median, ms", "p95_ms": "p95", "p99_ms": "p99", "tail": "p99 by median"}


def describe_serving(result: Mapping[str, Any]) -> str:
    """Return the tables of all parts that were measured."""
    parts = [PARTS[name](result[name]) for name in PARTS if name in result]
    pictures = result["photographs"]
    return "\n\n".join(
        [
            *parts,
            f"{MODEL} on an {result['machine']}, where the clients run, too; {pictures['count']} photographs of "
            f"{number(pictures['mean_kb'])} kB on average (`python -m benchmarks.serving`).",
        ]
    )


def throughput_page(found: Mapping[str, Any]) -> str:
    variants = list(dict.fromkeys(["fp32", found["released"]]))
    names = sorted(found["fp32"], key=lambda name: -found[found["released"]][name]["share"])
    rows = [
        [
            name,
            *(cell for variant in variants for cell in throughput_cells(found[variant][name])),
            str(sum(found[variant][name].get("errors", 0) for variant in variants)),
        ]
        for name in names
    ]
    header = [
        "uploads a second",
        *(cell for variant in variants for cell in (f"`{variant}`", "share of the bare session")),
    ]
    return (
        f"{table([*header, 'errors'], rows)}\n\nMedians of {found['rounds']} rounds of {found['seconds']} s on "
        f"{found['connections']} connections; shares are medians of the ratios in these rounds, with 95 % intervals."
    )


def throughput_cells(row: Mapping[str, Any]) -> list[str]:
    if row["low"] == row["high"] == 1:
        return [number(row["rate"]), "1"]
    return [number(row["rate"]), f"{row['share']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"]


def latency_page(found: Mapping[str, Any]) -> str:
    kinds = {
        "even": "at even intervals",
        "poisson": "at random (Poisson)",
        "ideal": "at random, in an ideal queue (simulated)",
    }
    rows = [
        [title, *(number(found[kind][key]) for key in LATENCIES), str(found[kind].get("errors", "–"))]
        for kind, title in kinds.items()
    ]
    load = percent(found["rate"] / found["capacity"])
    return (
        f"{table(['uploads come', *LATENCIES.values(), 'errors'], rows)}\n\n"
        f"{found['seconds']} s at {number(found['rate'])} uploads a second, {load} of the server's capacity of "
        f"{number(found['capacity'])}. Each time counts from when the upload was due. In the ideal "
        "queue every upload takes one thread the same time, and the threads do as many uploads as the server can."
    )


def overload_page(found: Mapping[str, Any]) -> str:
    statuses = ", ".join(f"{count:,} × {status}" for status, count in found["statuses"].items())
    rows = [
        ["answers", statuses],
        ["answers with 200, as a share of the capacity", percent(found["goodput"])],
        [
            "median and p99 of 200, ms",
            f"{number(found['accepted']['median_ms'])}, {number(found['accepted']['p99_ms'])}",
        ],
        ["median and p99 of 503, ms", f"{number(found['refused']['median_ms'])}, {number(found['refused']['p99_ms'])}"],
        [
            "resident memory after a tenth of the time, MB",
            f"{number(found['memory_early_mb'])}, at the end {number(found['memory_late_mb'])} "
            f"({found['memory_growth'] * 100:+.1f} %)",
        ],
        [
            "after the load: ready, an upload answered",
            f"{number(found['ready_seconds'])}, {number(found['answered_seconds'])} s",
        ],
    ]
    return table([f"{number(found['minutes'])} minutes at {number(found['rate'])} uploads a second", ""], rows)


def start_page(found: Mapping[str, Any]) -> str:
    rows = [
        [title, number(found[key]["median"]), number(found[key]["max"])]
        for key, title in (("with_pycache", "started before"), ("without_pycache", "without `__pycache__`"))
    ]
    return table(["from `python -m serving` to ready", "median, s", f"slowest of {STARTS} starts, s"], rows)


PARTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "throughput": throughput_page,
    "latency": latency_page,
    "overload": overload_page,
    "start": start_page,
}
