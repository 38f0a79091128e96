"""Tensors through HTTP give the answers of the pipeline, bit for bit: every evaluation sample of the digits."""

import numpy as np
import pytest
import tritonclient.http as triton

from onnx_release.core.params import Export, Runtime
from onnx_release.core.paths import RAW
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, write_samples
from onnx_release.export.export import export_network
from onnx_release.network.network import load_network
from onnx_release.runtime.onnx_model import OnnxModel
from serving.tensors import DATATYPES
from tests.imports import ROOT
from tests.serving_v2 import serving


@pytest.fixture(scope="module")
def digits(digits_raw, tmp_path_factory):
    """The model and the prepared evaluation samples of digits_cnn, made as the pipeline makes them."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "models").symlink_to(ROOT / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        RAW.mkdir(parents=True)
        (RAW / "digits_cnn").symlink_to(digits_raw)
        spec = load_spec("digits_cnn")
        write_samples(
            folder / "evaluation.npz", load_data("digits_cnn").samples(digits_raw, "evaluation"), 10_000, spec
        )
        export_network(
            load_network("digits_cnn", digits_raw), spec, Export(exporter="torchscript", opset=18), folder / "export"
        )
    model = OnnxModel(folder / "export/model.onnx", spec, Runtime(provider="cpu", intra_threads=1))
    return model, SampleFile(folder / "evaluation.npz")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_every_evaluation_sample_is_answered_as_in_the_pipeline(digits, binary):
    model, samples = digits
    different = []
    with serving(model.run, model.spec, "digits_cnn") as (address, _), triton.InferenceServerClient(address) as client:
        for index in range(len(samples)):
            inputs = samples.batch(index)
            answer = client.infer(
                "digits_cnn",
                [given(name, array, binary) for name, array in inputs.items()],
                outputs=[triton.InferRequestedOutput(tensor.name, binary) for tensor in model.spec.outputs],
            )
            for name, expected in model.run(inputs).items():
                found = answer.as_numpy(name)
                if (found.dtype, found.tobytes()) != (expected.dtype, np.ascontiguousarray(expected).tobytes()):
                    different.append((index, name))
    assert len(samples) > 300
    assert different == []


def given(name, array, binary):
    tensor = triton.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor
