"""The provider is found once, and where it is the CPU, nobody looks for another."""

import dataclasses

import pytest

from onnx_release.core.errors import DataError, GraphError, ProviderError
from onnx_release.core.files import write_json
from onnx_release.core.params import Runtime
from onnx_release.core.paths import ModelFiles
from onnx_release.graph import probe
from onnx_release.graph.probe import find_provider
from onnx_release.runtime.session import open_with
from onnx_release.runtime.settings import load_runtime


def test_without_a_gpu_it_is_the_cpu(monkeypatch, capfd):
    monkeypatch.setattr("onnx_release.runtime.session.gpus", lambda: [])
    assert find_provider(Runtime()) == {"provider": "CPUExecutionProvider", "note": ""}
    assert capfd.readouterr() == ("", "")


def test_what_was_asked_for_by_name_must_run(monkeypatch):
    def lacking(provider):
        raise ProviderError(f"{provider} lacks a library")

    monkeypatch.setattr("onnx_release.runtime.session.check_provider", lacking)
    with pytest.raises(ProviderError, match="TensorrtExecutionProvider lacks a library"):
        find_provider(Runtime(provider="tensorrt"))


def test_the_small_graph_is_run_on_a_gpu(monkeypatch):
    ran = []
    monkeypatch.setattr(probe, "CPU", "the provider of another machine")
    monkeypatch.setattr(probe, "run_bound", lambda session, inputs, *device: ran.append((list(inputs), device)))
    find_provider(Runtime(provider="cpu"))
    assert ran == [(["x"], ("cuda", 0))]


def test_a_gpu_that_loads_and_does_not_run_is_a_note_for_auto_and_an_error_by_name(monkeypatch):
    def failing(*_):
        raise GraphError("cuDNN does not load")

    # No other provider runs here: the CPU's session stands for that of a GPU.
    on_gpu = pretending(open_with, "CUDAExecutionProvider")
    monkeypatch.setattr(probe, "open_with", on_gpu)
    monkeypatch.setattr(probe, "run_bound", failing)
    assert find_provider(Runtime()) == {
        "provider": "CPUExecutionProvider",
        "note": "the GPU is not used: cuDNN does not load",
    }
    with pytest.raises(GraphError, match="cuDNN does not load"):
        find_provider(Runtime(provider="cuda"))


def pretending(opener, provider):
    """`opener`, on the CPU whatever is asked for, and saying that it was `provider`."""
    return lambda path, _: dataclasses.replace(opener(path, Runtime(provider="cpu")), provider=provider)


@pytest.mark.parametrize(
    ("found", "asked", "settled"),
    [
        ("CPUExecutionProvider", "auto", "cpu"),
        ("CUDAExecutionProvider", "auto", "auto"),  # so that nodes it does not run are a note and no error
        ("CPUExecutionProvider", "cuda", "cuda"),
    ],
)
def test_auto_is_settled_by_what_was_found(tmp_path, monkeypatch, found, asked, settled):
    monkeypatch.chdir(tmp_path)
    files = ModelFiles("net")
    write_json(files.provider, {"provider": found, "note": ""})
    assert load_runtime(files, Runtime(provider=asked, arena=False)) == Runtime(provider=settled, arena=False)


def test_without_the_stage_before_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"artifacts/net/provider\.json is not there: run `dvc repro`"):
        load_runtime(ModelFiles("net"), Runtime())
