"""A small project in which everything is there that the stage package reads, and a release made of it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ruamel.yaml import YAML

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.errors import SpecError
from onnx_release.core.files import rounded, write_json, write_text
from onnx_release.core.params import Runtime
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.core.spec import Spec, Task
from onnx_release.core.variants import SHIPPABLE
from onnx_release.core.yaml_files import read_yaml
from onnx_release.packaging.package import package
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from tests.candidates import timing
from tests.imports import ROOT
from tests.validated import validated

MODEL = "digits_cnn"
# What the server imports of the library, at least; the real one lies in serving/.
SERVER = """
import numpy
from fastapi import FastAPI

from onnx_release.data import model_data
from onnx_release.runtime import onnx_model
from onnx_release.runtime.release import open_release
"""
HARDWARE_FACTS = {
    "cpu": "AMD EPYC",
    "cpu_family_model_stepping": [25, 17, 1],
    "architecture": "x86_64",
    "cores": 2,
    "memory_gib": 24,
    "gpus": [],
    "instruction_sets": ["avx2"],
    "system": "Linux",
    "python": "3.11.7",
    "packages": {"numpy": "2.4.6"},
}
# Figures that the tests of the pages know, in place of those that the real validate() gives for the model's task.
FIGURES = {
    "cases": 504,
    "agreement": 0.99,
    "agreement_low": 0.98,
    "agreement_high": 1.0,
    "accuracy": 0.97,
    "accuracy_low": 0.96,
    "accuracy_high": 0.98,
    "accuracy_torch": 0.98,
    "accuracy_drop": 0.01,
    "sqnr_db": 30.5,
    "cosine": 0.9991,
    "max_abs_error": 0.1,
    "error_vs_torch_rounding": 1.25,
}
TIMING = timing(
    0.125,
    latency_ms={**dict.fromkeys(("median", "mean", "std", "min", "max"), 0.125), "p95": 0.25, "p99": None},
    speedup_vs_eager=5.5,
    speedup_low=5.0,
    speedup_high=6.0,
    load_ms=9.5,
    peak_memory_mb=55.5,
).model_dump()
BENCHMARK = {
    **{"batch": 1, "threads": 2, "machine": "AMD EPYC, 2 cores", "provider": "CPUExecutionProvider"},
    **{"provider_note": "", "copies": "none", "settings": {}, "torch_eager": TIMING},
    **{"starts": 3, "rounds": 15, "disturbed_rounds": 0, "repeated_rounds": 0},
    **{"wall_s": 60.0, "calling_s": 40.0, "loading_s": 10.0, "overhead": 0.2},
    "preparation": {"decode_ms": None, "preprocess_ms": None, "raw_items": 0},
}
SUMMARY = SummaryMetrics(
    variant="int8_static",
    reason="",
    refused={},
    accuracy_drop=None,
    agreement=None,
    speedup_vs_eager=5.5,
    speedup_vs_compile=None,
    not_measured="",
    size_mb=0.125,
    compression=2.0,
)
STATIC = QuantizeStaticMetrics.model_validate(
    {
        **{"size_mb": 0.125, "target": "avx2", "weight_type": "int8", "activation_type": "uint8", "reduce_range": True},
        **{"quantized_nodes": 2, "float_nodes": 0, "fused_nodes": 2, "unfused_nodes": 0, "unfused": ""},
        **{"requantized_nodes": 0, "requantized": "", "budget_met": True, "budget_failure": "", "float_layers": ""},
        **{"fitted_graphs": 1, "refined_ranges": 0, "calibration_sqnr_db": 30.0, "calibration_agreement": 1.0},
        **{"float_operators": "", "plain_layers": ""},
    }
)


def make_project(folder: Path, model: str = MODEL, server: str = SERVER) -> None:
    """Write to `folder` what package() reads for `model`, whose variants all do nothing but multiply."""
    for name in ("onnx_release", f"models/{model}"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.partial"))
    for name in ("requirements.txt", "constraints.txt", "requirements-serving.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    write_text(folder / "serving/__main__.py", server)
    write_text(folder / "serving/page/index.html", "<!doctype html>\n")
    for variant in SHIPPABLE:
        save_digits(folder / ModelFiles(model).variant(variant))
    write_results(folder, model)
    write_json(folder / HARDWARE, HARDWARE_FACTS)


def write_results(folder: Path, model: str) -> None:
    """Write the metrics of a model, whose spec.yaml is there, and what runs it."""
    files = ModelFiles(model)
    write_validations(folder, model, read_yaml(folder / files.spec, Spec, SpecError).task)
    write_json(folder / files.metrics / "benchmark.json", {**BENCHMARK, **dict.fromkeys(SHIPPABLE, TIMING)})
    write_json(folder / STATIC.path(model), STATIC.content())
    write_json(folder / SUMMARY.path(model), SUMMARY.content())
    write_json(folder / files.provider, {"provider": "CPUExecutionProvider", "note": ""})


def write_validations(folder: Path, model: str, task: Task, labelled: bool | None = None) -> None:
    """Write what prepare and validate say of a model of the task; without `labelled`, with labels where it takes them.

    The keys are those that the real validate() gives, and so are the figures that are null.
    """
    labelled = task in ("classification", "detection") if labelled is None else labelled
    samples = {"evaluation_samples": 500, "evaluation_groups": 500, "evaluation_labelled": 500 * labelled}
    metrics = folder / ModelFiles(model).metrics
    write_json(metrics / "prepare.json", {**samples, "calibration_samples": 160, "calibration_groups": 160})
    for variant in SHIPPABLE:
        write_json(metrics / "validate" / f"{variant}.json", validation(task, labelled))


def validation(task: Task, labelled: bool) -> dict[str, Any]:
    """metrics/NAME/validate/VARIANT.json of a model of the task."""
    real = validated(task, 3 if labelled else 0)
    known = {key: value for key, value in FIGURES.items() if real[key] is not None}
    return rounded(real | known | {"labelled": 500 * labelled})


def save_digits(path: Path) -> None:
    """A model with the interface of digits_cnn: the mean of the picture times a weight for each class."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
            numpy_helper.from_array(np.arange(10, dtype=np.float32), "weights"),
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def change_json(path: Path, change: Mapping[str, Any]) -> None:
    write_json(path, {**YAML(typ="safe").load(path.read_text()), **change})


def make_release(project: Path, folder: Path | None = None, model: str = MODEL) -> Path:
    """Package a model of `project` into `folder` below it, by default its own, which must not be there."""
    folder = folder or ModelFiles(model).release
    made = project / folder
    made.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        package(ModelFiles(model), Runtime(provider="cpu", intra_threads=1), 0.95, folder)
    return made
