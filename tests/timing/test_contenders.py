"""What a contender imports and looks for before the clock of its loading starts."""

import subprocess
import sys

import pytest

from onnx_release.core.errors import ProviderError
from onnx_release.core.params import Runtime
from onnx_release.core.spec import load_spec
from onnx_release.timing.contenders import Contender, prepare
from tests.imports import ROOT


@pytest.mark.parametrize(("kind", "compiles"), [("torch_eager", False), ("torch_compile", True)])
def test_pytorch_and_the_network_are_imported_before_the_clock_starts(tmp_path, kind, compiles):
    code = (
        "import sys, pathlib\n"
        "from onnx_release.timing.contenders import Contender, prepare\n"
        "from onnx_release.core.params import Runtime\n"
        "from onnx_release.core.spec import load_spec\n"
        "prepare(Contender('a', sys.argv[1], 'digits_cnn', pathlib.Path(), load_spec('digits_cnn'), "
        "Runtime(intra_threads=1)))\n"
        "print('models.digits_cnn.network' in sys.modules, 'torch._dynamo' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, kind], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", str(compiles)]


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
