"""What a contender imports and looks for before the clock of its loading starts, what compiles, and its cores."""

import os
import subprocess
import sys

import pytest

from onnx_release.core.errors import ProviderError
from onnx_release.core.files import write_text
from onnx_release.core.params import Runtime
from onnx_release.core.spec import load_spec
from onnx_release.timing.contenders import Contender, prepare
from tests.digits_spec import DIGITS_SPEC
from tests.imports import ROOT

# One layer, which torch.compile leaves to a function that PyTorch has: no compiler for C++ runs.
NETWORK = """
from torch import nn

def build(raw):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
"""
LOAD_AND_CALL = """
import sys
from pathlib import Path

import numpy as np

from onnx_release.core.params import Runtime
from onnx_release.core.spec import load_spec
from onnx_release.timing.contenders import Contender, prepare

load = prepare(Contender("a", sys.argv[1], "net", Path(), load_spec("net"), Runtime(intra_threads=1)))
print("models.net.network" in sys.modules, "torch._dynamo" in sys.modules)
[logits] = load().call({"image": np.ones((2, 1, 8, 8), np.float32)})
print(logits.shape == (2, 10), "torch._inductor.codecache" in sys.modules)
"""


@pytest.mark.parametrize(("kind", "compiles"), [("torch_eager", False), ("torch_compile", True)])
def test_pytorch_and_the_network_are_imported_before_the_clock_starts_and_only_one_compiles(tmp_path, kind, compiles):
    write_text(tmp_path / "models/net/spec.yaml", DIGITS_SPEC)
    write_text(tmp_path / "models/net/network.py", NETWORK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", LOAD_AND_CALL, kind]
    printed = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert printed.split() == ["True", "True", "True", str(compiles)]


CORES = """
import sys
from pathlib import Path

from onnx_release.core.params import Runtime
from onnx_release.core.spec import load_spec
from onnx_release.timing.contenders import Contender, prepare

threads = Runtime(intra_threads=3)
print(prepare(Contender("a", "torch_eager", "net", Path(), load_spec("net"), threads, sys.argv[1]))().cores)
"""


@pytest.mark.parametrize(("device", "cores"), [("cpu", 3), ("meta", 1)])  # torch has "meta" on every machine
def test_off_the_cpu_a_contender_keeps_only_the_core_of_the_calling_thread_busy(tmp_path, device, cores):
    """Or a machine with a GPU and many cores would have to be all idle for a round to count."""
    write_text(tmp_path / "models/net/spec.yaml", DIGITS_SPEC)
    write_text(tmp_path / "models/net/network.py", NETWORK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.check_output([sys.executable, "-c", CORES, device], cwd=tmp_path, env=environment, text=True)
    assert printed.split() == [str(cores)]


@pytest.mark.parametrize(
    ("provider", "gpus", "looked_for"),
    [
        ("cpu", ["H100"], []),
        ("auto", [], []),
        ("auto", ["H100"], ["CUDAExecutionProvider"]),
        ("tensorrt", [], ["TensorrtExecutionProvider"]),
    ],
)
def test_a_gpus_libraries_are_loaded_before_the_clock_starts(monkeypatch, tmp_path, provider, gpus, looked_for):
    seen = []

    def lacking(name):
        seen.append(name)
        raise ProviderError("a library is missing")  # which opening the session says

    monkeypatch.setattr("onnx_release.runtime.session.gpus", lambda: gpus)
    monkeypatch.setattr("onnx_release.runtime.session.check_provider", lacking)
    monkeypatch.chdir(ROOT)
    prepare(Contender("a", "onnx", "a.onnx", tmp_path, load_spec("digits_cnn"), Runtime(provider=provider)))
    assert seen == looked_for
