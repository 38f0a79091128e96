"""Draw charts as SVG text that takes its colours from the page around it, so that they follow its dark mode."""

import io
import re
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import quoteattr

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from onnx_release.report.tradeoff import Point, Quality, front
from onnx_release.timing.speedup import Speedup

matplotlib.use("svg")
# "none" keeps text as text; the salt makes the ids, and so the bytes, the same each time.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "onnx-release", "font.size": 11})

# matplotlib has no CSS variables: it draws in these colours, which are replaced afterwards.
INK, ACCENT, SOFT, PAGE = "#010203", "#040506", "#070809", "#0a0b0c"
CSS_COLOURS = {INK: "var(--ink)", ACCENT: "var(--accent)", SOFT: "var(--soft)", PAGE: "var(--page)"}
# The colours themselves, for the page and for charts that stand alone.
LIGHT = "--page: #fff; --panel: #f4f5f7; --ink: #1c2330; --soft: #5b6472; --line: #d9dde3; --accent: #2563a8;"
DARK = "--page: #14171c; --panel: #1f242c; --ink: #e6e9ee; --soft: #a3acba; --line: #363d48; --accent: #74b0f4;"
# Names stay readable where they cross a line.
TEXT = "svg text { paint-order: stroke; stroke: var(--page); stroke-width: 3px; }"

# In inches: narrow enough for a phone's width to show the text at a readable size.
WIDTH = 5.4
# The places of a name beside its point, in points of 1/72 inch; the first free one is used.
BESIDE = tuple((x, y) for distance in (4, 17, 30, 43) for x in (7, -7) for y in (distance, -distance))
# An axis of times ends at most at this multiple of the largest median: a busy machine's times reach far beyond.
MOST_MEDIANS = 4
CUT = "bars at the edge continue beyond it"

# The left, lower, right and upper edge of a rectangle.
Box = tuple[float, float, float, float]


def latency_chart(latencies: Mapping[str, np.ndarray]) -> str:
    """Draw a box for each contender: median, quartiles, and whiskers at the 5th and 95th percentile, in ms.

    The axis ends at MOST_MEDIANS times the largest median, and its label says so if a whisker reaches further.
    """
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
    axes.invert_yaxis()
    end = MOST_MEDIANS * max((float(np.median(times)) for times in latencies.values()), default=1.0)
    cut = any(np.percentile(times, 95) > end for times in latencies.values())
    if cut:
        axes.set_xlim(right=end)
    note = f"\n{CUT}" if cut else ""
    axes.set_xlabel(f"latency of one call, ms\n(box: quartiles, whiskers: 5th to 95th percentile){note}")
    return finish(figure, axes, "Latency of one call of each contender")


def speedup_chart(speedups: Mapping[str, Speedup]) -> str:
    """Draw each contender's speed-up over torch eager with its interval, and a line at 1.

    A speed-up that was not measured has these words in place of a point, so that its interval does not set the axis.
    """
    figure, axes = new_chart(len(speedups))
    positions = np.arange(len(speedups)) + 1
    for position, speedup in zip(positions, speedups.values(), strict=True):
        if speedup.measured:
            value, low, high = speedup.figures
            axes.errorbar(value, position, xerr=reach(value, low, high), fmt="o", color=ACCENT, capsize=5)
        else:
            axes.annotate(
                "not measured", (0, position), xycoords=("axes fraction", "data"), xytext=(6, 0),
                textcoords="offset points", va="center", color=SOFT, fontsize=10,
            )  # fmt: skip
    axes.axvline(1, color=INK, linewidth=1, linestyle=":")
    axes.set_yticks(positions, list(speedups))
    axes.set_ylim(max(len(speedups), 1) + 0.5, 0.5)
    axes.set_xlabel("times as fast as torch eager\n(bar: 95 % interval)")
    return finish(figure, axes, "Speed-up over PyTorch eager of each contender")


def share_chart(parts: Sequence[tuple[str, float]], label: str) -> str:
    """Draw a bar for the share of each part, in per cent; NaN has no bar."""
    figure, axes = new_chart(max(len(parts), 1) * 0.6)
    positions = np.arange(len(parts)) + 1
    axes.barh(positions, [share * 100 for _, share in parts], height=0.6, color=ACCENT)
    axes.set_yticks(positions, [name for name, _ in parts])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return finish(figure, axes, label)


def layer_chart(variants: Mapping[str, Sequence[float]]) -> str:
    """Draw a line for each variant: the SQNR in dB after each step of its graph, NaN where there is no error yet."""
    figure, axes = new_chart(7)
    styles = ((ACCENT, "-"), (INK, "--"), (SOFT, "-."))
    for (name, signals), (colour, line) in zip(variants.items(), styles, strict=False):
        through = 100 * (np.arange(len(signals)) + 1) / max(len(signals), 1)
        axes.plot(through, signals, color=colour, linestyle=line, marker=".", markersize=3, label=name)
    axes.set_xlabel("how far through the network, %")
    axes.set_ylabel("SQNR against the float model, dB")
    lowest = min((float(np.nanmin(signals)) for signals in variants.values() if np.isfinite(signals).any()), default=0)
    axes.set_ylim(bottom=min(0, lowest))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, labelcolor=INK)  # above the lines
    return finish(figure, axes, "Error after each layer, by variant")


def tradeoff_chart(points: Sequence[Point], quality: Quality, lines: Mapping[str, float]) -> str:
    """Draw a point for each variant: its quality over its latency in ms, with both spreads, and the Pareto front.

    Filled points are on the front, hollow ones are not. Each of `lines` is a level of the quality with its name.
    """
    figure, axes = new_chart(7)
    shown = [point for point in points if np.isfinite(point.value)]
    scale = 100 if quality.share else 1
    draw_levels(axes, {name: level * scale for name, level in lines.items()})
    for point in shown:
        draw_point(axes, point, scale)
    members = [point for point in front(points) if point in shown]
    axes.step(
        [point.latency for point in members], [point.value * scale for point in members],
        where="post", color=ACCENT, linewidth=1.5, zorder=2,
    )  # fmt: skip
    cut = set_limits(axes, shown, quality)
    axes.set_xlabel(f"median latency of one call, ms\n(bar: quartiles{f'; {CUT}' if cut else ''})")
    axes.set_ylabel(quality.label + ("\n(bar: interval)" if quality.share else ""), fontsize=10)
    place_names(figure, axes, [(point.name, point.latency, point.value * scale) for point in shown])
    return finish(figure, axes, f"{quality.label} against latency, with the Pareto front")


def draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    """Draw a dotted line with its name at each level."""
    for name, level in levels.items():
        axes.axhline(level, color=SOFT, linewidth=1, linestyle=":")
        axes.annotate(
            name, (1, level), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
            ha="right", color=SOFT, fontsize=9,
        )  # fmt: skip


def draw_point(axes: Axes, point: Point, scale: float) -> None:
    """Draw a variant's point with bars for the quartiles of its latency and the interval of its quality."""
    x, y = point.latency, point.value * scale
    axes.errorbar(
        x, y,
        xerr=reach(x, point.quartile_low, point.quartile_high),
        yerr=reach(y, point.low * scale, point.high * scale),
        color=SOFT, linewidth=1, capsize=3, zorder=1,
    )  # fmt: skip
    fill = ACCENT if point.on_front else PAGE
    edge = ACCENT if point.releasable else SOFT
    axes.plot(x, y, "o", markersize=7, color=edge, markerfacecolor=fill, zorder=4 if point.on_front else 3)


def set_limits(axes: Axes, points: Sequence[Point], quality: Quality) -> bool:
    """Set the limits of both axes and return whether a bar of latencies reaches beyond its axis."""
    widest = max((point.quartile_high for point in points), default=1.0)
    longest = MOST_MEDIANS * max((point.latency for point in points), default=1.0)
    axes.set_xlim(0, min(1.3 * widest, longest))
    axes.margins(y=0.12)
    if quality.share:
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.set_ylim(top=min(axes.get_ylim()[1], 104))
    else:
        axes.set_ylim(bottom=min(0, *(point.value for point in points)) if points else 0)
    return widest > longest


def reach(value: float, low: float, high: float) -> list[list[float]]:
    """Return the length of a bar on both sides of `value`; quartiles of a part of the calls may not enclose it."""
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def place_names(figure: Figure, axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write each name where it hides no point and no other name; points that coincide share one place."""
    figure.draw_without_rendering()  # the layout that positions depend on
    unit = figure.dpi / 72
    groups: list[tuple[list[str], tuple[float, float], np.ndarray]] = []
    for name, x, y in points:
        spot = axes.transData.transform((x, y)) / unit
        near = next((names for names, _, other in groups if np.abs(spot - other).max() < 6), None)
        if near is None:
            groups.append(([name], (x, y), spot))
        else:
            near.append(name)
    inside = (axes.bbox.x0 / unit, axes.bbox.y0 / unit, axes.bbox.x1 / unit, axes.bbox.y1 / unit)
    taken: list[Box] = [(*(spot - 5), *(spot + 5)) for *_, spot in groups]
    for names, where, spot in groups:
        boxes = {offset: text_box(names, spot, offset) for offset in BESIDE}
        offset = next((place for place, box in boxes.items() if is_free(box, inside, taken)), BESIDE[0])
        taken.append(boxes[offset])
        axes.annotate(
            "\n".join(names), where, xytext=offset, textcoords="offset points", color=INK, fontsize=10,
            ha="left" if offset[0] > 0 else "right", va="bottom" if offset[1] > 0 else "top",
        )  # fmt: skip


def text_box(names: Sequence[str], spot: np.ndarray, offset: tuple[int, int]) -> Box:
    """Return the box that names take when they are written at an offset from a spot, in points of 1/72 inch."""
    width = 6.2 * max(map(len, names))  # of a letter at 10 points, on average
    height = 13 * len(names)
    x, y = spot + offset - (width * (offset[0] < 0), height * (offset[1] < 0))
    return x, y, x + width, y + height


def is_free(box: Box, inside: Box, taken: Sequence[Box]) -> bool:
    """Return whether a box is inside another one and overlaps none of those that are taken."""
    x0, y0, x1, y1 = box
    fits = x0 >= inside[0] and y0 >= inside[1] and x1 <= inside[2] and y1 <= inside[3]
    return fits and not any(x0 < b[2] and b[0] < x1 and y0 < b[3] and b[1] < y1 for b in taken)


def new_chart(rows: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * rows), layout=ConstrainedLayoutEngine(w_pad=0.12))  # of inches
    return figure, figure.subplots()


def finish(figure: Figure, axes: Axes, title: str) -> str:
    """Return the SVG, its axes in ink, with a title for screen readers and without XML header and metadata."""
    axes.set_xlim(left=0)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
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
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to these ids, and a page has several charts
    return svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label={quoteattr(title)} ', 1)


def empty_chart(title: str) -> str:
    """Draw the chart of a run that has nothing for it: these words say so."""
    figure, axes = new_chart(1)
    axes.set_axis_off()
    axes.text(0, 0.5, f"{title}:\nthis run has nothing to draw", color=INK, verticalalignment="center")
    return finish(figure, axes, title)


def stand_alone(svg: str) -> str:
    """Return the chart as a file of its own, with a background; it follows the browser's light or dark mode."""
    style = f":root {{ {LIGHT} }} @media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }} {TEXT}"
    start = svg.index(">") + 1
    page = '<rect width="100%" height="100%" style="fill: var(--page)"/>'
    return f"{svg[:start]}\n<style>{style}</style>\n{page}{svg[start:]}"
