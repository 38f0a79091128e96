"""The pipeline itself, on digits_cnn: what reruns, what its bytes depend on, and what bad input does."""

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import tritonclient.http
from ruamel.yaml import YAML

from onnx_release.core.params import load_params
from onnx_release.core.paths import EVALUATION_SAMPLES, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import VARIANTS
from onnx_release.data.samples import SampleFile
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.runtime.providers import CPU
from onnx_release.runtime.settings import load_runtime
from tests.clone import QUICK, edited, make_clone, outputs, path_with_python, run, stages_run
from tests.digits_spec import DIGITS_SPEC
from tests.imports import ROOT
from tests.in_process import run_here, run_stages
from tests.registry import registry
from tests.revisions import git
from tests.served import serving

# What may differ between two runs on one machine: what was timed, and what reads it.
TIMED = {"benchmark", "choose", "optimize", "profile", "report", "package"}


PARAMS_OF_CLONE = {**QUICK, "quantize_static.minutes": "0.05", "validate.resamples": "200"}


@pytest.fixture(scope="session", autouse=True)
def no_compilation() -> Iterator[None]:
    """torch.compile hands back the network as it is: compiling it takes longer than the rest of the pipeline here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")
        yield


@pytest.fixture(scope="session")
def clone(no_compilation: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which every stage has run once and DVC has the outputs. No test reads a timing."""
    folder = make_clone(tmp_path_factory.mktemp("clone"), PARAMS_OF_CLONE)
    run_stages(folder)
    (folder / "dvc.lock").unlink()  # of another model
    result = run_here(folder, "dvc", "commit", "--force", "--quiet")
    assert result.returncode == 0, result.stderr
    return folder


def locked(clone: Path) -> dict[str, Any]:
    return dict(YAML(typ="safe").load((clone / "dvc.lock").read_text())["stages"])


def made(clone: Path, paths: Collection[str]) -> dict[str, str]:
    """The sha256 of every file in the clone that is one of `paths`, or below one."""
    return {name: digest for name, digest in outputs(clone).items() if any(is_below(name, path) for path in paths)}


def is_below(name: str, path: str) -> bool:
    return Path(name).is_relative_to(path)


def test_another_folder_and_process_make_the_same_bytes(clone, tmp_path):
    other = make_clone(tmp_path / "a folder with another name", PARAMS_OF_CLONE)
    code = (
        f"from pathlib import Path; from tests.in_process import run_stages; run_stages(Path({str(other)!r}), {TIMED})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PATH": path_with_python()}, check=True)
    stages = {name: stage for name, stage in locked(clone).items() if name not in TIMED}
    paths = {out["path"] for stage in stages.values() for out in stage["outs"]}
    assert "artifacts/int8_static" in paths
    expected = made(clone, paths)
    assert {name.split("/")[0] for name in expected} == {"data", "artifacts", "metrics"}
    assert made(other, paths) == expected


def test_the_release_is_real(clone):
    metrics = {
        name: json.loads((clone / f"metrics/{name}.json").read_text()) for name in ("validate/fp32", "benchmark")
    }
    assert metrics["validate/fp32"]["passed"]
    assert metrics["validate/fp32"]["accuracy"] == metrics["validate/fp32"]["accuracy_torch"] > 0.98
    assert metrics["benchmark"]["fp32"]["samples"] > 0
    assert (clone / "artifacts/report/index.html").is_file()
    assert run_here(clone, "tools.gate").returncode == 0


def test_onnx_runtime_has_nothing_to_say_of_any_model(clone, capfd):
    models = sorted(clone.glob("artifacts/**/*.onnx"))
    assert {path.parent.name for path in models} >= {*VARIANTS, "calibration", "optimized", "release"}
    for path in models:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 2  # warnings, ONNX Runtime's default: what whoever loads a release sees
        onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    assert capfd.readouterr().err == ""


def test_the_release_alone_gives_the_pipeline_s_answers_without_what_made_it(clone, tmp_path, monkeypatch):
    """Bit for bit over HTTP, in an environment that has what its requirements.txt names and nothing else."""
    folder = shutil.copytree(clone / "artifacts/release", tmp_path / "release")
    python = tmp_path / "venv/bin/python"
    environment = {**os.environ, **registry(), "PATH": path_with_python(), "VIRTUAL_ENV": str(tmp_path / "venv")}
    commands = [
        ["venv", "--python", sys.executable, tmp_path / "venv"],
        ["pip", "install", "--requirement", "requirements.txt"],
        ["pip", "check"],
    ]
    for arguments in commands:
        command = ["uv", *arguments]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr

    monkeypatch.chdir(clone)
    variant = json.loads(Path("metrics/summary.json").read_text())["variant"]
    model = OnnxModel(variant_model(variant), load_spec("digits_cnn"), load_runtime(load_params().runtime))
    samples = SampleFile(EVALUATION_SAMPLES)
    images = np.stack([samples.inputs(index)["image"][np.newaxis] for index in range(len(samples))])
    expected = np.stack([model.run({"image": image})["logits"] for image in images])
    listed = subprocess.check_output(["uv", "pip", "list", "--format=json"], env=environment, text=True)
    installed = {package["name"].lower() for package in json.loads(listed)}
    assert {"numpy", "pillow", "onnxruntime"} <= installed
    assert installed & {"torch", "onnx", "pandas", "scipy", "dvc", "onnxruntime-gpu", "transformers"} == set()
    with (
        serving(folder, python) as server,
        tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}") as client,
    ):
        tensor = tritonclient.http.InferInput("image", list(images[0].shape), "FP32")
        for image, logits in zip(images, expected, strict=True):
            tensor.set_data_from_numpy(image)
            found = client.infer("digits_cnn", [tensor]).as_numpy("logits")
            assert np.array_equal(found, logits)


def test_a_second_run_does_nothing_but_look_at_the_hardware_and_at_the_sources(clone):
    before = outputs(clone)
    result = run_here(clone, "tools.repro")
    assert stages_run(result.stdout) == ["hardware", "sources"]
    assert outputs(clone) == before


def test_a_sweep_runs_only_what_each_experiment_must_and_names_the_winner(clone):
    """No other test asks for this way of calibrating: DVC's run cache would know it."""
    git(clone, "config", "user.name", "test")
    git(clone, "config", "user.email", "test@example.invalid")
    git(clone, "commit", "--quiet", "--all", "--message", "as it ran")
    (clone / "grid.yaml").write_text("timing: false\ngrid: {calibrate.method: [percentile, minmax]}\n")
    result = run(clone, "tools.sweep", "grid.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    ran = [set(stages_run(path.read_text())) for path in (clone / ".dvc/tmp/sweep/logs").glob("*.log")]
    always = {"hardware", "sources"}  # which nothing keeps from running
    of_calibration = {"calibrate", "quantize_static", "validate@int8_static", "explain@int8_static"}
    assert sorted(ran, key=len) == [always, always, always | of_calibration]
    winner = re.search(r"^The winner: dvc exp apply (grid-\w+) && make repro$", result.stdout, re.MULTILINE)
    assert winner
    lines = [line for line in result.stdout.splitlines() if line.startswith("| ") and "grid-" in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert sorted(row[0] for row in rows) == ["minmax", "percentile"]
    shown = json.loads(run_here(clone, "dvc", "exp", "show", "--json").stdout)
    found = {
        experiment["name"]: experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]["calibrate"]["method"]
        for commit in shown
        for experiment in commit["experiments"] or []
    }
    assert {row[-1]: row[0] for row in rows} == found
    assert winner[1] in found


def test_dvc_shows_every_metric_and_what_changed(clone):
    shown = json.loads(run_here(clone, "dvc", "metrics", "show", "--json").stdout)
    files = next(iter(shown.values()))["data"]
    assert {"metrics/export.json", "metrics/slim.json", "metrics/benchmark.json", "metrics/summary.json"} <= set(files)
    assert files["metrics/validate/fp32.json"]["data"]["passed"] is True


def test_a_failed_variant_is_written_down_and_refused_by_the_gate(clone):
    before = (clone / SPEC).read_bytes()
    saved = {path: path.read_bytes() for path in (clone / "metrics").rglob("*") if path.is_file()}
    (clone / SPEC).write_bytes(before + b"tolerance: {torch_rounding_multiple: 0.0, atol: 0.0, rtol: 0.0}\n")
    try:
        assert run_here(clone, "stages.validate", "fp32").returncode == 0
        gate = run_here(clone, "tools.gate")
        assert gate.returncode == 1
        assert "fp32: FAILED: logits is off by" in gate.stdout
        assert "It would pass with" in gate.stdout
    finally:
        (clone / SPEC).write_bytes(before)
        for path, content in saved.items():
            path.write_bytes(content)


def test_a_failed_stage_gets_its_earlier_outputs_back(clone):
    before = outputs(clone)
    in_both = replaced(DATA, "label=int(label))", "label=int(label), group='Ada')")
    with edited(clone / DATA, in_both(clone)):
        result = run_here(clone, "tools.repro")
    assert result.returncode != 0
    assert "in both splits: Ada" in result.stderr
    assert outputs(clone) == before


@dataclass(frozen=True)
class BadInput:
    """A `file` given the content that `make` returns, the stage that meets it first, and what its message says."""

    stage: str
    file: str
    make: Callable[[Path], bytes]
    says: list[str]
    env: dict[str, str] = field(default_factory=dict)


def replaced(file: str, old: str, new: str) -> Callable[[Path], bytes]:
    def make(clone: Path) -> bytes:
        text = (clone / file).read_text()
        assert old in text
        return text.replace(old, new).encode()

    return make


SPEC, DATA, PARAMS = "models/digits_cnn/spec.yaml", "models/digits_cnn/data.py", "params.yaml"
NETWORK = "models/digits_cnn/network.py"
WEIGHTS = "data/raw/digits_cnn/weights.pth"


def network_with(line: str) -> Callable[[Path], bytes]:
    return replaced(NETWORK, "super().__init__()\n", f"super().__init__()\n        {line}\n")


# Nothing listens on port 9 of this machine, and pip's own settings and cache are out of the way.
NO_NETWORK = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "0",
    "PIP_NO_CACHE_DIR": "1",
}


class RunsCode:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("ran"),)  # relative: to the folder of whoever unpickles it


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


BAD_INPUT = {
    "wrong sha256": BadInput(
        "fetch",
        SPEC,
        lambda clone: (clone / SPEC).read_bytes().replace(b"sha256: 9", b"sha256: 0"),
        ["weights.pth has the sha256 920ace", "declares 020ace"],
    ),
    "no network": BadInput(
        "fetch",
        SPEC,
        lambda clone: (clone / SPEC).read_bytes(),
        ["pip cannot download scikit-learn==1.9.1", "Check the network"],
        NO_NETWORK,
    ),
    "a truncated weights file": BadInput(
        "reference",
        WEIGHTS,
        lambda clone: (clone / WEIGHTS).read_bytes()[:9000],
        ["weights.pth is truncated or not a checkpoint"],
    ),
    "a pickle that would run code": BadInput(
        "reference",
        WEIGHTS,
        lambda _: saved({"weight": RunsCode()}),
        ["weights.pth is not a plain file of weights", "Unsupported global"],
    ),
    "a checkpoint whose keys do not match": BadInput(
        "reference",
        NETWORK,
        network_with("self.other = nn.Linear(2, 2)"),
        ["does not fit the network", "missing: other.weight"],
    ),
    "an undeclared dimension": BadInput(
        "prepare",
        SPEC,
        lambda _: DIGITS_SPEC.replace("shape: [batch, 10]", "shape: [batch, classes]").encode(),
        ["logits uses the dimension classes"],
    ),
    "a shape that the network contradicts": BadInput(
        "reference",
        SPEC,
        lambda _: (
            DIGITS_SPEC.replace("shape: [batch, 10]", "shape: [batch, 11]").replace('["0", ', '["0", "0", ').encode()
        ),
        ["network contradicts spec.yaml: logits"],
    ),
    "a network that returns NaN": BadInput(
        "reference",
        NETWORK,
        replaced(NETWORK, "flatten(1))", "flatten(1)) * float('nan')"),
        ["values of the output logits are NaN"],
    ),
    "a network in training mode": BadInput(
        "reference",
        NETWORK,
        replaced(NETWORK, "network.eval()", "network.train()"),
        ["in training mode", "network.eval()"],
    ),
    "an unknown model": BadInput(
        "fetch",
        PARAMS,
        replaced(PARAMS, "model: digits_cnn", "model: digits"),
        ["no model called digits", "mobilenet_v2"],
    ),
    "an opset out of range": BadInput(
        "hardware", PARAMS, replaced(PARAMS, "opset: 18", "opset: 99"), ["export: opset 99 is out of range", "13 to 23"]
    ),
    "a parameter of the wrong type": BadInput(
        "hardware", PARAMS, replaced(PARAMS, "opset: 18", "opset: '18'"), ["export.opset: ", "not '18'"]
    ),
    "an unknown parameter": BadInput(
        "hardware", PARAMS, replaced(PARAMS, "opset: 18", "opset: 18\n  opsets: 18"), ["export.opsets: no such key"]
    ),
    "a group in both splits": BadInput(
        "prepare", DATA, replaced(DATA, "label=int(label))", "label=int(label), group='Ada')"), ["in both splits: Ada"]
    ),
    "a label out of range": BadInput(
        "prepare",
        DATA,
        replaced(DATA, "label=int(label))", "label=int(label) + 1)"),
        ["the label is 10", "a class of logits", "0 to 9"],
    ),
    "no samples": BadInput(
        "prepare",
        DATA,
        replaced(DATA, "return rows[:, :-1]", "rows = rows[:0]\n    return rows[:, :-1]"),
        ["gives no sample"],
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_ends_with_one_message_and_leaves_the_outputs(clone, name):
    case = BAD_INPUT[name]
    before = outputs(clone)
    with ExitStack() as stack:
        stack.enter_context(edited(clone / case.file, case.make(clone)))
        with_it = outputs(clone)  # the file itself may be one of them
        result = run_here(clone, f"stages.{case.stage}", env=case.env)
        assert outputs(clone) == with_it
    assert outputs(clone) == before
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("error: ") == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert all(text in result.stderr for text in case.says), result.stderr
    assert not (clone / "ran").exists()


@pytest.mark.parametrize("stage", ["fetch", "prepare", "reference", "export", "slim"])
def test_no_space_while_writing_leaves_the_outputs(clone, stage):
    before = outputs(clone)
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, allowed[1]))
    try:
        result = run_here(clone, f"stages.{stage}", env={"PIP_NO_CACHE_DIR": "1"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr
    assert outputs(clone) == before
