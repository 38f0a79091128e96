"""The report: one self-contained HTML page, its short form in Markdown, and metrics/summary.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onnx_release.charts import error_chart, latency_chart, speedup_chart
from onnx_release.files import read_json
from onnx_release.graph import describe, model_size_mb
from onnx_release.metrics import METRICS
from onnx_release.params import Budget, Params
from onnx_release.paths import HARDWARE, PIPELINE_BENCHMARK, PLOTS, variant_model
from onnx_release.paths import METRICS as METRICS_FOLDER
from onnx_release.variants import BASE, SHIPPABLE, VARIANTS

# Layers in the chart of what adds error.
LISTED = 15
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Results:
    """Everything that the pages show. `summary` is metrics/summary.json; `rows` has one entry a variant."""

    model: str
    verdict: str
    passed: bool
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    base: dict[str, Any]
    benchmark: dict[str, Any]
    prepare: dict[str, Any]
    slim: dict[str, Any]
    fp16: dict[str, Any]
    quantize_dynamic: dict[str, Any]
    quantize_static: dict[str, Any]
    layers: list[dict[str, Any]]
    operators: list[tuple[str, list[int]]]
    hardware: dict[str, Any]
    params: Params
    latencies: dict[str, Any]
    pipeline: dict[str, Any]


def collect(params: Params) -> Results:
    """Read what the stages before have written."""
    benchmark = read_json(METRICS_FOLDER / "benchmark.json")
    rows = [
        {
            "name": variant,
            "size_mb": model_size_mb(variant_model(variant)),
            **read_json(METRICS_FOLDER / "validate" / f"{variant}.json"),
            "timing": benchmark[variant],
        }
        for variant in VARIANTS
    ]
    summary = summarise(rows)
    csv = pd.read_csv(PLOTS / "latency.csv")
    return Results(
        model=params.model,
        verdict=describe_verdict(rows, summary),
        passed=all(row["passed"] for row in rows),
        summary=summary,
        rows=rows,
        base=benchmark[BASE],
        benchmark=benchmark,
        prepare=read_json(METRICS_FOLDER / "prepare.json"),
        slim=read_json(METRICS_FOLDER / "slim.json"),
        fp16=read_json(METRICS_FOLDER / "fp16.json"),
        quantize_dynamic=read_json(METRICS_FOLDER / "quantize_dynamic.json"),
        quantize_static=read_json(METRICS_FOLDER / "quantize_static.json"),
        layers=worst_layers(
            pd.read_csv(PLOTS / "explain/int8_static.csv", keep_default_na=False, na_values={"added": ""})
        ),
        operators=operator_changes(),
        hardware=read_json(HARDWARE),
        params=params,
        pipeline=read_json(PIPELINE_BENCHMARK),
        latencies={str(name): part["latency_ms"].to_numpy() for name, part in csv.groupby("variant", sort=False)},
    )


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest shippable variant that passed, in a few figures; all of them None if none did."""
    passed = [row for row in rows if row["passed"] and row["name"] in SHIPPABLE]
    best = max(passed, key=lambda row: row["timing"]["speedup_vs_eager"], default=None)
    if best is None:
        return dict.fromkeys(("variant", "accuracy_drop", "agreement", "speedup_vs_eager", "size_mb", "compression"))
    return {
        "variant": best["name"],
        "accuracy_drop": best.get("accuracy_drop"),
        "agreement": best.get("agreement"),
        "speedup_vs_eager": best["timing"]["speedup_vs_eager"],
        "size_mb": best["size_mb"],
        "compression": rows[0]["size_mb"] / best["size_mb"],
    }


def describe_verdict(rows: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """One sentence that stands on its own."""
    failed = ", ".join(row["name"] for row in rows if not row["passed"])
    if summary["variant"] is None:
        return f"Nothing to release: {failed} failed."
    row = next(row for row in rows if row["name"] == summary["variant"])
    parts = [f"{describe_speedup(row['timing'])} PyTorch eager", f"{row['size_mb']:.1f} MB"]
    if "agreement" in row:
        parts.insert(0, f"the same answer as PyTorch on {percent(row['agreement'])} of the samples")
    end = f" But {failed} failed." if failed else ""
    return f"Release {row['name']}: {', '.join(parts)}.{end}"


def describe_speedup(timing: dict[str, Any]) -> str:
    """How many times as fast; an interval that holds 1 is no difference."""
    if timing["speedup_low"] <= 1 <= timing["speedup_high"]:
        return "as fast (no difference) as"
    return f"{timing['speedup_vs_eager']:.2f} times as fast as"


def describe_budget(budget: Budget) -> str:
    """The bounds in words."""
    bounds = {
        "at least {:.0%} of the samples keep PyTorch's answer": budget.agreement,
        "at most {:.1%} of accuracy is lost": budget.accuracy_drop,
        "the SQNR is at least {:g} dB": budget.sqnr_db,
    }
    return ", ".join(text.format(value) for text, value in bounds.items() if value is not None)


def worst_layers(steps: pd.DataFrame) -> list[dict[str, Any]]:
    """The steps that add the most error, as `onnx_release.explain` gives them; those that are not finite first."""
    order = steps["added"].sort_values(ascending=False, na_position="first").index[:LISTED]
    return [{str(key): value for key, value in row.items()} for row in steps.loc[order].to_dict("records")]


def operator_changes() -> list[tuple[str, list[int]]]:
    """Each operator with its count in the graph of every variant."""
    graphs = [describe(variant_model(variant))["operators"] for variant in VARIANTS]
    names = sorted({name for graph in graphs for name in graph}, key=lambda name: (-graphs[0].get(name, 0), name))
    return [(name, [graph.get(name, 0) for graph in graphs]) for name in names]


def render_html(results: Results) -> str:
    """The page; it needs no network and no other file."""
    return (
        environment(autoescape=True)
        .get_template("report.html")
        .render(
            results=results,
            glossary=METRICS,
            contenders=[
                (BASE, results.base, None),
                *((row["name"], row["timing"], row["size_mb"]) for row in results.rows),
            ],
            variants=VARIANTS,
            budget=describe_budget(results.params.budget),
            latency_chart=latency_chart(results.latencies),
            error_chart=error_chart([(f"{row['node']} {row['module']}", row["added"]) for row in results.layers]),
            speedup_chart=speedup_chart(
                {
                    name: speedup_figures(results.benchmark[name])
                    for name in (BASE, *(row["name"] for row in results.rows))
                },
            ),
        )
    )


def speedup_figures(timing: dict[str, Any]) -> tuple[float, float, float]:
    return timing["speedup_vs_eager"], timing["speedup_low"], timing["speedup_high"]


def render_markdown(results: Results) -> str:
    """The short form for a pull request."""
    return environment(autoescape=False).get_template("report.md").render(results=results)


def environment(autoescape: bool) -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"number": number, "percent": percent}
    return made


def number(value: float | None, digits: int = 3) -> str:
    """A number in `digits` significant digits; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def percent(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 100:.1f} %"
