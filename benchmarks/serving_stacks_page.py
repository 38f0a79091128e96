"""Write benchmarks/serving_stacks.json as Markdown, for docs/serving.md."""

from collections.abc import Mapping
from typing import Any

from onnx_release.report.text import number, percent, table

NAMES = ("this server", "uvicorn", "granian")


def describe_stacks(result: Mapping[str, Any]) -> str:
    """Return a table of the rates and one of the attacks, with what they were measured on."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n\n".join(
        [
            rates(result["throughput"]),
            attacks(result["attacks"]),
            f"{versions}; {result['machine']}, where the clients run, too (`python -m benchmarks.serving_stacks`).",
        ]
    )


def rates(found: Mapping[str, Any]) -> str:
    rows = [
        [
            load,
            name,
            number(by_name[name]["rate"]),
            "1" if name == NAMES[0] else f"{by_name[name]['share']:.2f} [{interval(by_name[name])}]",
            number(by_name[name]["cpu_ms"]),
            f"{by_name[name]['cpu_share']:.2f}",
        ]
        for load, by_name in found["loads"].items()
        for name in NAMES
    ]
    header = ["requests", "server", "a second", "share", "CPU ms a request", "share"]
    spread = [percent(by_name[NAMES[0]]["spread"]) for by_name in found["loads"].values()]
    return (
        f"{table(header, rows)}\n\nMedians of {found['rounds']} rounds of {found['seconds']} s on 8 connections, in "
        "which the servers take turns; shares are medians of the ratios in these rounds, with 95 % intervals. Other "
        "work ran on the machine: from round to round this server's own rate varied by "
        f"{', '.join(spread)} (standard deviation)."
    )


def interval(row: Mapping[str, float]) -> str:
    return f"{row['low']:.2f}, {row['high']:.2f}"


def attacks(found: Mapping[str, Mapping[str, str]]) -> str:
    rows = [[name, *(found[server][name] for server in NAMES)] for name in found[NAMES[0]]]
    return table(["a client sends", *NAMES], rows)
