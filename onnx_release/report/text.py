"""Write the numbers and Markdown tables of pages, and load the templates of pages."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from onnx_release.core.addresses import address
from onnx_release.core.spec import Task
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics
from onnx_release.timing.speedup import Rounds, Speedup, describe_doubt, over_compile, over_eager

# The meaning of agreement with PyTorch, by task.
AGREEMENT: dict[Task, str] = {
    "classification": "same answer as PyTorch",
    "detection": "boxes matched with PyTorch's",
    "embedding": "same nearest neighbour as in PyTorch",
    "tensor": "same answer as PyTorch",
}
# Other metrics of the answers on the pages, by task: keys of validate/VARIANT.json, null without a value.
ANSWER_DETAILS: dict[Task, tuple[str, ...]] = {
    "classification": (),
    "detection": ("case_agreement", "box_iou", "score_error"),
    "embedding": ("embedding_cosine", "rank_correlation"),
    "tensor": (),
}


def number(value: float | None, digits: int = 3) -> str:
    """Write a number in `digits` significant digits; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Write a share in per cent; a dash for None."""
    if value is None:
        return "–"
    return f"{value * 100:.1f} %"


def speedup_cell(speedup: Speedup) -> str:
    """Write a speed-up with its interval; the base has none."""
    if speedup.doubt:
        return "not measured"
    if speedup.value is None or speedup.is_base:
        return number(speedup.value)
    interval = f"[{number(speedup.low)}, {number(speedup.high)}]"
    return f"no difference {interval}" if speedup.no_difference else f"{number(speedup.value)} {interval}"


def timing_cells(timing: ContenderMetrics, rounds: BenchmarkMetrics | Rounds) -> list[str]:
    """Write the median latency and the speed-ups over PyTorch eager and over torch.compile."""
    speedups = (over_eager(timing, rounds), over_compile(timing, rounds))
    return [number(timing.latency_ms.median), *(speedup_cell(speedup) for speedup in speedups)]


def share_cell(value: float | None, low: float | None, high: float | None) -> str:
    """Write a share with its interval."""
    if value is None or low is None or high is None:
        return percent(value)
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown."""
    lines = [list(header), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)


def markup(text: str) -> Markup:
    """Return the HTML of one paragraph in Markdown that has only **bold** and `code`."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", bold))


@functools.cache
def environment(folder: Path, autoescape: bool) -> Environment:
    """Return the environment for the templates of `folder`, in which an unknown name is an error."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"number": number, "percent": percent, "markup": markup}
    made.globals |= {
        **{"over_eager": over_eager, "over_compile": over_compile},
        **{"speedup_cell": speedup_cell, "share_cell": share_cell, "describe_doubt": describe_doubt},
        "address": address,
    }
    return made
