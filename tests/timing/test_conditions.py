"""The conditions of a benchmark: PyTorch runs on the device that the provider uses, and copies count on a GPU."""

import pytest

from onnx_release.core.params import Runtime
from onnx_release.runtime.providers import CPU, CUDA, TENSORRT
from onnx_release.timing.conditions import find_conditions, torch_device

HARDWARE = {"cpu_family_model_stepping": [6, 85, 7], "cpu": "a CPU", "cores": 2, "gpus": ["a GPU"]}


@pytest.mark.parametrize(("provider", "device"), [(CPU, "cpu"), (CUDA, "cuda:1"), (TENSORRT, "cuda:2")])
def test_pytorch_runs_on_the_device_of_the_provider(provider, device):
    runtime = Runtime.model_validate({"provider": "auto", "cuda": {"device_id": 1}, "tensorrt": {"device_id": 2}})
    assert torch_device(provider, runtime) == device


@pytest.mark.parametrize(("provider", "copies"), [(CPU, "none"), (CUDA, "included")])
def test_copies_are_included_on_a_gpu(provider, copies):
    found = find_conditions(HARDWARE, {"provider": provider, "note": "why"})
    assert (found.provider, found.provider_note, found.copies) == (provider, "why", copies)
    assert found.machine == "a CPU (family 6, model 85), 2 cores, a GPU"
