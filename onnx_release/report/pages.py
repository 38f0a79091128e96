"""Make the report's pages: one self-contained HTML page, and its short form in Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_release.core.variants import BASE, COMPILED, REDUCED, VARIANTS
from onnx_release.measure.budget import describe_budget
from onnx_release.performance.metrics import ProfileMetrics
from onnx_release.report.charts import (
    DARK,
    LIGHT,
    TEXT,
    empty_chart,
    latency_chart,
    layer_chart,
    share_chart,
    speedup_chart,
    stand_alone,
    tradeoff_chart,
)
from onnx_release.report.metrics import ALL_METRICS
from onnx_release.report.results import Results
from onnx_release.report.text import AGREEMENT, ANSWER_DETAILS, environment
from onnx_release.report.tradeoff import Quality, levels, make_points, qualities, standing
from onnx_release.report.verdict import describe_verdict, describe_warnings
from onnx_release.timing.metrics import ContenderMetrics
from onnx_release.timing.speedup import WIDEST, over_eager

# The pictures of report.md, each with its alternative text.
PICTURES = {
    "tradeoff": "Quality of each variant against its latency, with the Pareto front",
    "sqnr": "SQNR of each variant against its latency, with the Pareto front",
    "speedup": "Speed-up over PyTorch eager with 95 % intervals",
    "latency": "Distribution of the latency of one call",
    "layers": "SQNR after each layer of the variants with reduced precision",
}
# Charts of the page that report.md has not.
PAGE_ONLY = {
    "operators": "Time of a call by operator",
    "worst_layers": "Layers that add the most error",
}
REPORT_TEMPLATES = Path(__file__).parent / "templates"


def contender_names(contenders: Mapping[str, ContenderMetrics]) -> list[str]:
    """List everything that was timed: the forms of PyTorch, eager first, then the variants, then other contenders."""
    torch = sorted((name for name in contenders if name.startswith("torch_")), key=lambda name: (name != BASE, name))
    made = [name for name in VARIANTS if name in contenders]
    return [*torch, *made, *(name for name in contenders if name not in torch and name not in VARIANTS)]


def operator_cells(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Return each count with its change: the slimmed graph's from the export, all others' from the slimmed graph."""
    return [(count, count - counts[1 if place > 1 else 0]) for place, count in enumerate(counts)]


def make_charts(results: Results) -> dict[str, str]:
    """Draw every chart of the page as SVG, by name; report.md has those of PICTURES."""
    benchmark = results.metrics.benchmark
    timings = {name: benchmark.contenders[name] for name in contender_names(benchmark.contenders)}
    timed = {name: over_eager(item, benchmark) for name, item in timings.items() if not item.failure}
    found = {
        name: tradeoff_chart(
            make_points(results.candidates, results.latencies, quality),
            quality,
            levels(results.candidates, quality, results.spec.budget),
        )
        for name, quality in zip(("tradeoff", "sqnr"), used_qualities(results), strict=False)
    }
    found |= {
        "speedup": speedup_chart(timed),
        "latency": latency_chart(results.latencies),
        "operators": share_chart(profile_shares(results.metrics.profile), "share of a call, %"),
    }
    if results.explained:
        found["layers"] = layer_chart(results.explained.signals)
        found["worst_layers"] = share_chart(
            [(row["module"] or row["node"], row["added"]) for row in results.explained.layers],
            "error that the layer adds, % of its output's power",
        )
    return found


def make_pictures(charts: Mapping[str, str]) -> dict[str, str]:
    """Return every picture that DVC draws of a model, as SVG by name: a run without one of the charts says so there."""
    titles = PICTURES | PAGE_ONLY
    return {name: stand_alone(charts.get(name) or empty_chart(title)) for name, title in titles.items()}


def used_qualities(results: Results) -> list[Quality]:
    """Return the qualities by which the variants of this run are compared."""
    return qualities(results.candidates, AGREEMENT[results.spec.task])


def tradeoff_table(results: Results) -> tuple[list[Quality], list[dict[str, Any]]]:
    """Return the qualities, and a row for each variant that was timed, with its standing by each quality."""
    used = used_qualities(results)
    by_quality = [make_points(results.candidates, results.latencies, quality) for quality in used]
    return used, [
        {
            "name": points[0].name,
            "latency": points[0],
            "qualities": [
                {"point": point, "written": quality.written(point.value), "standing": standing(point, among, quality)}
                for point, among, quality in zip(points, by_quality, used, strict=True)
            ],
        }
        for points in zip(*by_quality, strict=True)
    ]


def render_html(results: Results, charts: Mapping[str, str]) -> str:
    """Return the page, with the charts of `make_charts`; it needs no network and no other file."""
    used, standings = tradeoff_table(results)
    counts = results.graphs.operators
    totals = ("all nodes", [sum(column) for column in zip(*(row for _, row in counts), strict=True)])
    contenders = results.metrics.benchmark.contenders
    page = fill_template(
        "report.html",
        results,
        charts=charts,
        colours={"light": LIGHT, "dark": DARK, "text": TEXT},
        glossary=ALL_METRICS,
        contenders=[
            (name, contenders[name], results.graphs.sizes_mb.get(name)) for name in contender_names(contenders)
        ],
        settings=[
            (name, contender, setting)
            for name, setting in results.metrics.benchmark.settings.items()
            for contender in contender_names(setting.contenders)
        ],
        qualities=used,
        standings=standings,
        widest=WIDEST,
        left_out=", ".join(variant for variant in REDUCED if variant not in results.spec.variants),
        answer_details=ANSWER_DETAILS[results.spec.task],
        operators=[(name, operator_cells(row)) for name, row in [*counts, totals]],
        budget=describe_budget(results.spec.budget),
    )
    return page.replace(" %", "\N{NO-BREAK SPACE}%")


def profile_shares(profile: ProfileMetrics) -> list[tuple[str, float]]:
    """Return each operator's share of a call, the largest first, and last the time outside of nodes."""
    operators = {name: item.ms / profile.model_ms for name, item in profile.operators.items()}
    ordered = sorted(operators.items(), key=lambda item: -item[1])
    return [*ordered, ("outside of nodes", profile.outside_ms / profile.model_ms)]


def render_markdown(results: Results, charts: Mapping[str, str]) -> str:
    """Return the short form for a pull request; its pictures are files beside it, each in a line of its own."""
    return fill_template(
        "report.md",
        results,
        pictures=[(name, text) for name, text in PICTURES.items() if name in charts],
        base=results.metrics.benchmark.contenders[BASE],
        compiled=results.metrics.benchmark.contenders[COMPILED],
    )


def fill_template(name: str, results: Results, **values: Any) -> str:
    """Return a page from its template, with what both pages show and the values of its own."""
    template = environment(REPORT_TEMPLATES, autoescape=name.endswith(".html")).get_template(name)
    return template.render(
        results=results,
        metrics=results.metrics,
        verdict=describe_verdict(results),
        warnings=describe_warnings(results),
        agreement_name=AGREEMENT[results.spec.task],
        **values,
    )
