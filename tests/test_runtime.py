"""The provider is found once, and where it is the CPU, nobody looks for another."""

import pytest

from onnx_release import runtime
from onnx_release.errors import DataError, ProviderError
from onnx_release.files import write_json
from onnx_release.params import Runtime
from onnx_release.paths import PROVIDER, TUNED
from onnx_release.runtime import find_provider, load_runtime, load_tuned


def test_without_a_gpu_it_is_the_cpu(monkeypatch, capfd):
    monkeypatch.setattr("onnx_release.session.gpus", lambda: [])
    assert find_provider(Runtime()) == {"provider": "CPUExecutionProvider", "note": ""}
    assert capfd.readouterr() == ("", "")


def test_what_was_asked_for_by_name_must_run(monkeypatch):
    def lacking(provider):
        raise ProviderError(f"{provider} lacks a library")

    monkeypatch.setattr("onnx_release.session.check_provider", lacking)
    with pytest.raises(ProviderError, match="TensorrtExecutionProvider lacks a library"):
        find_provider(Runtime(provider="tensorrt"))


def test_the_small_graph_is_run_on_a_gpu(monkeypatch):
    ran = []
    monkeypatch.setattr(runtime, "CPU", "the provider of another machine")
    monkeypatch.setattr(runtime, "run_bound", lambda session, inputs, *device: ran.append((list(inputs), device)))
    find_provider(Runtime(provider="cpu"))
    assert ran == [(["x"], ("cuda", 0))]


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
    write_json(PROVIDER, {"provider": found, "note": ""})
    assert load_runtime(Runtime(provider=asked, arena=False)) == Runtime(provider=settled, arena=False)


def test_tuned_settings_come_back_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tuned = Runtime(provider="cpu", intra_threads=1, spinning=False)
    write_json(TUNED, tuned.model_dump())
    assert load_tuned() == tuned


def test_without_the_stage_before_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"provider\.json is not there: run `dvc repro`"):
        load_runtime(Runtime())
