"""Releases for the server's tests: the real server, packaged with models whose answers are known by hand."""

import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper
import numpy as np

from onnx_release.files import write_text
from onnx_release.paths import variant_model
from onnx_release.variants import SHIPPABLE
from tests.imports import ROOT
from tests.release_project import make_project, make_release

COLOURS = """
task: classification
sources: []
images: {folder: colours, resize: 8, crop: 8, mean: [0, 0, 0], std: [1, 1, 1], classes: [red, green, blue]}
dimensions:
  batch: {min: 1, max: 4, example: 2}
inputs:
  - {name: input, dtype: float32, shape: [batch, 3, 8, 8]}
outputs:
  - {name: logits, dtype: float32, shape: [batch, 3]}
variants: [fp16, int8_dynamic, int8_static]
budget: {agreement: 0.5}
"""


def colours_release(folder: Path) -> Path:
    """A release, with the real server, that says which colour a picture has most of: logits are ten times the means."""
    shutil.copytree(ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    server = (folder / "serving/__main__.py").read_text()
    make_project(folder, server=server)
    write_text(folder / "models/colours/spec.yaml", COLOURS)
    for variant in SHIPPABLE:
        save_colours(folder / variant_model(variant))
    return make_release(folder, model="colours")
