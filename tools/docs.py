"""Bring the generated parts of README.md and docs/ up to date, from metrics/, benchmarks/ and dvc.yaml."""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from onnx_release.command import run_tool
from onnx_release.files import read_json, write_text
from onnx_release.report import number, percent
from onnx_release.variants import BASE, VARIANTS

# Gives the content of a JSON file by its path.
Read = Callable[[str], Any]


def main(_: argparse.Namespace) -> None:
    texts = {
        page: updated(page, Path(page).read_text(encoding="utf-8"), lambda name: read_json(Path(name)))
        for page in PAGES
    }
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


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    lines = [list(header), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)


def results(read: Read) -> str:
    """PyTorch eager and every variant, and under the table how it was measured."""
    benchmark, prepare = read("metrics/benchmark.json"), read("metrics/prepare.json")
    validations = {variant: read(f"metrics/validate/{variant}.json") for variant in VARIANTS}
    pipeline = read("benchmarks/pipeline.json")
    accuracy = validations[VARIANTS[0]].get("accuracy_torch")
    rows = [["PyTorch eager", "", percent(accuracy), "", *timing_cells(benchmark[BASE])]]
    for variant, row in validations.items():
        interval = f" [{percent(row['agreement_low'])}, {percent(row['agreement_high'])}]" if "agreement" in row else ""
        same = percent(row.get("agreement")) + interval
        rows.append(
            [variant, same, percent(row.get("accuracy")), number(row["sqnr_db"]), *timing_cells(benchmark[variant])]
        )
    header = ["", "same answer as PyTorch", "accuracy", "SQNR, dB", "latency, ms", "speed-up", "peak memory, MB"]
    return (
        f"{table(header, rows)}\n\n"
        f"{prepare['evaluation_samples']} samples from {prepare['evaluation_groups']} photographs, "
        f"{prepare['evaluation_labelled']} labelled; batch {benchmark['batch']}, {benchmark['threads']} threads, "
        f"{benchmark['machine']}. Brackets are 95 % intervals. The pipeline takes "
        f"{number(pipeline['fresh_seconds'])} s in a fresh clone with the packages installed and "
        f"{number(pipeline['unchanged_seconds'])} s when nothing changed (`python -m benchmarks.pipeline`, "
        f"{pipeline['machine']})."
    )


def timing_cells(timing: Mapping[str, Any]) -> list[str]:
    interval = f" [{number(timing['speedup_low'])}, {number(timing['speedup_high'])}]"
    speedup = number(timing["speedup_vs_eager"]) + (interval if timing["speedup_low"] < timing["speedup_high"] else "")
    return [number(timing["latency_ms"]["median"]), speedup, number(timing["peak_memory_mb"])]


def pipeline_picture(_: Read) -> str:
    """DVC's own picture of dvc.yaml, in the form that code hosts draw."""
    command = [sys.executable, "-m", "dvc", "dag", "--mermaid"]
    picture = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
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
    header = ["`budget.minutes`", "graphs fitted", "float layers", "SQNR, calibration", "SQNR, evaluation", "agreement"]
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
}


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
