"""A network of over 2 GB with random weights, and how much memory a process takes that works on it."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_release.core.files import write_text
from onnx_release.core.paths import ModelFiles
from tests.clone import list_models, path_with_python
from tools.new_model import pipeline_text

SPEC = """
task: tensor
sources: []
dimensions:
  batch: {min: 1, max: 2, example: 2}
inputs:
  - {name: x, dtype: float32, shape: [batch, 3, 4096]}
outputs:
  - {name: y, dtype: float32, shape: [batch, 3, 4096]}
"""
REDUCED_VARIANTS = """
variants: [fp16, int8_dynamic, int8_static]
budget: {sqnr_db: 20}
"""
NETWORK = '''
"""The feed-forward half of a transformer, 16 times over: 32 weights of 64 MiB."""

import torch
from torch import nn

WIDTH, BLOCKS = 4096, 16


class Block(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.first, self.second = linear(values), linear(values)

    def forward(self, x):
        return x + self.second(nn.functional.gelu(self.first(self.norm(x))))


def linear(values):
    """Numbers are drawn once, since that takes long; every layer has them in another order."""
    layer = nn.Linear(WIDTH, WIDTH, device="meta").to_empty(device="cpu")
    values.copy_(values.roll(1))
    layer.weight.data.copy_(values)
    layer.bias.data.copy_(values[0])
    return layer


def build(raw):
    values = torch.empty(WIDTH, WIDTH).uniform_(-0.02, 0.02, generator=torch.Generator().manual_seed(0))
    return nn.Sequential(*(Block(values) for _ in range(BLOCKS))).eval()
'''
DATA = """
import numpy as np

from onnx_release.core.types import Sample


def samples(raw, split):
    random = np.random.default_rng(len(split))
    for _ in range(2):
        yield Sample({"x": random.standard_normal((3, 4096), np.float32)})


def preprocess(item):
    return {"x": item}
"""
# PyTorch and one file, each in a process of its own, as the stage benchmark times them all.
BENCHMARK = """
from onnx_release.timing.benchmark import measure
from onnx_release.timing.contenders import onnx_contenders, torch_contenders
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.variants import REDUCED
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.core.spec import load_spec

files, spec = ModelFiles("big"), load_spec("big")
params = load_params(files)
runtime = params.runtime.model_copy(update={"provider": "cpu", "intra_threads": 1})
entries = torch_contenders("big", files.raw, spec, runtime, "cpu", ("torch_eager",))
entries += onnx_contenders({"fp32": files.variant("fp32")}, files.raw, spec, runtime)
run = measure(entries, real_batches(SampleFile(files.evaluation_samples), 1, spec, None), params.benchmark)
assert not any(item.failure for item in run.measurements.values()), run.measurements
"""


@dataclass(frozen=True)
class Usage:
    """How a command went: the largest resident memory of it and of any process that it started, in bytes."""

    exit_code: int
    output: str
    seconds: float
    peak_memory: int


def add_big_model(clone: Path, whole: bool = False) -> None:
    """Make models/big in the clone, the one model on its list; `whole` with all variants and every exporter tried."""
    folder = clone / "models/big"
    folder.mkdir()
    for name, text in (
        ("spec.yaml", SPEC + (REDUCED_VARIANTS if whole else "variants: []\n")),
        ("params.yaml", "{}" if whole else "export: {exporter: dynamo, opset: 18}\n"),
        ("network.py", NETWORK),
        ("data.py", DATA),
    ):
        (folder / name).write_text(text.lstrip())
    list_models(clone, "big")
    write_text(clone / ModelFiles("big").pipeline, pipeline_text("big"))


def measured(clone: Path, *arguments: str) -> Usage:
    """Run this environment's Python in the clone and wait for it."""
    return measure(clone, arguments, until=None)


def measured_server(release: Path) -> Usage:
    """Start the server of a release, and stop it once it takes requests; its seconds are those until then."""
    return measure(release, ("-m", "serving", "--port", "0"), until="serving on")


def measure(folder: Path, arguments: Sequence[str], until: str | None) -> Usage:
    """Run Python in a folder until it ends, or until a line of its output begins with `until`."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path_with_python()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until and line.startswith(until):
            process.terminate()
            break
    seconds = time.perf_counter() - start
    lines += process.stdout
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(process.returncode, "".join(lines), seconds, usage.ru_maxrss * unit)
