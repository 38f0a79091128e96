"""A small DVC project of several models, with the stages of dvc.yaml that `make repro` names, each done in no time."""

import re
import shutil
from pathlib import Path

from onnx_release.core.files import write_text
from onnx_release.core.paths import ModelFiles
from tests.clone import list_models
from tests.digits_spec import DIGITS_SPEC
from tests.imports import ROOT

ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
# Each stage copies what it is made of. A test may have it fail or wait, in a file with the name of the stage.
STAGE = """
import json
import pathlib
import signal
import sys

from onnx_release.core.command import run_stage

stage = sys.argv.pop(1)


def main(model: str) -> None:
    asked = pathlib.Path(f"{stage}@{model}")
    if asked.is_file() and asked.read_text() == "fails":
        sys.exit(f"{asked} fails")
    if asked.is_file():
        print("waiting", flush=True)
        signal.pause()
    source = pathlib.Path("models") / model / "weights.txt"
    prepared = pathlib.Path("data/prepared") / model / "weights.txt"
    if stage == "prepare":
        prepared.parent.mkdir(parents=True)
        prepared.write_text(source.read_text())
        metrics = pathlib.Path("metrics") / model / "prepare.json"
        metrics.parent.mkdir(parents=True, exist_ok=True)
        metrics.write_text(json.dumps({"weights": prepared.read_text()}))
        return
    folder = pathlib.Path("artifacts") / model / {"package": "release"}.get(stage, stage)
    folder.mkdir(parents=True)
    manifest = json.loads(pathlib.Path("manifest.json").read_text())
    (folder / "MANIFEST.json").write_text(json.dumps(manifest | {"model": model, "variant": prepared.read_text()}))


run_stage(main)
"""
HARDWARE = """
import pathlib, sys

if pathlib.Path("hardware").is_file():
    sys.exit("hardware fails")
pathlib.Path("artifacts").mkdir(exist_ok=True)
pathlib.Path("artifacts/hardware.json").write_text("{}")
"""
# Of the model m.
MODEL_PIPELINE = """
stages:
  prepare:
    wdir: ../..
    cmd: python stage.py prepare m
    deps: [models/m/weights.txt]
    outs: [data/prepared/m]
    metrics:
      - metrics/m/prepare.json: {cache: false}
"""
PIPELINE = """
vars: [models.yaml]
stages:
  report:
    matrix: {model: "${models}"}
    cmd: python stage.py report ${item.model}
    deps: ["data/prepared/${item.model}"]
    outs: ["artifacts/${item.model}/report"]
  package:
    matrix: {model: "${models}"}
    cmd: python stage.py package ${item.model}
    deps: ["artifacts/hardware.json", "data/prepared/${item.model}"]
    outs: ["artifacts/${item.model}/release"]
"""
MACHINE_PIPELINE = """
stages:
  hardware:
    wdir: ..
    cmd: python hardware.py
    always_changed: true
    outs: [artifacts/hardware.json]
"""
MANIFEST = """{"format": 1, "task": "tensor", "git": null, "files": {}, "metrics": {}, "hardware": {}, "versions": {},
"opsets": {}}"""


def make_small_project(folder: Path, *models: str) -> Path:
    """Write it to the folder, without git and with these models on its list. Nothing has run."""
    write_text(folder / ".dvc/config", "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n")
    shutil.copy(ROOT / "params.yaml", folder)
    for name, text in {
        "dvc.yaml": PIPELINE,
        "stages/dvc.yaml": MACHINE_PIPELINE,
        "stage.py": STAGE,
        "hardware.py": HARDWARE,
        "manifest.json": MANIFEST,
    }.items():
        write_text(folder / name, text)
    for model in models:
        add_small_model(folder, model)
    list_models(folder, *models)
    return folder


def add_small_model(folder: Path, model: str) -> None:
    """Write the folder and the stages of a model, which is not on the list by that."""
    files = ModelFiles(model)
    write_text(folder / files.spec, DIGITS_SPEC)
    write_text(folder / files.overrides, "{}\n")
    write_text(folder / files.folder / "weights.txt", f"{model} 1")
    write_text(folder / files.pipeline, re.sub(r"\bm\b", model, MODEL_PIPELINE))
