"""docs/bring-your-own-model.md, followed to the letter: files are written, commands run, and the gate passes."""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from ruamel.yaml import YAML

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.errors import ReleaseError
from onnx_release.core.params import load_params
from onnx_release.core.paths import RAW, ModelFiles
from onnx_release.core.spec import Source, load_spec
from onnx_release.data.fetch import copy_tree, fetch_sources
from onnx_release.data.image_folder import ImageFolder, Photograph, check_readable
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import with_batch_axis, without_batch_axis
from onnx_release.network.checkpoint import load_checkpoint
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.runtime.settings import load_runtime
from tests.clone import QUICK, list_models, make_clone, path_with_python
from tests.imports import ROOT
from tests.in_process import run_here, run_stages
from tests.served import PATIENCE, serving

PAGE = (ROOT / "docs/bring-your-own-model.md").read_text()
BLOCKS = re.findall(r"^```(sh|python|yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MODEL = "digits"
FILES = ModelFiles(MODEL)
# What step 2 writes beside the model's folder: a line for the model, and what DVC shows of it.
LISTED = {"models.yaml", "pipelines/digits/dvc.yaml"}


@pytest.fixture
def clone(tmp_path, digits_raw):
    """A clone whose environment is this one, with digits.pth and digits/ beside it as the page has them."""
    settings = {"quantize_static.minutes": "0.02", "prepare.calibration": "20", "prepare.evaluation": "40"}
    folder = make_clone(tmp_path / "clone", QUICK | settings)
    list_models(folder, "digits_cnn")
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t", "commit", "-qam", "quick"], cwd=folder, check=True
    )
    shutil.copy(ROOT / "models/digits_cnn/weights.pth", tmp_path / "digits.pth")
    for index, row in enumerate(np.loadtxt(digits_raw / "digits.csv.gz", delimiter=",")):
        path = tmp_path / "digits" / str(int(row[64])) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(row[:64].reshape(8, 8) * 255 / 16).astype(np.uint8)).save(path)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")
    (folder / ".venv/installed").touch()
    return folder


def changed(clone):
    """The paths that git finds changed or new."""
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    lines = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line[3:].strip('"') for line in lines}


def follow(kind, text, clone):
    """Do what a block says: run it, write the file that it names, or replace the keys of that file.

    `make repro MODEL=NAME` is followed by running its stages and the gate in this process. `make releases`, which
    .ci/run calls, has DVC run them.
    """
    if text.startswith("make repro"):
        model = text.strip().removeprefix("make repro MODEL=")
        run_stages(clone, model)
        gate = run_here(clone, "tools.gate", "--model", model)
        assert gate.returncode == 0, gate.stdout + gate.stderr
        return gate.stdout
    if kind == "sh":
        environment = {**os.environ, "PATH": path_with_python()}
        command = ["bash", "-e", "-c", text]
        result = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout
    named = re.match(r"# ([\w/.]+)(, these keys)?\n", text)
    assert named, f"the block does not begin with the name of a file: {text[:80]}"
    name, keys = named.groups()
    if keys:
        yaml = YAML()
        spec = yaml.load((clone / name).read_text())
        replaced = yaml.load(text)
        assert set(replaced) <= set(spec)
        spec.update(replaced)
        with (clone / name).open("w") as file:
            yaml.dump(spec, file)
    else:
        assert (clone / name).is_file()
        (clone / name).write_text(text)
    return ""


def test_the_page_leads_to_a_release_and_touches_nothing_outside_of_the_model_s_folder(clone, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling takes longer than all the rest
    assert changed(clone) == set()
    printed, written = "", set()
    for kind, text in BLOCKS:
        if text.startswith("make repro"):
            written = {str(FILES.folder / name) for name in ("spec.yaml", "params.yaml", "network.py")}
            assert changed(clone) == written | LISTED
        printed = follow(kind, text, clone)
    assert "int8_static: passed" in printed and "FAILED" not in printed
    assert (clone / FILES.report / "index.html").is_file()
    check_answers(clone)
    made = changed(clone) - written - LISTED
    assert made and all(path.startswith(f"{FILES.metrics}/") for path in made), made


def check_answers(clone):
    """Every photograph that was evaluated on, uploaded to the release: the pipeline's answer, bit for bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        spec, data = load_spec(MODEL), cast(ImageFolder, load_data(MODEL))
        variant = SummaryMetrics.read(MODEL).variant
        assert variant is not None
        model = OnnxModel(FILES.variant(variant), spec, load_runtime(FILES, load_params(FILES).runtime))
        contents = [photograph.path.read_bytes() for photograph in data.photographs(FILES.raw, "evaluation")[:40]]
        answers = []
        for content in contents:
            outputs = model.run(with_batch_axis(data.preprocess(data.decode(content))))
            answers.append(data.postprocess(without_batch_axis(outputs, spec)))
    with serving(clone / FILES.release) as server:
        for content, answer in zip(contents, answers, strict=True):
            files = {"file": ("digit.png", content)}
            found = requests.post(f"http://127.0.0.1:{server.port}/predict", files=files, timeout=PATIENCE).json()
            [prediction] = found["predictions"]
            assert prediction["labels"] == answer.labels.tolist()
            assert np.array_equal(np.array(prediction["scores"], np.float32), answer.scores)


def test_the_page_quotes_the_errors_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "clone/models/digits").mkdir(parents=True)
    (tmp_path / "digits/3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "clone")
    photographs = []
    for index in range(40):
        path = tmp_path / f"{index}.png"
        Image.new("L", (8, 8)).save(path)
        photographs.append(Photograph(path, f"{index // 4}/{index % 4}.png", 0))
    for index in (1, 28):
        photographs[index].path.write_bytes(b"")
    weights = Path("data/raw/digits/digits.pth")
    weights.parent.mkdir(parents=True)
    torch.save({"fc.weight": torch.zeros(1)}, weights)
    network = torch.nn.ModuleDict(
        {"classifier": torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(1, 1, bias=False))}
    )
    shutil.copy(ROOT / "models/digits_cnn/spec.yaml", "models/digits")
    (tmp_path / "digits.pth").write_bytes(b"trained again")
    declared = {"name": "digits.pth", "sha256": hashlib.sha256(b"trained").hexdigest()}
    source = Source.model_validate({**declared, "from": {"path": "../../../digits.pth"}})
    torch.save({"args": argparse.Namespace(), "state_dict": {}}, RAW / "digits/last.ckpt")
    for fails in (
        lambda: fetch_sources("digits", [source], RAW / "digits"),
        lambda: load_checkpoint(network, RAW / "digits/last.ckpt"),
        lambda: copy_tree(Path("models/digits/../../../digits"), tmp_path / "copy"),
        lambda: check_readable(photographs),
        lambda: load_checkpoint(network, weights),
    ):
        with pytest.raises(ReleaseError) as caught:
            fails()
        assert f"error: {caught.value}\n" in PAGE
