"""Bring the generated parts of README.md and docs/ up to date, from metrics/, benchmarks/ and dvc.yaml."""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.serving_page import describe_serving
from onnx_release.core.command import run_tool
from onnx_release.core.errors import DataError
from onnx_release.core.files import read_json, refuse_conflict, write_text
from onnx_release.core.metrics import LEFT_OUT
from onnx_release.core.paths import LOCK, MODELS_BENCHMARK, PARAMS, PIPELINE
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import BASE, VARIANTS
from onnx_release.core.yaml_files import load_yaml
from onnx_release.data.metrics import PrepareMetrics
from onnx_release.report.pages import contender_names
from onnx_release.report.text import (
    AGREEMENT,
    ANSWER_DETAILS,
    number,
    percent,
    share_cell,
    speedup_cell,
    table,
    timing_cells,
)
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics
from onnx_release.timing.speedup import Rounds, Speedup
from onnx_release.validate.metrics import ValidateMetrics
from tools.gpu_check import GPU_CHECK, describe_gpu_check

# Gives the content of a JSON file by its path.
Read = Callable[[str], Any]

# US dollars, as docs/scale-out.md states them: a core of a node for an hour, and a GB in S3 for a month.
CORE_HOUR = 0.085 / 2
GB_MONTH = 0.023
NODE_CORES = 2  # of the machine that benchmarks/pipeline.json is from

# Headers of `neighbour_cells`.
NEIGHBOUR_FIGURES = ("mean cosine", "least cosine", "same nearest neighbour")


def main(_: argparse.Namespace) -> None:
    texts = {
        page: updated(page, Path(page).read_text(encoding="utf-8"), lambda name: read_json(Path(name)))
        for page in PAGES
    }
    for page, text in texts.items():
        refuse_conflict(Path(page), text, DataError)  # in what people write; the generated parts are new
    for page, text in texts.items():
        write_text(Path(page), text)


def updated(page: str, text: str, read: Read) -> str:
    """The text of a page with its generated parts made anew."""
    for name, part in PAGES[page].items():
        text = replace_part(text, name, part(read))
    return text


def replace_part(text: str, name: str, content: str) -> str:
    """`text` with `content` between the markers of the part. Raises ValueError where they are missing."""
    pattern = re.compile(rf"(<!-- begin {name}:[^>]*-->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"there are no markers for the part {name}")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def results(read: Read) -> str:
    """PyTorch eager and every variant, and under the table how it was measured."""
    benchmark = BenchmarkMetrics.parse(read("metrics/benchmark.json"), "metrics/benchmark.json")
    prepare = PrepareMetrics.parse(read("metrics/prepare.json"), "metrics/prepare.json")
    found = {variant: read(f"metrics/validate/{variant}.json") for variant in VARIANTS}
    validations = {
        variant: ValidateMetrics.parse(row, f"metrics/validate/{variant}.json")
        for variant, row in found.items()
        if LEFT_OUT not in row
    }
    pipeline = read("benchmarks/pipeline.json")
    answers = variants_table("same answer as PyTorch", ["accuracy"], validations, benchmark.contenders, benchmark)
    return (
        f"{answers}\n\n"
        f"{prepare.evaluation_samples} samples from {prepare.evaluation_groups} groups, "
        f"{prepare.evaluation_labelled} labelled; batch {benchmark.batch}, {benchmark.threads} threads, "
        f"{benchmark.machine}. Brackets are 95 % intervals. The pipeline takes "
        f"{number(pipeline['fresh_seconds'])} s in a fresh clone with the packages installed and "
        f"{number(pipeline['unchanged_seconds'])} s when nothing changed (`python -m benchmarks.pipeline`, "
        f"{pipeline['machine']})."
    )


def other_model(model: str) -> Callable[[Read], str]:
    """The same table for a model beside the default one, with what its task has of answers."""

    def make(read: Read) -> str:
        found = read(MODELS_BENCHMARK.as_posix())[model]
        source, task = f"{MODELS_BENCHMARK}, {model}", load_spec(model).task
        benchmark, prepare = found["benchmark"], found["prepare"]
        contenders = {
            name: ContenderMetrics.model_validate(row) for name, row in benchmark.items() if isinstance(row, dict)
        }
        validations = {
            name: ValidateMetrics.parse(found["validate"][name], source)
            for name in VARIANTS
            if name in found["validate"]
        }
        first = validations["fp32"]
        columns = [name for name in ("accuracy", *ANSWER_DETAILS[task]) if getattr(first, name) is not None]
        return (
            f"{variants_table(AGREEMENT[task], columns, validations, contenders, Rounds(0, 0))}\n\n"
            f"{prepare['evaluation_samples']} samples of {prepare['evaluation_groups']} "
            f"groups, {prepare['evaluation_labelled']} labelled; batch {benchmark['batch']}, "
            f"{benchmark['threads']} threads, {found['machine']}. Brackets are 95 % intervals. "
            f"`{found['summary']['variant']}` is what is released. "
            f"The pipeline took {number(found['seconds'])} s in a fresh clone with the packages installed "
            f"(`python -m benchmarks.models {model}`)."
        )

    return make


def variants_table(
    agreement: str,
    columns: list[str],
    validations: dict[str, ValidateMetrics],
    contenders: dict[str, ContenderMetrics],
    rounds: BenchmarkMetrics | Rounds,
) -> str:
    """PyTorch in its forms and every variant: its agreement, `columns` of its validation, its SQNR and its timing."""
    rows = []
    for name in [name for name in contender_names(contenders) if name.startswith("torch_")]:
        known = {"accuracy": percent(validations["export"].accuracy_torch)} if name == BASE else {}
        details = [known.get(column, "") for column in columns]
        timing = contenders[name]
        rows.append([name, "", *details, "", *timing_cells(timing, rounds), number(timing.peak_memory_mb)])
    for variant, row in validations.items():
        values = {name: getattr(row, name) for name in columns}
        details = [percent(value) if name == "accuracy" else number(value, 5) for name, value in values.items()]
        same = share_cell(row.agreement, row.agreement_low, row.agreement_high)
        timing = contenders[variant]
        cells = [*timing_cells(timing, rounds), number(timing.peak_memory_mb)]
        rows.append([variant, same, *details, number(row.sqnr_db), *cells])
    header = [
        *("", agreement),
        *(name.replace("_", " ").replace("iou", "IoU") for name in columns),
        *("SQNR, dB", "latency, ms", "times as fast as eager", "as torch.compile", "peak memory, MB"),
    ]
    return table(header, rows)


def padding(read: Read) -> str:
    """How far padding moves an embedding of minilm, in PyTorch and in every variant."""
    found = read("benchmarks/sequences.json")
    keys = ("by_1", "by_7", "to_longest")
    rows = [
        [row["name"], *(number(row[key], 1) if row[key] else "0" for key in keys), str(row["texts"])]
        for row in found["padding"]
    ]
    header = ["", "1 token of padding", "7", "to the longest", "texts"]
    return (
        f"{table(header, rows)}\n\nThe largest difference of one of the numbers of an embedding of length 1, on an "
        f"{found['machine']} (`python -m benchmarks.sequences`)."
    )


def batches(read: Read) -> str:
    found = read("benchmarks/sequences.json")
    rows = [[row["name"], *neighbour_cells(row)] for row in found["batches"]]
    return (
        f"{table(['`int8_dynamic`', *NEIGHBOUR_FIGURES], rows)}\n\n{found['texts']} texts of "
        f"{found['tokens']['least']} or more tokens, half of them of at most {number(found['tokens']['median'])}."
    )


def sequence_recipes(read: Read) -> str:
    """What onnxruntime's dynamic quantizer makes of minilm by its options, and the values that cost it the most."""
    found = read("benchmarks/sequences.json")
    rows = [
        [
            *(row["name"], str(row["quantized"]), *neighbour_cells(row)),
            f"{row['size_mb']:.1f}",
            speedup_cell(Speedup(row["speedup"], row["speedup_low"], row["speedup_high"])),
        ]
        for row in found["recipes"]
    ]
    first = found["wide_products"][0]
    return (
        f"{table(['', 'products in INT8', *NEIGHBOUR_FIGURES, 'MB', 'times as fast as fp32'], rows)}\n\n"
        f"{found['texts']} texts; times at batch 1 and the `example` size, brackets are 95 % intervals, on an "
        f"{found['machine']}.\n\n**Single values cost the most.** What goes into the first layer's product from 1,536 "
        f"to 384 reaches about {number(first['largest_at_least'], 2)} in every text, and 99.9 % of it is below "
        f"{number(first['quantile_999'], 2)}: a range that holds the one value leaves few steps for the others."
    )


def neighbour_cells(row: dict[str, float]) -> list[str]:
    """Of a row of benchmarks/sequences.json."""
    return [f"{row['mean_cosine']:.4f}", f"{row['least_cosine']:.4f}", f"{row['same_neighbour']:.3f}"]


def pipeline_picture(_: Read) -> str:
    """DVC's own picture of dvc.yaml, in the form that code hosts draw."""
    command = [sys.executable, "-m", "dvc", "dag", "--mermaid"]
    drawn = subprocess.run(command, capture_output=True, text=True, check=False)
    if drawn.returncode:
        for path in (PARAMS, PIPELINE, LOCK):
            load_yaml(path, DataError)  # which says more
        raise DataError(f"`dvc dag --mermaid` failed: {drawn.stderr.strip()}")
    picture = drawn.stdout.strip()
    return f"```mermaid\n{picture}\n```"


def recipes(read: Read) -> str:
    """int8_static beside other quantizers, the best last."""
    found = read("benchmarks/quantization.json")
    models = sorted(found["models"].items(), key=lambda item: item[1]["sqnr_db"])
    rows = [
        [marked(name), f"{row['agreement']:.3f}", f"{row['sqnr_db']:.1f} dB", f"{row['latency']:.2f}"]
        for name, row in models
    ]
    return f"{table(['', 'agreement', 'SQNR', 'latency'], rows)}\n\nOn an {found['machine']}."


def avx2(read: Read) -> str:
    models = sorted(read("benchmarks/avx2.json")["models"].items(), key=lambda item: item[1]["sqnr_db"])
    rows = [[marked(name), f"{row['agreement']:.3f}", f"{row['sqnr_db']:.1f} dB"] for name, row in models]
    return table(["on AVX2", "agreement", "SQNR"], rows)


def marked(name: str) -> str:
    """In bold if it is the pipeline's."""
    return f"**{name}**" if name.startswith("int8_static") else name


def curve(read: Read) -> str:
    rows = [
        [
            *(number(row["minutes"]), str(row["fitted_graphs"]), str(row["float_layers"])),
            *(f"{row['calibration_sqnr_db']:.1f} dB", f"{row['sqnr_db']:.1f} dB", f"{row['agreement']:.3f}"),
        ]
        for row in read("benchmarks/quantization_curve.json")["minutes"]
    ]
    header = [
        "`quantize_static.minutes`",
        "graphs fitted",
        "float layers",
        "SQNR, calibration",
        "SQNR, evaluation",
        "agreement",
    ]
    return table(header, rows)


def calibration(read: Read) -> str:
    found = read("benchmarks/calibration.json")
    return (
        f"{number(found['onnxruntime_seconds'])} s against {number(found['seconds'])} s, "
        f"{number(found['speedup'])} times as fast; {found['beyond_one_bin']} of {2 * found['ranges']} ends is further "
        "away than a bin. Part of it is in not observing what goes straight into a Clip: counting the same values "
        f"alone is {number(found['histogram_speedup'])} times as fast, here on all cores and there on one. Memory is "
        f"{found['memory_mb_100']:.0f} MB for 100 samples and {found['memory_mb_2000']:.0f} MB for 2,000 "
        f"({found['machine']})."
    )


def ablation(part: str, header: list[str], columns: list[str]) -> Callable[[Read], str]:
    """A table of benchmarks/ablation.json: a row for each entry, and what it has under each column."""

    def make(read: Read) -> str:
        entries = read("benchmarks/ablation.json")[part]
        rows = [[row["name"], *(f"{row[key]:.1f}" if key in row else "" for key in columns)] for row in entries]
        return table(header, rows)

    return make


def float_layers(read: Read) -> str:
    found = read("benchmarks/ablation.json")["float_layers"]
    alone, kept = found["quantized when loaded"], found["kept in float"]
    return (
        f"With all weights of this network in float, the answers had {alone:.1f} dB as ONNX Runtime loads them, and "
        f"{kept:.1f} dB as they are meant."
    )


def repeat(read: Read) -> str:
    """Every speed-up of two runs, and how far they are apart."""
    found = read("benchmarks/repeat.json")
    rows = [
        [
            name,
            *(number(latency) for latency in item["latency_ms"]),
            *(number(speedup) for speedup in item["speedups"]),
            f"[{number(item['interval'][0])}, {number(item['interval'][1])}]",
            percent(item["change"]),
        ]
        for name, item in found["contenders"].items()
    ]
    header = [
        "",
        "ms, first",
        "ms, second",
        "times as fast as eager, first",
        "second",
        "the first's interval",
        "change",
    ]
    times = "; ".join(
        f"{number(run['wall_s'])} s, of which {percent(run['calling_s'] / run['wall_s'])} were calls, "
        f"{percent(run['loading_s'] / run['wall_s'])} loading and torch.compile's compilation, and "
        f"{percent(run['overhead'])} the harness's own"
        for run in found["runs"]
    )
    eager = found["contenders"][BASE]["latency_ms"]
    openvino = f" with OpenVINO {found['openvino']} on the same files, in float32," if found["openvino"] else ""
    return (
        f"{table(header, rows)}\n\nThe whole benchmark of {found['model']} twice,{openvino} on an {found['machine']} "
        f"(`python -m benchmarks.repeat`). The largest change of a speed-up is {percent(found['largest_change'])}, "
        f"while {BASE} itself took {number(eager[0])} and {number(eager[1])} ms. The runs took {times}."
    )


def page_faults(read: Read) -> str:
    """Every start of PyTorch with memory given back and with memory kept."""
    found = read("benchmarks/page_faults.json")
    rows = [
        [name, *(" to ".join(number(entry[key]) for entry in (low, high)) for key in ("ms", "faults", "kernel_ms"))]
        for name, low, high in (
            (name, extremes(found[kept], min), extremes(found[kept], max))
            for name, kept in (("memory as glibc handles it", "as_it_is"), ("memory kept", "kept"))
        )
    ]
    header = ["", "ms a call", "page faults a call", "of it in the kernel, ms"]
    return (
        f"{table(header, rows)}\n\n{len(found['kept'])} starts of each, {found['model']} in PyTorch eager on an "
        f"{found['machine']} (`python -m benchmarks.page_faults`)."
    )


def extremes(entries: list[dict[str, float]], pick: Callable[[Iterable[float]], float]) -> dict[str, float]:
    return {key: pick(entry[key] for entry in entries) for key in entries[0]}


def sweep_cost(read: Read) -> str:
    """The measured sweep on Ray, and what a thousand of its experiments come to at the prices above."""
    found, pipeline = read("benchmarks/scale_out.json"), read("benchmarks/pipeline.json")
    two = found["two_nodes"]
    count, seconds = len(two["experiments"]), sum(two["experiments"].values())
    hours = 1000 * seconds / count / 3600
    gigabytes = 1000 * two["new_mb"] / count / 1000
    whole = 1000 * pipeline["fresh_seconds"] * NODE_CORES / 3600
    rows = [
        ["`digits_cnn`, not timed", f"{number(hours)} core-hours", f"{number(hours * CORE_HOUR)}"],
        ["what it adds to the DVC remote", f"{number(gigabytes)} GB", f"{number(gigabytes * GB_MONTH)} a month"],
        [f"`{pipeline['model']}`, all of it, timed", f"{number(whole)} core-hours", f"{number(whole * CORE_HOUR)}"],
    ]
    return (
        f"{table(['1,000 experiments', '', 'US dollars'], rows)}\n\nMeasured: {count} experiments of digits_cnn, those "
        f"that prepare included, took {number(found['one_node']['seconds'])} s on a node of one core and "
        f"{number(two['seconds'])} s on two, {number(found['speedup'])} times as fast; {number(seconds / count)} s "
        f"each, with the clone, the pull and the push; {number(two['new_mb'] / count)} MB and "
        f"{number(two['new_files'] / count)} files each for the DVC remote ({found['machine']}, "
        f"`python -m benchmarks.scale_out`). The last row is an upper bound: the whole pipeline with nothing shared, "
        f"{number(pipeline['fresh_seconds'])} s on {NODE_CORES} cores ({pipeline['machine']})."
    )


def sweeps(read: Read) -> str:
    """How long the grids of digits_cnn take, and whether an experiment repeated what another had done."""
    found = read("benchmarks/sweep.json")
    rows = [
        [
            f"`sweeps/{grid}.yaml`",
            *(str(item[key]) for key in ("experiments", "preparing_experiments", "stages_run", "new_in_run_cache")),
            str(sum(item["repeated"].values())),
            number(item["seconds"]),
        ]
        for grid, item in found.items()
        if grid != "machine"
    ]
    header = ["", "experiments", "that prepare", "stages run", "new in the run cache", "run twice on the same", "s"]
    return (
        f"{table(header, rows)}\n\nOne after the other, from an empty cache, on {found['machine']}. `hardware` and "
        "`sources` run wherever something depends on them, and the run cache never keeps them."
    )


def comparison(read: Read) -> str:
    """How often the same, measured again, was called no difference, and how often a slowdown was found."""
    found = read("benchmarks/compare.json")
    count = found["replicates"]
    slower = [
        [factor, *(f"{times} of {count}" for times in figures.values())] for factor, figures in found["slower"].items()
    ]
    figures = next(iter(found["slower"].values()))
    apart = [[kind, item["figure"], f"{item['factor']:.3g}"] for kind, item in found["largest_factor"].items()]
    others = "; ".join(f"{name} ({times} times)" for name, times in found["others"].items())
    return (
        f"In {found['without_difference']} of {count} repetitions no figure was called different, in all "
        f"{found['figures_without_difference']:,} of {found['figures']:,} figures ({found['machine']})"
        + (f"; the others: {others}" if others else "")
        + f". A variant made slower was found by:\n\n{table(['times as slow', *figures], slower)}\n\n"
        "How many times as much a figure was at most, the machine's own drift taken off:\n\n"
        + table(["kind", "figure", "times"], apart)
    )


PAGES: dict[str, dict[str, Callable[[Read], str]]] = {
    "README.md": {"results": results, "pipeline": pipeline_picture},
    "docs/quantization.md": {
        "recipes": recipes,
        "avx2": avx2,
        "curve": curve,
        "calibration": calibration,
        "steps": ablation("steps", ["each with those above it", "vnni", "avx2"], ["vnni", "avx2"]),
        "float layers": float_layers,
        "left out": ablation("left_out", ["", "vnni", "avx2"], ["vnni", "avx2"]),
        "methods": ablation("methods", ["", "as calibrated", "refined once"], ["as calibrated", "refined"]),
    },
    "docs/detection.md": {"face_pnet": other_model("face_pnet")},
    "docs/sequences.md": {
        "minilm": other_model("minilm"),
        "padding": padding,
        "batches": batches,
        "recipes": sequence_recipes,
    },
    "docs/benchmark.md": {"page faults": page_faults, "repeat": repeat},
    "docs/gpu.md": {"gpu": lambda read: describe_gpu_check(read(GPU_CHECK.as_posix()))},
    "docs/review.md": {"measured": comparison},
    "docs/scale-out.md": {"cost": sweep_cost},
    "docs/serving.md": {"serving": lambda read: describe_serving(read("benchmarks/serving.json"))},
    "docs/sweeps.md": {"measured": sweeps},
}


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
