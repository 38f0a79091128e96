"""Bring the generated parts of README.md up to date: the results, from metrics/, and the picture of the pipeline."""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from onnx_release.command import run_tool
from onnx_release.files import read_json, write_text
from onnx_release.paths import METRICS, PIPELINE_BENCHMARK
from onnx_release.report import number, percent
from onnx_release.variants import BASE, VARIANTS

README = Path("README.md")


def main(_: argparse.Namespace) -> None:
    metrics = {name: read_json(Path(name)) for name in source_files()}
    write_text(README, updated(README.read_text(encoding="utf-8"), metrics, pipeline_picture()))


def source_files() -> list[str]:
    """The files that the results are made from."""
    names = ("benchmark", "prepare", *(f"validate/{variant}" for variant in VARIANTS))
    return [*((METRICS / f"{name}.json").as_posix() for name in names), PIPELINE_BENCHMARK.as_posix()]


def updated(readme: str, metrics: dict[str, Any], picture: str) -> str:
    """`readme` with its generated parts made anew from `source_files` by name and the picture of the pipeline."""
    return replace_part(replace_part(readme, "results", results_table(metrics)), "pipeline", picture)


def replace_part(readme: str, name: str, content: str) -> str:
    """`readme` with `content` between the markers of the part. Raises ValueError where they are missing."""
    pattern = re.compile(rf"(<!-- begin {name}[^>]*-->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(readme):
        raise ValueError(f"README.md has no markers for the part {name}")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", readme)


def results_table(metrics: dict[str, Any]) -> str:
    """Markdown: PyTorch eager and every variant, and under the table how it was measured."""
    benchmark, prepare, *validations, pipeline = (metrics[name] for name in source_files())
    torch_accuracy = validations[0].get("accuracy_torch")
    lines = [
        "| | same answer as PyTorch | accuracy | SQNR, dB | latency, ms | speed-up | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
        f"| PyTorch eager | | {percent(torch_accuracy)} | | {timing_cells(benchmark[BASE])} |",
    ]
    for variant, row in zip(VARIANTS, validations, strict=True):
        interval = f" [{percent(row['agreement_low'])}, {percent(row['agreement_high'])}]" if "agreement" in row else ""
        cells = [
            variant,
            percent(row.get("agreement")) + interval,
            percent(row.get("accuracy")),
            number(row["sqnr_db"]),
            timing_cells(benchmark[variant]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{prepare['evaluation_samples']} samples from {prepare['evaluation_groups']} photographs, "
        f"{prepare['evaluation_labelled']} labelled; batch {benchmark['batch']}, {benchmark['threads']} threads, "
        f"{benchmark['machine']}. Brackets are 95 % intervals. The pipeline takes "
        f"{number(pipeline['fresh_seconds'])} s in a fresh clone with the packages installed and "
        f"{number(pipeline['unchanged_seconds'])} s when nothing changed (`python -m benchmarks.pipeline`, "
        f"{pipeline['machine']}).",
    ]
    return "\n".join(lines)


def timing_cells(timing: dict[str, Any]) -> str:
    interval = f" [{number(timing['speedup_low'])}, {number(timing['speedup_high'])}]"
    speedup = number(timing["speedup_vs_eager"]) + (interval if timing["speedup_low"] < timing["speedup_high"] else "")
    return f"{number(timing['latency_ms']['median'])} | {speedup} | {number(timing['peak_memory_mb'])}"


def pipeline_picture() -> str:
    """DVC's own picture of dvc.yaml, in the form that code hosts draw."""
    command = [sys.executable, "-m", "dvc", "dag", "--mermaid"]
    picture = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return f"```mermaid\n{picture}\n```"


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
