"""`make gpu-check` without a GPU: what it refuses, what it would measure, and what it makes of the figures.

Validation and timing are run for real, on the CPU's provider.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

from onnx_release.core.errors import DataError, ParameterError, ProviderError
from onnx_release.core.files import read_json, write_text
from onnx_release.core.hardware import gpus
from onnx_release.core.params import Export, load_params, merge_params, write_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Budget, load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import write_samples
from onnx_release.export.export import export_network
from onnx_release.graph.probe import find_provider
from onnx_release.network.network import load_network
from onnx_release.network.reference import write_reference
from onnx_release.runtime.providers import CUDA
from tests.candidates import LATENCIES, timing
from tests.clone import QUICK, list_models, set_param
from tests.imports import ROOT, imported_files, third_party
from tests.in_process import run_here, start_contenders_with_torch
from tools import gpu_check
from tools.gpu_check import (
    CHECKED,
    PYTORCH,
    GpuVerdict,
    check_all,
    check_gpu,
    check_variants_made,
    contenders,
    describe_gpu,
    describe_gpu_check,
    describe_runs,
    one_line,
    result_cells,
    rows,
    runtime_on,
    torch_versions,
    try_validate,
    validated,
    with_run,
)

H100 = "NVIDIA H100, 81559 MiB, 580.65.06"
VERSIONS = {"torch": "2.13.0+cu130", "cuda": "13.0"}
FILES = ModelFiles("digits_cnn")


@pytest.fixture
def params(tmp_path, monkeypatch):
    """The parameters of the model, in a folder in which nothing has run but the stage settings."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    list_models(tmp_path, FILES.model)
    monkeypatch.chdir(tmp_path)
    return settled()


def settled():
    """The model's parameters, after the stage settings has written them."""
    write_params(FILES, merge_params(FILES), load_spec(FILES.model))
    return load_params(FILES)


@pytest.fixture(scope="module")
def prepared(digits_raw, tmp_path_factory):
    """A folder in which digits_cnn is prepared and exported; fp16 is the export again, int8_static a damaged file."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "models").symlink_to(ROOT / "models")
    shutil.copy(ROOT / "params.yaml", folder)
    for key, value in {**QUICK, "benchmark.settle_seconds": "0"}.items():
        set_param(folder, key, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settled()
        FILES.raw.parent.mkdir(parents=True)
        FILES.raw.symlink_to(digits_raw)
        spec, network = load_spec("digits_cnn"), load_network("digits_cnn", digits_raw)
        write_samples(FILES.evaluation_samples, load_data("digits_cnn").samples(digits_raw, "evaluation"), 5, spec)
        write_reference(network, spec, FILES, seed=0)
        export_network(network, spec, Export(exporter="torchscript", opset=18), FILES.variant("fp32").parent)
        shutil.copytree(FILES.variant("fp32").parent, FILES.variant("fp16").parent)
        FILES.variant("int8_static").parent.mkdir()
        FILES.variant("int8_static").write_bytes(b"no model")
    return folder


@pytest.fixture
def inside(prepared, monkeypatch):
    """The parameters of the prepared folder, in which the test then runs."""
    monkeypatch.chdir(prepared)
    return load_params(FILES)


@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(params):
    result = run_here(Path.cwd(), "tools.gpu_check")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: nvidia-smi is missing or lists no NVIDIA GPU: run this on a machine that has one\n"


def test_torch_is_not_imported_before_there_is_a_gpu():
    modules = "{'torch', 'onnxruntime'} & set(sys.modules)"
    code = f"import sys, tools.gpu_check; print(sorted({modules}))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "['onnxruntime']\n"
    assert "torch" in third_party(imported_files("tools/gpu_check.py"))  # so that the line above can fail


@pytest.mark.parametrize(
    ("cuda", "says"),
    [
        (None, r"torch .* is the CPU build: install the same version's build for CUDA 13"),
        ("13.0", r"torch .* sees no GPU, and nvidia-smi lists NVIDIA H100, .*too old for CUDA 13\.0"),
    ],
    ids=["the CPU build", "an old driver"],
)
def test_a_torch_that_sees_no_gpu_is_refused(params, monkeypatch, cuda, says):
    monkeypatch.setattr(gpu_check, "gpus", lambda: [H100])
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProviderError, match=says):
        check_gpu(FILES)


def test_the_versions_are_torch_s_own(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_versions() == {"torch": torch.__version__, "cuda": "13.0"}


@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="there is no GPU build for this system")
def test_a_provider_that_does_not_load_is_refused_with_the_library_that_it_lacks(params, monkeypatch, capfd):
    monkeypatch.setattr(gpu_check, "gpus", lambda: [H100])
    monkeypatch.setattr(gpu_check, "torch_versions", lambda: VERSIONS)
    monkeypatch.setattr("onnx_release.runtime.providers.missing_library", lambda _: "libcublasLt.so.13: cannot open")
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider, which does not load: libcublasLt\.so\.13"):
        check_gpu(FILES)
    assert capfd.readouterr() == ("", "")


def test_a_missing_variant_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variant in ("fp32", "int8_static"):
        write_text(FILES.variant(variant), "")
    says = r"^missing: artifacts/digits_cnn/fp16/model\.onnx; run `make repro MODEL=digits_cnn` first$"
    with pytest.raises(DataError, match=says):
        check_variants_made(FILES, CHECKED)
    write_text(FILES.variant("fp16"), "")
    check_variants_made(FILES, CHECKED)


@pytest.mark.parametrize(("missing", "providers"), [(None, ["cuda", "tensorrt"]), ("libnvinfer.so.10: gone", ["cuda"])])
def test_tensorrt_is_measured_where_it_loads(params, monkeypatch, missing, providers):
    calls: list[object] = []
    monkeypatch.setattr(gpu_check, "gpus", lambda: [H100])
    monkeypatch.setattr(gpu_check, "torch_versions", lambda: VERSIONS)
    monkeypatch.setattr(gpu_check, "torch_gpu", lambda: "NVIDIA H100")
    monkeypatch.setattr(gpu_check, "check_provider", calls.append)
    monkeypatch.setattr(gpu_check, "run_in_child", lambda function, runtime: calls.append((function, runtime.provider)))
    monkeypatch.setattr(gpu_check, "check_variants_made", lambda _, variants: calls.append(variants))
    monkeypatch.setattr(gpu_check, "missing_library", lambda _: missing)
    monkeypatch.setattr(gpu_check, "check_all", lambda *where: {"rounds": 15, "rows": [where[2:]]})
    found = check_gpu(FILES)
    assert found["rows"] == [(list(CHECKED), providers, "cuda")]
    assert found["no_tensorrt"] == (missing or "")
    assert found["gpu"]["driver"] == "580.65.06"
    assert (found["versions"]["torch"], found["batch"]) == ("2.13.0+cu130", params.benchmark.batches[0])
    assert calls == [CUDA, (find_provider, "cuda"), list(CHECKED)]


@pytest.fixture
def on_a_gpu(monkeypatch):
    """As on a machine with a GPU, where nothing is run: the rows are the batch sizes that would be timed."""
    monkeypatch.setattr(gpu_check, "gpus", lambda: [H100])
    monkeypatch.setattr(gpu_check, "torch_versions", lambda: VERSIONS)
    monkeypatch.setattr(gpu_check, "torch_gpu", lambda: "NVIDIA H100")
    for name in ("check_provider", "run_in_child", "check_variants_made", "missing_library"):
        monkeypatch.setattr(gpu_check, name, lambda *_: None)
    monkeypatch.setattr(gpu_check, "check_all", lambda _, params, *__: {"rows": params.benchmark.batches})


def test_the_batch_size_is_the_benchmark_s_first_or_the_one_that_is_asked_for(params, on_a_gpu):
    first = params.benchmark.batches
    assert (check_gpu(FILES)["batch"], check_gpu(FILES)["rows"]) == (first[0], first)
    assert (check_gpu(FILES, 32)["batch"], check_gpu(FILES, 32)["rows"]) == (32, [32])


@pytest.mark.parametrize("batch", [0, 65])
def test_a_batch_size_that_the_model_does_not_declare_is_refused(params, on_a_gpu, batch):
    says = rf"--batch {batch}: the model's spec\.yaml declares batch from 1 to 64: choose one in this range"
    with pytest.raises(ParameterError, match=says):
        check_gpu(FILES, batch)


def test_the_gpu_is_the_one_that_torch_takes():
    lines = ["NVIDIA T400, 2048 MiB, 580.65.06", H100]
    assert describe_gpu(lines, "NVIDIA H100") == {"name": "NVIDIA H100", "memory": "81559 MiB", "driver": "580.65.06"}
    assert describe_gpu(lines, "another name")["name"] == "NVIDIA T400"


def test_pytorch_and_every_variant_that_runs_are_timed_on_their_provider(params):
    verdicts = [
        GpuVerdict("fp32", "cuda", passed=True),
        GpuVerdict("fp16", "cuda", passed=False, failure="the SQNR is 3 dB"),
        GpuVerdict("int8_static", "cuda", passed=True, note="CUDAExecutionProvider does not run q (QLinearConv)"),
        GpuVerdict("fp16", "tensorrt", passed=True),
        GpuVerdict("int8_static", "tensorrt", passed=False, failure="no engine", runs=False),
    ]
    entries = contenders(verdicts, FILES, params, load_spec(FILES.model), "cuda")
    assert [(entry.name, entry.kind, entry.device) for entry in entries[:3]] == [
        (kind, kind, "cuda") for kind in ("torch_eager", "torch_compile", "torch_autocast")
    ]
    assert [(entry.name, entry.target, entry.runtime.provider) for entry in entries[3:]] == [
        ("fp32 on cuda", "artifacts/digits_cnn/fp32/model.onnx", "cuda"),
        ("fp16 on cuda", "artifacts/digits_cnn/fp16/model.onnx", "cuda"),
        ("int8_static on cuda", "artifacts/digits_cnn/int8_static/model.onnx", "auto"),
        ("fp16 on tensorrt", "artifacts/digits_cnn/fp16/model.onnx", "tensorrt"),
    ]
    assert len({entry.runtime.intra_threads for entry in entries} - {None}) == 1


def test_settings_are_those_of_the_pipeline_on_the_gpu_that_torch_takes(params):
    own = params.runtime.model_copy(
        update={
            "arena": False,
            "cuda": params.runtime.cuda.model_copy(update={"device_id": 1, "gpu_mem_limit": 7}),
            "tensorrt": params.runtime.tensorrt.model_copy(update={"device_id": 1, "workspace": 7}),
        }
    )
    threads = params.benchmark.model_copy(update={"threads": [3]})
    params = params.model_copy(update={"runtime": own, "benchmark": threads})
    found = runtime_on("tensorrt", "fp16", params)
    assert (found.provider, found.arena, found.intra_threads) == ("tensorrt", False, 3)
    assert (found.cuda.device_id, found.cuda.gpu_mem_limit) == (0, 7)
    assert (found.tensorrt.device_id, found.tensorrt.workspace, found.tensorrt.fp16) == (0, 7, True)
    assert not runtime_on("tensorrt", "fp32", params).tensorrt.fp16


def test_a_variant_is_held_against_pytorch(inside):
    found = validated(FILES, "fp32", "cpu", inside)
    assert (found.contender, found.provider, found.failure, found.note) == ("fp32", "cpu", "", "")
    assert found.passed and found.runs
    assert found.agreement == 1.0
    assert found.sqnr_db is not None and found.sqnr_db > 80


def test_only_fewer_bits_have_a_budget(inside, monkeypatch):
    strict = load_spec("digits_cnn").model_copy(update={"budget": Budget(sqnr_db=1000.0)})
    monkeypatch.setattr(gpu_check, "load_spec", lambda _: strict)
    assert validated(FILES, "fp32", "cpu", inside).passed
    found = validated(FILES, "fp16", "cpu", inside)
    assert not found.passed and "budget.sqnr_db is 1000" in found.failure
    assert found.runs


def test_a_variant_that_cuda_leaves_to_the_cpu_is_a_failure(inside, monkeypatch):
    def lacking(provider):
        raise ProviderError("libcudnn.so.9 is missing")

    monkeypatch.setattr("onnx_release.runtime.session.gpus", lambda: [H100])
    monkeypatch.setattr("onnx_release.runtime.session.check_provider", lacking)
    with pytest.raises(ProviderError, match=r"the GPU is not used: libcudnn\.so\.9 is missing"):
        validated(FILES, "fp32", "cuda", inside)


def test_what_goes_wrong_becomes_the_verdict(inside, monkeypatch):
    monkeypatch.setattr(gpu_check, "run_in_child", lambda function, *arguments: function(*arguments))
    found = try_validate(FILES, "int8_static", "cpu", inside)
    assert (found.contender, found.provider, found.passed, found.runs) == ("int8_static", "cpu", False, False)
    assert "does not load artifacts/digits_cnn/int8_static/model.onnx" in found.failure
    assert try_validate(FILES, "fp32", "cpu", inside).passed


def test_all_of_it_on_the_cpu(inside, monkeypatch):
    """In processes of their own, but for torch.compile, which hands back the network: test_contenders.py compiles."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    start_contenders_with_torch(monkeypatch)
    checked = check_all(FILES, inside, CHECKED, ["cpu"], "cpu")
    found = {row["contender"]: row for row in json.loads(json.dumps(checked))["rows"]}
    assert list(found) == [*PYTORCH, *CHECKED]
    for name in (*PYTORCH, "fp32", "fp16"):
        timing = found[name]["timing"]
        assert timing["failure"] == ""
        assert timing["latency_ms"]["median"] > 0
        assert 0 < timing["speedup_low"] <= timing["speedup_vs_eager"] <= timing["speedup_high"]
        assert timing["speedup_vs_compile"] > 0
    assert found["fp32"]["passed"] and found["fp16"]["passed"]
    assert not found["int8_static"]["passed"]
    assert "does not load" in found["int8_static"]["failure"]
    assert found["int8_static"]["timing"] is None


def figures(latency=None, eager=(None, None, None), compiled=(None, None, None), failure=""):
    ratios = {
        **dict(zip(("speedup_vs_eager", "speedup_low", "speedup_high"), eager, strict=True)),
        **dict(zip(("speedup_vs_compile", "speedup_vs_compile_low", "speedup_vs_compile_high"), compiled, strict=True)),
    }
    if failure:
        return timing(None, failure=failure, **ratios)
    times = {"median": latency, **dict.fromkeys(LATENCIES, latency), "p95": 2 * latency}
    return timing(latency, latency_ms=times, provider="CUDAExecutionProvider", provider_note="", **ratios)


def result(no_tensorrt=""):
    """What a run may write, by hand."""
    verdicts = [
        GpuVerdict("fp32", "cuda", passed=True, sqnr_db=121.0, agreement=1.0),
        GpuVerdict("fp16", "cuda", passed=False, failure="the SQNR is 3 dB", sqnr_db=3.0, agreement=0.25),
        GpuVerdict("int8_static", "cuda", passed=True, sqnr_db=22.0, agreement=0.99, note="CUDA does not run a|b (Q)"),
        GpuVerdict("fp32", "tensorrt", passed=False, failure="no\nengine", runs=False),
    ]
    timed = {
        "torch_eager": figures(2.0, (1.0, 1.0, 1.0), (0.5, 0.4, 0.6)),
        "torch_compile": figures(1.0, (2.0, 1.9, 2.1), (1.0, 1.0, 1.0)),
        "torch_autocast": figures(failure="out of memory"),
        "fp32 on cuda": figures(1.0, (2.0, 1.8, 2.2), (1.01, 0.9, 1.1)),
        "fp16 on cuda": figures(0.5, (4.0, 3.9, 4.1), (2.0, 1.9, 2.1)),
        "int8_static on cuda": figures(failure="it hangs"),
    }
    gpu_found = {"name": "NVIDIA H100", "memory": "81559 MiB", "driver": "580.65.06"}
    return {
        "model": "mobilenet_v2",
        "gpu": gpu_found,
        "versions": {**VERSIONS, "onnxruntime-gpu": "1.31.1"},
        "batch": 1,
        "no_tensorrt": no_tensorrt,
        "rows": rows(verdicts, timed),
    }


def test_the_table_by_hand():
    lines = describe_gpu_check(result()).splitlines()
    assert lines[2:9] == [
        "| torch_eager | PyTorch | | – | – | 2 | 4 | 1 | 0.5 [0.4, 0.6] | |",
        "| torch_compile | PyTorch | | – | – | 1 | 2 | 2 [1.9, 2.1] | 1 | |",
        "| torch_autocast | PyTorch | | – | – | – | – | – | – | not timed: out of memory |",
        "| fp32 | cuda | passed | 121 | 100.0 % | 1 | 2 | 2 [1.8, 2.2] | no difference [0.9, 1.1] | |",
        "| fp16 | cuda | failed: the SQNR is 3 dB | 3 | 25.0 % | 0.5 | 1 | 4 [3.9, 4.1] | 2 [1.9, 2.1] | |",
        "| int8_static | cuda | passed | 22 | 99.0 % | – | – | – | – "
        "| CUDA does not run a\\|b (Q); not timed: it hangs |",
        "| fp32 | tensorrt | failed: no engine | – | – | – | – | – | – | |",
    ]
    assert len(result_cells(result()["rows"][0], result())) == lines[0].count("|") - 1


def test_what_was_timed_elsewhere_than_it_was_validated_says_so():
    fallen = {"provider": "CPUExecutionProvider", "provider_note": "the GPU is not used: out of memory"}
    row = {**result()["rows"][3], "timing": {**figures(9.0).model_dump(), **fallen}}
    assert result_cells(row, result())[-1] == "timed on CPUExecutionProvider: the GPU is not used: out of memory"


def test_what_is_under_the_table():
    text = describe_gpu_check(result()).splitlines()[-1]
    assert text.startswith("mobilenet_v2 at batch 1 on NVIDIA H100, 81559 MiB, driver 580.65.06; torch 2.13.0+cu130 ")
    assert "with CUDA 13.0, onnxruntime-gpu 1.31.1. The time of both sides includes the copies" in text
    assert "TensorRT" not in text
    assert describe_gpu_check(result("libnvinfer.so.10: gone")).endswith(
        "TensorRT is not installed: libnvinfer.so.10: gone."
    )


def test_a_long_message_is_cut_short():
    cut = one_line("word " * 1000)
    assert cut.endswith(" …") and len(cut) <= gpu_check.CELL
    assert one_line("short enough") == "short enough"


@pytest.mark.parametrize(("asked", "checked"), [(None, "digits_cnn"), ("face_pnet", "face_pnet")])
def test_the_result_of_the_chosen_model_is_written_and_printed(tmp_path, monkeypatch, capsys, params, asked, checked):
    list_models(tmp_path, "digits_cnn", "face_pnet")
    monkeypatch.setattr(gpu_check, "check_gpu", lambda files, batch: {**result(), "model": files.model, "batch": batch})
    monkeypatch.setattr(gpu_check, "GPU_CHECK", tmp_path / "gpu.json")
    gpu_check.main(argparse.Namespace(model=asked, batch=8))
    found = {**result(), "model": checked, "batch": 8}
    assert capsys.readouterr().out == describe_gpu_check(found) + "\n"
    assert read_json(tmp_path / "gpu.json") == [found]
    gpu_check.main(argparse.Namespace(model=asked, batch=1))
    assert read_json(tmp_path / "gpu.json") == [found, {**found, "batch": 1}]


def test_a_run_takes_the_place_of_an_earlier_one_of_its_model_and_batch_size():
    runs = [{"model": model, "batch": batch, "gpu": "old"} for model, batch in (("a", 1), ("a", 32), ("b", 1))]
    again = {"model": "a", "batch": 32, "gpu": "new"}
    assert with_run(runs, again) == [runs[0], again, runs[2]]
    other = {"model": "b", "batch": 32, "gpu": "new"}
    assert with_run(runs, other) == [*runs, other]


def test_every_run_has_a_table_under_its_model_and_batch_size():
    first, second = result(), {**result(), "model": "minilm", "batch": 8}
    headings = [line for line in describe_runs([first, second]).splitlines() if line.startswith("### ")]
    assert headings == ["### mobilenet_v2, batch 1", "### minilm, batch 8"]
    assert describe_gpu_check(first) + "\n\n###" in describe_runs([first, second])
    assert describe_runs([first, second]).endswith(describe_gpu_check(second))


def test_make_lists_it():
    printed = subprocess.check_output(["make", "help"], cwd=ROOT, text=True)
    assert "gpu-check: " in printed and "repro: " in printed
    assert "python -m tools.gpu_check $(OF_MODEL)" in (ROOT / "Makefile").read_text()
