"""Which variants a model's spec has the pipeline make, and what stands where the others would."""

import errno
import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from onnx_release.core.errors import BenchmarkError, GraphError, ParameterError, SpecError
from onnx_release.core.files import replacing_folder
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Budget
from onnx_release.core.variants import check_made, leave_out, made_variants, make_variant, variant_files, why_not_made


@pytest.fixture
def spec(make_spec):
    made = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    return made.model_copy(update={"variants": ["int8_static", "fp16"], "budget": Budget(sqnr_db=20)})


def test_float32_is_always_made_and_the_others_as_the_spec_says(spec):
    assert made_variants(spec) == ["export", "fp32", "fp16", "int8_static"]
    assert made_variants(spec.model_copy(update={"variants": []})) == ["export", "fp32"]


def test_a_variant_that_is_left_out_is_asked_for_in_vain(spec):
    check_made("fp16", spec)
    check_made("fp32", spec)
    with pytest.raises(SpecError, match=r"the model's spec\.yaml leaves int8_dynamic out: add it to `variants`"):
        check_made("int8_dynamic", spec)


def test_what_is_left_out_says_so_and_takes_an_earlier_model_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ModelFiles("net")
    for variant in ("fp32", "fp16"):
        files.variant(variant).parent.mkdir(parents=True)
        files.variant(variant).touch()
    leave_out(tmp_path / "fp16.json", files.variant("fp16").parent, tmp_path / "fp16.csv")
    assert json.loads((tmp_path / "fp16.json").read_text()) == {"left_out": True}
    assert "fp16 is not among `variants`" in files.variant("fp16").with_name("left_out.txt").read_text()
    assert pd.read_csv(tmp_path / "fp16.csv").empty
    assert variant_files(files) == {"fp32": Path("artifacts/net/fp32/model.onnx")}


def test_a_model_without_a_variant_says_what_to_run_whatever_another_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = ModelFiles("net_2").variant("fp32")
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(BenchmarkError, match=r"^artifacts/net/ has no variant: run `make repro MODEL=net`$"):
        variant_files(ModelFiles("net"))


def fill_disk(model: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", f"artifacts/{model}/fp16/model.onnx.partial")


def misspell(model: str) -> None:
    raise ParameterError(f"quantize_dynamic.operators of {model}: Matmul cannot be quantized")


def convert(model: str) -> None:
    files = ModelFiles(model)
    with replacing_folder(files.variant("fp16").parent) as partial:
        (partial / "model.onnx").write_bytes(b"half of it")
        raise ValueError("no kernel for node_Celu_7")


def refuse(_: str) -> None:
    raise GraphError("no operator for node_Celu_7")


def crash(_: str) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(convert, "ValueError: no kernel for node_Celu_7"), (crash, "crash crashed its process (SIGSEGV)")],
)
def test_a_variant_that_cannot_be_made_is_a_result(tmp_path, monkeypatch, capsys, make, reason):
    monkeypatch.chdir(tmp_path)
    files, metrics = ModelFiles("net"), tmp_path / "metrics/net/fp16.json"
    folder = files.variant("fp16").parent
    folder.mkdir(parents=True)
    files.variant("fp16").touch()
    make_variant("net", "fp16", metrics, folder, make)
    fix = "If you do not need fp16, take it out of `variants` in models/net/spec.yaml"
    assert json.loads(metrics.read_text()) == {"not_made": f"{reason}\n{fix}"}
    assert why_not_made(folder) == f"{reason}\n{fix}"
    assert [path.name for path in folder.parent.rglob("*") if path.is_file()] == ["not_made.txt"]
    assert f"fp16 of net could not be made: {reason}" in capsys.readouterr().err


def write_metrics(_: str) -> None:
    Path("fp16.json").write_text("{}")


def test_another_way_is_tried_only_after_a_crash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_variant("net", "fp16", tmp_path / "fp16.json", tmp_path / "fp16", crash, write_metrics)
    assert (tmp_path / "fp16.json").read_text() == "{}" and not (tmp_path / "fp16").exists()
    make_variant("net", "fp16", tmp_path / "fp16.json", tmp_path / "fp16", refuse, write_metrics)
    assert json.loads((tmp_path / "fp16.json").read_text())["not_made"].startswith("no operator for node_Celu_7")


@pytest.mark.parametrize(("make", "kind"), [(fill_disk, OSError), (misspell, ParameterError)])
def test_what_a_person_must_mend_first_stops_the_run(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind):
        make_variant("net", "fp16", tmp_path / "fp16.json", tmp_path / "fp16", make)
    assert not list(tmp_path.iterdir())
