"""Make the table of docs/review.md: what the comparison finds when nothing changed, and when something did."""

from onnx_release.report.text import table
from tools.page_parts import Read


def comparison(read: Read) -> str:
    """Show how often a repetition was called different, and how often a slowdown was found."""
    found = read("benchmarks/compare.json")
    count = found["replicates"]
    slower = [[factor, *(f"{times} of {count}" for times in row.values())] for factor, row in found["slower"].items()]
    metrics = next(iter(found["slower"].values()))
    apart = [[kind, item["figure"], f"{item['factor']:.3g}"] for kind, item in found["largest_factor"].items()]
    different = found["figures"] - found["figures_without_difference"]
    others = "; ".join(f"{name} ({times} times)" for name, times in found["others"].items())
    return (
        f"In {found['without_difference']} of {count} repetitions no metric was called different ({found['machine']}). "
        f"Metrics called different in all repetitions: {different} of {found['figures']:,}"
        + (f" ({others})" if others else "")
        + f". How often a variant that was made slower was found, by metric:\n\n"
        f"{table(['times as slow', *metrics], slower)}\n\n"
        "The largest factor between two repetitions, with the drift of the machine taken off:\n\n"
        + table(["kind", "metric", "factor"], apart)
    )
