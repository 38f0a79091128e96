"""Charts as SVG text that takes its colours from the page around it, so that dark mode holds for them too."""

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("svg")
# "none" keeps text as text; the salt makes the ids, and so the bytes, the same each time.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "onnx-release", "font.size": 11})

# matplotlib knows no CSS variables: it draws in these colours, which are replaced afterwards.
INK, ACCENT = "#010203", "#040506"
CSS_COLOURS = {INK: "var(--ink)", ACCENT: "var(--accent)"}


def latency_chart(latencies: dict[str, np.ndarray]) -> str:
    """A box for each contender: median, quartiles, and whiskers at the 5th and 95th percentile, in ms."""
    figure, axes = new_chart(len(latencies))
    colour = {"color": ACCENT, "linewidth": 1.5}
    axes.boxplot(
        list(latencies.values()),
        tick_labels=list(latencies),
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.5,
        boxprops=colour,
        whiskerprops=colour,
        capprops=colour,
        medianprops={"color": INK, "linewidth": 2.5},
    )
    axes.set_xlabel("latency of one call, ms (box: quartiles, whiskers: 5th to 95th percentile)")
    return finish(figure, axes)


def speedup_chart(speedups: dict[str, tuple[float, float, float]]) -> str:
    """A point with its interval for each contender: (speed-up, low, high) against torch eager, marked at 1."""
    figure, axes = new_chart(len(speedups))
    values, lows, highs = np.array(list(speedups.values())).reshape(-1, 3).T  # none, if eager failed
    positions = np.arange(len(speedups)) + 1
    axes.errorbar(values, positions, xerr=[values - lows, highs - values], fmt="o", color=ACCENT, capsize=5)
    axes.axvline(1, color=INK, linewidth=1, linestyle=":")
    axes.set_yticks(positions, list(speedups))
    axes.set_ylim(0.5, max(len(speedups), 1) + 0.5)
    axes.set_xlabel("times as fast as torch eager, with the 95 % interval")
    return finish(figure, axes)


def share_chart(parts: list[tuple[str, float]], label: str) -> str:
    """A bar for each part: its share, in per cent; NaN has no bar."""
    figure, axes = new_chart(max(len(parts), 1) * 0.6)
    positions = np.arange(len(parts)) + 1
    axes.barh(positions, [share * 100 for _, share in parts], height=0.6, color=ACCENT)
    axes.set_yticks(positions, [name for name, _ in parts])
    axes.set_xlabel(label)
    return finish(figure, axes)


def tradeoff_chart(points: list[tuple[str, float, float | None]]) -> str:
    """A point for each variant: signal to error in dB over latency in ms; one without a finite dB is left out."""
    figure, axes = new_chart(5)
    known = [(name, latency, sqnr) for name, latency, sqnr in points if sqnr is not None]
    axes.scatter([latency for _, latency, _ in known], [sqnr for _, _, sqnr in known], color=ACCENT)
    for number, (name, latency, sqnr) in enumerate(known):  # above and below in turn: neighbours may coincide
        offset = (6, 4 if number % 2 else -12)
        axes.annotate(name, (latency, sqnr), xytext=offset, textcoords="offset points", color=INK)
    axes.set_ylim(1.1 * max((sqnr for *_, sqnr in known), default=1), 0)  # upside down: finish() turns it round
    axes.set_xlabel("median latency, ms")
    axes.set_ylabel("SQNR against PyTorch in float64, dB", color=INK)
    return finish(figure, axes)


def new_chart(rows: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 0.9 + 0.5 * rows), layout="constrained")
    return figure, figure.subplots()


def finish(figure: Figure, axes: Axes) -> str:
    """Ink for what is not data, the first entry on top, the SVG without XML header and metadata."""
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    svg = buffer.getvalue()
    for drawn, wanted in CSS_COLOURS.items():
        svg = svg.replace(drawn, wanted)
    return svg[svg.index("<svg") :]
