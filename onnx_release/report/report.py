"""The report: one self-contained HTML page, its short form in Markdown, and metrics/summary.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from onnx_release.core.errors import DataError
from onnx_release.core.files import read_json, refuse_conflict
from onnx_release.core.hardware import installed
from onnx_release.core.params import ENOUGH_TO_CALIBRATE, Params
from onnx_release.core.paths import HARDWARE, PLOTS, variant_model
from onnx_release.core.paths import METRICS as METRICS_FOLDER
from onnx_release.core.spec import Spec, load_spec
from onnx_release.core.variants import BASE, COMPILED, REDUCED, VARIANTS, made_variants
from onnx_release.graph.graph import describe, model_size_mb
from onnx_release.measure.budget import describe_budget
from onnx_release.report.charts import (
    DARK,
    LIGHT,
    TEXT,
    latency_chart,
    layer_chart,
    share_chart,
    speedup_chart,
    tradeoff_chart,
)
from onnx_release.report.metrics import METRICS
from onnx_release.report.text import AGREEMENT, ANSWER_DETAILS, environment, number, share_cell
from onnx_release.report.tradeoff import Quality, levels, make_points, qualities, standing
from onnx_release.timing.speedup import WIDEST, Speedup, describe_doubt, over_compile, over_eager
from onnx_release.validate.choice import choose, fastest_variants, releasable

# Layers in the chart of what adds error, and nodes in that of what takes time.
LISTED = 15
# What agreeing with PyTorch means in a sentence, by task.
AGREEMENT_SENTENCES = {
    "classification": "the same answer as PyTorch on {} of the samples",
    "detection": "{} of the boxes matched with PyTorch's",
    "embedding": "the same nearest neighbour as in PyTorch for {} of the samples",
}
# A graph that is so much worse on other samples was calibrated on too little.
MOST_DB_LOST = 3.0
# What writes and changes graphs; what times depend on is in the hardware's own description.
MADE_WITH = ("onnx", "onnxscript", "onnxslim", "onnxconverter-common")
# The pictures of report.md, each with the text that stands for it.
PICTURES = {
    "tradeoff": "What each variant keeps of PyTorch's answers against its latency, with the Pareto front",
    "sqnr": "SQNR of each variant against its latency, with the Pareto front",
    "speedup": "Speed-up over PyTorch eager with 95 % intervals",
    "latency": "Distribution of the latency of one call",
    "layers": "SQNR after each layer of the variants of fewer bits",
}
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Results:
    """Everything that the pages show. `summary` is metrics/summary.json; `rows` has one entry a variant.

    `warnings` are sentences in Markdown on what the verdict cannot say, each with what to do; `choice` is how the
    variant was chosen.
    """

    model: str
    spec: Spec
    verdict: str
    warnings: list[str]
    passed: bool
    choice: str
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    benchmark: dict[str, Any]
    prepare: dict[str, Any]
    slim: dict[str, Any]
    fp16: dict[str, Any]
    quantize_dynamic: dict[str, Any]
    quantize_static: dict[str, Any]
    tune: dict[str, Any]
    optimize: dict[str, Any]
    profile: dict[str, Any]
    explained: str
    layers: list[dict[str, Any]]
    signals: dict[str, list[float]]
    nodes: list[dict[str, Any]]
    operators: list[tuple[str, list[int]]]
    hardware: dict[str, Any]
    params: Params
    latencies: dict[str, Any]


def collect(params: Params) -> Results:
    """Read what the stages before have written."""
    spec = load_spec(params.model)
    made = made_variants(spec)
    benchmark = read_json(METRICS_FOLDER / "benchmark.json")
    rows = [
        {
            "name": variant,
            "size_mb": model_size_mb(variant_model(variant)),
            **read_json(METRICS_FOLDER / "validate" / f"{variant}.json"),
            "timing": benchmark[variant],
        }
        for variant in made
    ]
    summary = summarise(rows, benchmark)
    prepare = read_json(METRICS_FOLDER / "prepare.json")
    static = read_json(METRICS_FOLDER / "quantize_static.json")
    latencies = read_table(PLOTS / "latency.csv")
    steps = {variant: read_steps(variant) for variant in made if variant in REDUCED}
    explained = summary["variant"] if summary["variant"] in steps else list(steps)[-1] if steps else ""
    return Results(
        model=params.model,
        spec=spec,
        verdict=describe_verdict(rows, summary, spec.task, benchmark),
        warnings=describe_warnings(rows, summary, benchmark, prepare, static),
        passed=all(row["passed"] for row in rows),
        choice=describe_choice(rows, benchmark),
        summary=summary,
        rows=rows,
        benchmark=benchmark,
        prepare=prepare,
        slim=read_json(METRICS_FOLDER / "slim.json"),
        fp16=read_json(METRICS_FOLDER / "fp16.json"),
        quantize_dynamic=read_json(METRICS_FOLDER / "quantize_dynamic.json"),
        quantize_static=static,
        tune=read_json(METRICS_FOLDER / "tune.json"),
        optimize=read_json(METRICS_FOLDER / "optimize.json"),
        profile=read_json(METRICS_FOLDER / "profile.json"),
        nodes=records(read_table(PLOTS / "profile.csv", keep_default_na=False).head(LISTED)),
        explained=explained,
        layers=worst_layers(steps[explained]) if explained else [],
        signals={variant: rows["sqnr_db"].tolist() for variant, rows in steps.items()},
        operators=operator_changes(made),
        hardware={**read_json(HARDWARE), "made_with": {name: installed(name) for name in MADE_WITH}},
        params=params,
        latencies={str(name): part["latency_ms"].to_numpy() for name, part in latencies.groupby("variant", sort=False)},
    )


def summarise(rows: list[dict[str, Any]], benchmark: dict[str, Any]) -> dict[str, Any]:
    """The chosen variant in a few figures; all of them None if none passed, and a speed-up that was not measured."""
    keys = ("variant", "accuracy_drop", "agreement", "speedup_vs_eager", "speedup_vs_compile", "size_mb", "compression")
    best = choose({row["name"]: row for row in rows}, benchmark)
    if best is None:
        return dict.fromkeys((*keys, "not_measured"))
    row = next(row for row in rows if row["name"] == best)
    eager, compiled = over_eager(row["timing"], benchmark), over_compile(row["timing"], benchmark)
    return {
        "variant": best,
        "accuracy_drop": row["accuracy_drop"],
        "agreement": row["agreement"],
        "speedup_vs_eager": eager.value if eager.measured else None,
        "speedup_vs_compile": compiled.value if compiled.measured else None,
        "not_measured": eager.doubt or compiled.doubt,
        "size_mb": row["size_mb"],
        "compression": rows[0]["size_mb"] / row["size_mb"],
    }


def describe_verdict(rows: list[dict[str, Any]], summary: dict[str, Any], task: str, benchmark: dict[str, Any]) -> str:
    """One sentence that stands on its own."""
    failed = ", ".join(row["name"] for row in rows if not row["passed"])
    if summary["variant"] is None:
        return f"Nothing to release: {failed} failed." if failed else "Nothing to release: no variant could be timed."
    row = next(row for row in rows if row["name"] == summary["variant"])
    parts = [*describe_speedups(row["timing"], benchmark), f"{number(row['size_mb'])} MB"]
    if row["agreement"] is not None:
        agreement = share_cell(row["agreement"], row["agreement_low"], row["agreement_high"])
        parts.insert(0, AGREEMENT_SENTENCES[task].format(agreement))
    end = f" But {failed} failed." if failed else ""
    return f"Release {row['name']}: {', '.join(parts)}.{end}"


def describe_speedups(timing: dict[str, Any], benchmark: dict[str, Any]) -> list[str]:
    """How many times as fast as PyTorch in its two forms, where they could be timed."""
    found = speedups_by_base(timing, benchmark)
    doubts = {speedup.doubt for speedup in found.values()}
    if len(doubts) == 1 and "" not in doubts:
        return [f"speed not measured ({doubts.pop()})"]
    return [describe_speedup(speedup, name) for name, speedup in found.items()]


def speedups_by_base(timing: dict[str, Any], benchmark: dict[str, Any]) -> dict[str, Speedup]:
    """Over PyTorch in its two forms, those that could be timed."""
    found = {"PyTorch eager": over_eager(timing, benchmark), "torch.compile": over_compile(timing, benchmark)}
    return {name: speedup for name, speedup in found.items() if speedup.value is not None}


def describe_speedup(speedup: Speedup, name: str) -> str:
    if speedup.doubt:
        return f"speed against {name} not measured ({speedup.doubt})"
    interval = f"[{number(speedup.low)}, {number(speedup.high)}]"
    if speedup.no_difference:
        return f"as fast (no difference {interval}) as {name}"
    return f"{number(speedup.value)} {interval} times as fast as {name}"


def describe_warnings(
    rows: Sequence[dict[str, Any]],
    summary: dict[str, Any],
    benchmark: dict[str, Any],
    prepare: dict[str, Any],
    static: dict[str, Any],
) -> list[str]:
    """What was not measured, and what int8_static was calibrated too little for."""
    by_name = {row["name"]: row for row in rows}
    warnings = []
    if summary["not_measured"]:
        doubtful = {
            name: speedup
            for name, speedup in speedups_by_base(by_name[summary["variant"]]["timing"], benchmark).items()
            if speedup.doubt
        }
        against = "" if len(doubtful) > 1 else f" against {next(iter(doubtful))}"
        fix = describe_doubt(next(iter(doubtful.values())))
        warnings.append(f"**Speed{against} was not measured.** {fix} {describe_choice(rows, benchmark)}")
    if "int8_static" in by_name:
        warnings += [describe_calibration(by_name["int8_static"], prepare, static)]
    return [warning.strip() for warning in warnings if warning]


def describe_choice(rows: Sequence[dict[str, Any]], benchmark: dict[str, Any]) -> str:
    """Whether the variant was chosen by its speed or by its SQNR; empty where there was nothing to choose from."""
    by_name = {row["name"]: row for row in rows}
    alike = fastest_variants(by_name, benchmark)
    if len(alike) > 1:
        names = f"{', '.join(alike[:-1])} and {alike[-1]}"
        return f"The choice is by SQNR and not by speed: no measured difference in speed sets {names} apart."
    return "The choice is by speed: the others are slower." if len(releasable(by_name, benchmark)) > 1 else ""


def describe_calibration(row: dict[str, Any], prepare: dict[str, Any], static: dict[str, Any]) -> str:
    """Why int8_static may be worse than it could be, and what to do; empty where nothing says so."""
    samples, searched = prepare["calibration_samples"], static["calibration_sqnr_db"]
    lost = None if searched is None or row["sqnr_db"] is None else searched - row["sqnr_db"]
    found = []
    if samples < ENOUGH_TO_CALIBRATE:
        found.append(f"calibrated on {samples} sample{'s' if samples != 1 else ''}")
    if lost is not None and lost > MOST_DB_LOST:
        found.append(
            f"{number(lost)} dB worse on evaluation samples ({number(row['sqnr_db'])} dB) than on those that it was "
            f"calibrated on ({number(searched)} dB)"
        )
    if not found:
        return ""
    return (
        f"**int8_static is {', and '.join(found)}.** Calibrate on more samples, and on more varied ones: "
        f"{ENOUGH_TO_CALIBRATE} or more that are like what it will meet. `prepare.calibration` in params.yaml "
        "is the most that are taken."
    )


def contender_names(benchmark: dict[str, Any]) -> list[str]:
    """Everything that was timed: PyTorch in its forms, eager first, then the variants, then what is beside them."""
    names = [name for name, value in benchmark.items() if isinstance(value, dict) and "latency_ms" in value]
    torch = sorted((name for name in names if name.startswith("torch_")), key=lambda name: (name != BASE, name))
    made = [name for name in VARIANTS if name in names]
    return [*torch, *made, *(name for name in names if name not in torch and name not in VARIANTS)]


def read_steps(variant: str) -> pd.DataFrame:
    """What `onnx_release.validate.explain` found for a variant, in the order of its graph."""
    path = PLOTS / "explain" / f"{variant}.csv"
    return read_table(path, keep_default_na=False, na_values={"added": "", "sqnr_db": ""})


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A CSV that a stage has written. Raises DataError if it is missing, damaged or in conflict."""
    try:
        refuse_conflict(path, path.read_text(encoding="utf-8"), DataError)
        return pd.read_csv(path, **options)
    except FileNotFoundError as cause:
        raise DataError(f"{path} is not there: run `dvc repro`") from cause
    except ValueError as cause:
        raise DataError(f"{path} is not a table ({cause}): run `dvc repro`") from cause


def worst_layers(steps: pd.DataFrame) -> list[dict[str, Any]]:
    """The steps that add the most error, as validate/explain.py gives them; those that are not finite first."""
    order = steps["added"].sort_values(ascending=False, na_position="first").index[:LISTED]
    return records(steps.loc[order])


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def operator_changes(variants: list[str]) -> list[tuple[str, list[int]]]:
    """Each operator with its count in the graph of every variant."""
    graphs = [describe(variant_model(variant))["operators"] for variant in variants]
    names = sorted({name for graph in graphs for name in graph}, key=lambda name: (-graphs[0].get(name, 0), name))
    return [(name, [graph.get(name, 0) for graph in graphs]) for name in names]


def operator_cells(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Each count with its change: of the slimmed graph from the export, of all others from the slimmed graph."""
    return [(count, count - counts[1 if place > 1 else 0]) for place, count in enumerate(counts)]


def make_charts(results: Results) -> dict[str, str]:
    """Every chart of the page as SVG, by name; those of PICTURES are of report.md, too."""
    timings = {name: results.benchmark[name] for name in contender_names(results.benchmark)}
    timed = {name: over_eager(item, results.benchmark) for name, item in timings.items() if not item["failure"]}
    found = {
        name: tradeoff_chart(
            make_points(results.rows, results.latencies, quality),
            quality,
            levels(results.rows, quality, results.spec.budget),
        )
        for name, quality in zip(("tradeoff", "sqnr"), judged_by(results), strict=False)
    }
    found |= {
        "speedup": speedup_chart(timed),
        "latency": latency_chart(results.latencies),
        "operators": share_chart(profile_shares(results.profile), "share of a call, %"),
    }
    if results.explained:
        found["layers"] = layer_chart(results.signals)
        found["worst_layers"] = share_chart(
            [(row["module"] or row["node"], row["added"]) for row in results.layers],
            "error that the layer adds, % of its output's power",
        )
    return found


def judged_by(results: Results) -> list[Quality]:
    return qualities(results.rows, AGREEMENT[results.spec.task])


def tradeoff_table(results: Results) -> tuple[list[Quality], list[dict[str, Any]]]:
    """The qualities, and a row for each variant that was timed: where it stands among the others by each quality."""
    judged = judged_by(results)
    by_quality = [make_points(results.rows, results.latencies, quality) for quality in judged]
    return judged, [
        {
            "name": points[0].name,
            "latency": points[0],
            "qualities": [
                {"point": point, "written": quality.written(point.value), "standing": standing(point, among, quality)}
                for point, among, quality in zip(points, by_quality, judged, strict=True)
            ],
        }
        for points in zip(*by_quality, strict=True)
    ]


def render_html(results: Results, charts: Mapping[str, str]) -> str:
    """The page, with the charts of `make_charts`; it needs no network and no other file."""
    timings = {name: results.benchmark[name] for name in contender_names(results.benchmark)}
    sizes = {row["name"]: row["size_mb"] for row in results.rows}
    judged, standings = tradeoff_table(results)
    totals = ("all nodes", [sum(column) for column in zip(*(counts for _, counts in results.operators), strict=True)])
    page = (
        environment(TEMPLATES, autoescape=True)
        .get_template("report.html")
        .render(
            results=results,
            charts=charts,
            colours={"light": LIGHT, "dark": DARK, "text": TEXT},
            glossary=METRICS,
            chosen_row=next((row for row in results.rows if row["name"] == results.summary["variant"]), None),
            contenders=[(name, timing, sizes.get(name)) for name, timing in timings.items()],
            settings=[
                (setting, name, figures[name], {**results.benchmark, **figures})
                for setting, figures in results.benchmark["settings"].items()
                for name in contender_names(figures)
                if name in figures
            ],
            judged=judged,
            standings=standings,
            widest=WIDEST,
            left_out=", ".join(variant for variant in REDUCED if variant not in results.spec.variants),
            agreement_name=AGREEMENT[results.spec.task],
            answer_details=ANSWER_DETAILS[results.spec.task],
            variants=[row["name"] for row in results.rows],
            operators=[(name, operator_cells(counts)) for name, counts in [*results.operators, totals]],
            budget=describe_budget(results.spec.budget),
        )
    )
    return page.replace(" %", "\N{NO-BREAK SPACE}%")


def profile_shares(profile: dict[str, Any]) -> list[tuple[str, float]]:
    """Each operator's share of a call, the largest first, and last what was in no node."""
    operators = {name: item["ms"] / profile["model_ms"] for name, item in profile["operators"].items()}
    ordered = sorted(operators.items(), key=lambda item: -item[1])
    return [*ordered, ("outside of nodes", profile["outside_ms"] / profile["model_ms"])]


def render_markdown(results: Results, charts: Mapping[str, str]) -> str:
    """The short form for a pull request; its pictures are files beside it, each in a line of its own."""
    return (
        environment(TEMPLATES, autoescape=False)
        .get_template("report.md")
        .render(
            results=results,
            pictures=[(name, text) for name, text in PICTURES.items() if name in charts],
            agreement_name=AGREEMENT[results.spec.task],
            base=results.benchmark[BASE],
            compiled=results.benchmark[COMPILED],
        )
    )
