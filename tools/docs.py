"""Bring the generated parts of README.md and docs/ up to date.

They are made of metrics/, benchmarks/, models.yaml, dvc.yaml and params.yaml. README.md has the models on the list. The
pages on single models need metrics of mobilenet_v2, face_pnet and minilm, whether or not these are on the list.
"""

import argparse
import re
from pathlib import Path
from typing import Any

from benchmarks.serving_page import describe_serving
from benchmarks.serving_stacks_page import describe_stacks
from onnx_release.core.command import run_tool
from onnx_release.core.errors import DataError
from onnx_release.core.files import read_json, refuse_conflict, write_text
from tools.gpu_check import GPU_CHECK, describe_runs
from tools.page_parts import Maker, Read
from tools.page_parts.benchmark import page_faults, repeat
from tools.page_parts.pipeline import cost_of_models, pipeline_picture
from tools.page_parts.quantization import ablation, avx2, calibration, curve, float_layers, recipes
from tools.page_parts.reference import metrics, parameters
from tools.page_parts.results import all_models, results
from tools.page_parts.review import comparison
from tools.page_parts.sequences import batches, padding, sequence_recipes
from tools.page_parts.sweeps import sweep_cost, sweeps


def main(_: argparse.Namespace) -> None:
    texts = {page: updated(page, Path(page).read_text(encoding="utf-8"), read_file) for page in PAGES}
    for page, text in texts.items():
        refuse_conflict(Path(page), text, DataError)  # in what people write; the generated parts are new
    for page, text in texts.items():
        write_text(Path(page), text)


def read_file(name: str) -> Any:
    """Return what is in a file: parsed if it is JSON, as text otherwise."""
    path = Path(name)
    return read_json(path) if path.suffix == ".json" else path.read_text(encoding="utf-8")


def updated(page: str, text: str, read: Read) -> str:
    """Return the text of a page with its generated parts made anew."""
    for name, part in PAGES[page].items():
        text = replace_part(text, name, part(read))
    return text


def replace_part(text: str, name: str, content: str) -> str:
    """Return `text` with `content` between the markers of the part. Raises ValueError where they are missing."""
    pattern = re.compile(rf"(<!-- begin {name}:[^>]*-->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"there are no markers for the part {name}")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


PAGES: dict[str, dict[str, Maker]] = {
    "README.md": {"results": all_models, "pipeline": pipeline_picture},
    "docs/architecture.md": {"models listed": cost_of_models},
    "docs/reference.md": {"parameters": parameters, "metrics": metrics},
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
    "docs/detection.md": {"face_pnet": results("face_pnet")},
    "docs/sequences.md": {
        "minilm": results("minilm"),
        "padding": padding,
        "batches": batches,
        "recipes": sequence_recipes,
    },
    "docs/benchmark.md": {"results": results("mobilenet_v2"), "page faults": page_faults, "repeat": repeat},
    "docs/gpu.md": {"gpu": lambda read: describe_runs(read(GPU_CHECK.as_posix()))},
    "docs/review.md": {"measured": comparison},
    "docs/scale-out.md": {"cost": sweep_cost},
    "docs/serving.md": {
        "serving": lambda read: describe_serving(read("benchmarks/serving.json")),
        "stacks": lambda read: describe_stacks(read("benchmarks/serving_stacks.json")),
    },
    "docs/sweeps.md": {"measured": sweeps},
}


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
