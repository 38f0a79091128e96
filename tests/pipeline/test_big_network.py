"""A network over protobuf's 2 GB: all of the pipeline that makes, checks and times its float32 model."""

import json
import shutil

import pytest
from ruamel.yaml import YAML

from onnx_release.core.addresses import address
from onnx_release.core.paths import ModelFiles
from onnx_release.validate.metrics import ValidateMetrics
from tests.big import BENCHMARK, add_big_model, measured
from tests.clone import make_clone, run

# The export and the slimmed model, of which DVC's cache holds hard links, and what a process leaves beside them.
DISK = 7e9
# The most that a process may take, as a multiple of the model's size.
MEMORY = 3
FILES = ModelFiles("big")


@pytest.mark.big
def test_a_network_over_2_gb_goes_through_in_less_than_three_times_its_memory(tmp_path):
    if shutil.disk_usage(tmp_path).free < DISK:
        pytest.skip(f"{tmp_path} has less than {DISK / 1e9:g} GB free, which two files of over 2 GB need")
    clone = make_clone(tmp_path / "clone", {"benchmark.starts": "1", "benchmark.turn_seconds": "0.02"})
    try:
        add_big_model(clone)
        assert run(clone, "dvc", "config", "--local", "cache.type", "hardlink").returncode == 0

        made = measured(clone, "-m", "dvc", "repro", address("validate@fp32", "big"))
        assert made.exit_code == 0, made.output
        folder = FILES.variant("fp32").parent
        size = (clone / folder / "model.onnx.data").stat().st_size
        assert size >= 2**31
        assert json.loads((clone / ValidateMetrics.path("big", "fp32")).read_text())["passed"]
        timed = measured(clone, "-c", BENCHMARK)
        assert timed.exit_code == 0, timed.output
        # Of DVC and every stage, and of the benchmark and every contender. More than one, or nothing was measured.
        assert size < made.peak_memory < MEMORY * size
        assert size < timed.peak_memory < MEMORY * size

        stages = YAML(typ="safe").load(clone / FILES.lock)["stages"]
        (output,) = [out for out in stages["slim"]["outs"] if out["path"].startswith("artifacts/")]
        assert (output["path"], output["nfiles"]) == (folder.as_posix(), 2)
        assert output["size"] > size  # with model.onnx
        assert sorted(path.name for path in (clone / folder).iterdir()) == ["model.onnx", "model.onnx.data"]
        checked = [address(stage, "big") for stage in ("export", "slim", "validate@fp32")]
        assert json.loads(run(clone, "dvc", "status", "--json", *checked).stdout) == {}
    finally:
        shutil.rmtree(clone, ignore_errors=True)
