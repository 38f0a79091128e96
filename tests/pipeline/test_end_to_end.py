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

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.addresses import address
from onnx_release.core.errors import SpecError
from onnx_release.core.params import load_params
from onnx_release.core.paths import LOCK, MACHINE_LOCK, MACHINE_PIPELINE, ON_DISK, ModelFiles
from onnx_release.core.spec import Spec, load_spec
from onnx_release.core.variants import REDUCED, VARIANTS
from onnx_release.core.yaml_files import read_yaml
from onnx_release.data.samples import SampleFile
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.runtime.providers import CPU
from onnx_release.runtime.settings import load_runtime
from tests.clone import QUICK, edited, list_models, make_clone, only_model, outputs, path_with_python, run, stages_run
from tests.declared_stages import declared_stages
from tests.digits_spec import DIGITS_SPEC
from tests.imports import ROOT
from tests.in_process import run_here, run_stages
from tests.registry import registry
from tests.revisions import git
from tests.served import serving
from tests.stage_reads import note_reads

MODEL = "digits_cnn"
FILES = ModelFiles(MODEL)
# What may differ between two runs on one machine: what was timed, and what reads it.
TIMED = {"benchmark", "choose", "optimize", "profile", "report", "package"}
# What nothing keeps from running.
ALWAYS = [f"{MACHINE_PIPELINE}:{stage}" for stage in ("hardware", "sources")]

PARAMS_OF_CLONE = {**QUICK, "quantize_static.minutes": "0.02", "validate.resamples": "200"}


@pytest.fixture(scope="module", autouse=True)
def no_compilation() -> Iterator[None]:
    """torch.compile hands back the network as it is: compiling it takes longer than the rest of the pipeline here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")
        yield


@pytest.fixture(scope="module")
def reads() -> dict[str, set[str]]:
    """What each stage of `clone` has read of its spec and its parameters, once it has run."""
    return {}


@pytest.fixture(scope="module")
def clone(no_compilation: None, reads: dict[str, set[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which every stage has run once and DVC has the outputs. No test reads a timing."""
    folder = make_clone(tmp_path_factory.mktemp("clone"), PARAMS_OF_CLONE)
    only_model(folder, MODEL)
    with pytest.MonkeyPatch.context() as patch:
        note_reads(patch, reads)
        run_stages(folder, MODEL)
    for lock in folder.rglob(LOCK.name):
        lock.unlink()  # of another run
    result = run_here(folder, "dvc", "commit", "--force", "--quiet")
    assert result.returncode == 0, result.stderr
    return folder


def locked(clone: Path) -> dict[str, Any]:
    """What DVC has locked of each stage, by its name without the model."""
    stages: dict[str, Any] = {}
    for lock in (MACHINE_LOCK, FILES.lock, LOCK):
        stages |= YAML(typ="safe").load((clone / lock).read_text())["stages"]
    return {name.removesuffix(f"@{MODEL}"): stage for name, stage in stages.items()}


def made(clone: Path, paths: Collection[str]) -> dict[str, str]:
    """The sha256 of every file in the clone that is one of `paths`, or below one."""
    return {name: digest for name, digest in outputs(clone).items() if any(is_below(name, path) for path in paths)}


def is_below(name: str, path: str) -> bool:
    return Path(name).is_relative_to(path)


def test_another_folder_and_process_make_the_same_bytes(clone, tmp_path):
    other = make_clone(tmp_path / "a folder with another name", PARAMS_OF_CLONE)
    list_models(other, "minilm", MODEL)
    code = "from pathlib import Path; from tests.in_process import run_stages; "
    code += f"run_stages(Path({str(other)!r}), {MODEL!r}, {TIMED})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PATH": path_with_python()}, check=True)
    stages = {name: stage for name, stage in locked(clone).items() if name not in TIMED}
    paths = {out["path"] for stage in stages.values() for out in stage["outs"]}
    paths = paths - {ON_DISK.as_posix()} | {FILES.on_disk.as_posix()}  # the folder has a file for each listed model
    assert FILES.variant("int8_static").parent.as_posix() in paths
    expected = made(clone, paths)
    assert {name.split("/")[0] for name in expected} == {"data", "artifacts", "metrics"}
    assert made(other, paths) == expected


def test_each_stage_declares_the_parts_of_the_spec_and_the_parameters_that_it_has_read(clone, reads):
    """What tests/pipeline/test_pipeline.py finds in the source, here in a run."""
    stages = declared_stages(MODEL)
    missing = []
    for stage in stages.keys() & reads.keys() - {"settings"}:  # which makes the file that the others depend on
        (params,) = stages[stage]["params"]
        (declared,) = params.values()
        missing += [f"{stage}: {key}" for key in sorted(reads[stage]) if not any(alike(key, name) for name in declared)]
    assert not missing, "add to the params, each to its stage:\n" + "\n".join(missing)
    assert reads["fetch"] == {"spec.sources"}
    parts = {f"spec.{part}" for part in ("network", "variants", "budget", "tolerance")}
    assert reads["validate"] == {"validate", "runtime", *parts}


def alike(key: str, other: str) -> bool:
    """Whether they are the same key, or one is a part of the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def test_the_release_is_real(clone):
    metrics = {
        name: json.loads((clone / FILES.metrics / f"{name}.json").read_text())
        for name in ("validate/fp32", "benchmark")
    }
    assert metrics["validate/fp32"]["passed"]
    assert metrics["validate/fp32"]["accuracy"] == metrics["validate/fp32"]["accuracy_torch"] > 0.98
    assert metrics["benchmark"]["fp32"]["samples"] > 0
    assert (clone / FILES.report / "index.html").is_file()
    assert run_here(clone, "tools.gate").returncode == 0


def test_the_release_has_the_spec_without_its_comments_for_which_no_stage_reruns(clone):
    written, released = (folder / FILES.spec for folder in (clone, clone / FILES.release))
    assert read_yaml(released, Spec, SpecError) == read_yaml(written, Spec, SpecError)
    assert "#" in written.read_text() and "#" not in released.read_text()


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
    folder = shutil.copytree(clone / FILES.release, tmp_path / "release")
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
    variant = SummaryMetrics.read(MODEL).variant
    assert variant is not None
    model = OnnxModel(FILES.variant(variant), load_spec(MODEL), load_runtime(FILES, load_params(FILES).runtime))
    samples = SampleFile(FILES.evaluation_samples)
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
            found = client.infer(MODEL, [tensor]).as_numpy("logits")
            assert np.array_equal(found, logits)


def test_a_second_run_does_nothing_but_look_at_the_hardware_and_at_the_sources(clone):
    before = outputs(clone)
    result = run_here(clone, "tools.repro")
    assert sorted(stages_run(result.stdout)) == ALWAYS
    assert outputs(clone) == before


def test_a_sweep_runs_only_what_each_experiment_must_and_names_the_winner(clone):
    """No other test asks for this way of calibrating: DVC's run cache would know it."""
    git(clone, "config", "user.name", "test")
    git(clone, "config", "user.email", "test@example.invalid")
    git(clone, "commit", "--quiet", "--all", "--message", "as it ran")
    (clone / "grid.yaml").write_text("timing: false\ngrid: {calibrate.method: [percentile, minmax]}\n")
    result = run(clone, "tools.sweep", "grid.yaml", "--jobs", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    logs = {path.stem: path.read_text() for path in (clone / ".dvc/tmp/sweep/logs").glob("*.log")}
    # What nothing keeps from running, and what writes the model's parameters, of which the others read what they need.
    always = {*ALWAYS, address("settings", MODEL)}
    of_calibration = {address(stage, MODEL) for stage in ("calibrate", "quantize_static")}
    of_calibration |= {address("validate@int8_static", MODEL)}
    of_calibration |= {
        address(f"explain@{variant}", MODEL) for variant in REDUCED
    }  # each depends on all that one may read
    assert sorted((set(stages_run(log)) for log in logs.values()), key=len) == [
        set(ALWAYS),
        always,
        always | of_calibration,
    ]
    winner = re.search(
        rf"^The winner: dvc exp apply (grid-\w+) && make repro MODEL={MODEL}$", result.stdout, re.MULTILINE
    )
    assert winner
    lines = [line for line in result.stdout.splitlines() if line.startswith("| ") and "grid-" in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert sorted(row[0] for row in rows) == ["minmax", "percentile"]
    shown = json.loads(run_here(clone, "dvc", "exp", "show", "--json").stdout)
    found = {
        experiment["name"]: experiment["revs"][0]["data"]["params"][FILES.overrides.as_posix()]["data"]["calibrate"][
            "method"
        ]
        for commit in shown
        for experiment in commit["experiments"] or []
    }
    assert {row[-1]: row[0] for row in rows} == found
    assert winner[1] in found


def test_dvc_shows_every_metric_and_what_changed(clone):
    shown = json.loads(run_here(clone, "dvc", "metrics", "show", "--json").stdout)
    files = next(iter(shown.values()))["data"]
    assert {f"{FILES.metrics}/{name}.json" for name in ("export", "slim", "benchmark", "summary")} <= set(files)
    assert files[f"{FILES.metrics}/validate/fp32.json"]["data"]["passed"] is True


def test_a_failed_variant_is_written_down_and_refused_by_the_gate(clone):
    before = (clone / SPEC).read_bytes()
    saved = {path: path.read_bytes() for path in (clone / "metrics").rglob("*") if path.is_file()}
    (clone / SPEC).write_bytes(before + b"tolerance: {torch_rounding_multiple: 0.0, atol: 0.0, rtol: 0.0}\n")
    try:
        assert run_here(clone, "stages.validate", MODEL, "fp32").returncode == 0
        gate = run_here(clone, "tools.gate")
        assert gate.returncode == 1
        assert "fp32: FAILED: logits is off by" in gate.stdout
        assert "It would pass with" in gate.stdout
    finally:
        (clone / SPEC).write_bytes(before)
        for path, content in saved.items():
            path.write_bytes(content)


def test_variants_that_cannot_be_made_do_not_keep_the_others_from_a_release(clone, tmp_path):
    folder = shutil.copytree(clone, tmp_path / "clone", ignore=shutil.ignore_patterns(".git"))
    samples = folder / FILES.calibration_samples
    samples.chmod(0o644)
    samples.write_bytes(samples.read_bytes()[:100])
    for stage in ("fp16", "calibrate", "quantize_static"):
        assert run_here(folder, f"stages.{stage}", MODEL).returncode == 0
        metrics = json.loads((folder / FILES.metrics / f"{stage}.json").read_text())
        assert metrics.keys() == {"not_made"} and "calibration.npz" in metrics["not_made"]
    for variant in ("fp16", "int8_static"):
        assert run_here(folder, "stages.validate", MODEL, variant).returncode == 0
        assert run_here(folder, "stages.explain", MODEL, variant).returncode == 0
    damaged = folder / FILES.variant("int8_dynamic")
    damaged.unlink()
    damaged.write_bytes(b"no graph")
    assert run_here(folder, "stages.validate", MODEL, "int8_dynamic").returncode == 0
    for stage in ("choose", "report", "package"):
        assert run_here(folder, f"stages.{stage}", MODEL).returncode == 0
    summary = json.loads((folder / FILES.metrics / "summary.json").read_text())
    assert summary["variant"] == "fp32" and summary["refused"].keys() == {"fp16", "int8_dynamic", "int8_static"}
    assert "it could not be made: the file does not run: " in summary["refused"]["int8_dynamic"]
    assert (folder / FILES.release / "MANIFEST.json").is_file()
    gate = run_here(folder, "tools.gate")
    assert gate.returncode == 1
    assert "fp16: FAILED: it could not be made: " in gate.stdout
    assert "fp32: passed" in gate.stdout


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
    """A `file` given the content that `make` returns, the stage that meets it first, and what its message says.

    `arguments` are those of the stage.
    """

    stage: str
    file: str
    make: Callable[[Path], bytes]
    says: list[str]
    env: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = (MODEL,)


def replaced(file: str, old: str, new: str) -> Callable[[Path], bytes]:
    def make(clone: Path) -> bytes:
        text = (clone / file).read_text()
        assert old in text
        return text.replace(old, new).encode()

    return make


SPEC, DATA, PARAMS = "models/digits_cnn/spec.yaml", "models/digits_cnn/data.py", "params.yaml"
NETWORK, OWN_PARAMS, LIST = "models/digits_cnn/network.py", "models/digits_cnn/params.yaml", "models.yaml"
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
        LIST,
        replaced(LIST, "digits_cnn", "mobilenet_v2"),
        ["no model called digits: models/ has", "mobilenet_v2"],
        arguments=("digits",),
    ),
    "a listed model without a folder": BadInput(
        "sources",
        LIST,
        replaced(LIST, "- digits_cnn", "- digits_cnn\n- digits"),
        ["models.yaml lists digits, and there is no folder models/digits"],
        arguments=(),
    ),
    "the key that once chose the model": BadInput(
        "settings",
        PARAMS,
        lambda clone: b"model: digits_cnn\n" + (clone / PARAMS).read_bytes(),
        ["params.yaml has the key model", "models.yaml lists the models", "make repro MODEL="],
    ),
    "an opset out of range": BadInput(
        "settings",
        PARAMS,
        replaced(PARAMS, "opset: auto", "opset: 99"),
        ["export: opset 99 is out of range", "13 to 23"],
    ),
    "a parameter of the wrong type": BadInput(
        "settings", PARAMS, replaced(PARAMS, "opset: auto", "opset: '18'"), ["export.opset: ", "not '18'"]
    ),
    "an unknown parameter": BadInput(
        "settings", PARAMS, replaced(PARAMS, "opset: auto", "opset: auto\n  opsets: 18"), ["export.opsets: no such key"]
    ),
    "an unknown parameter of one model": BadInput(
        "settings",
        OWN_PARAMS,
        lambda _: b"export: {opsets: 18}\n",
        ["models/digits_cnn/params.yaml has wrong values", "export.opsets: no such key; did you mean opset?"],
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
        result = run_here(clone, f"stages.{case.stage}", *case.arguments, env=case.env)
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
        result = run_here(clone, f"stages.{stage}", MODEL, env={"PIP_NO_CACHE_DIR": "1"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr
    assert outputs(clone) == before
