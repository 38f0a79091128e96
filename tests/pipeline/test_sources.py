"""What lies outside of the repository is watched in every run, whatever starts it, and refused once it has changed.

One stage looks for all models, and a model whose spec or source is broken does not keep the others from running.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from onnx_release.core.addresses import LAST, address
from onnx_release.core.files import sha256, write_json
from onnx_release.core.paths import HARDWARE, MACHINE_PIPELINE, PIPELINE, PIPELINES, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.checksums import tree_sha256
from tests.clone import list_models, make_clone, stages_run
from tests.declared_stages import declared_stages
from tests.in_process import run_here
from tests.release_project import HARDWARE_FACTS

MODEL = "pets"
FILES = ModelFiles(MODEL)
FETCH = address("fetch", MODEL)
# Other models, whose spec has something else in the place of a text; what is noted of it, and what is printed.
BROKEN = {
    "no_yaml": ("task:", "task: [", "is not valid YAML", "Unable to read parameters from 'models/no_yaml/spec.yaml'"),
    "wrong_key": ("task:", "tasks:", "tasks: no such key; did you mean task?", "error: models/wrong_key/spec.yaml has"),
    "no_home": (
        "../../../pets.pth",
        "~nobody_at_all/x",
        "~ has no home directory",
        "error: ~nobody_at_all/x: ~ has no",
    ),
}
ONLY_LOOKED = [f"{MACHINE_PIPELINE}:sources"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a model as `tools.new_model` writes it for weights and photographs beside the clone; fetched."""
    home = tmp_path_factory.mktemp("home")
    (home / "clone").mkdir()
    clone = make_clone(home / "clone")
    shorten(clone)
    for arguments in (["user.name", "test"], ["user.email", "test@example.invalid"]):
        subprocess.run(["git", "config", *arguments], cwd=clone, check=True)
    torch.save({"weight": torch.zeros(8)}, home / "pets.pth")
    for name in ("cats/a.png", "cats/b.png", "dogs/c.png"):
        (home / "photographs" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "photographs" / name).write_text(name)
    options = ["--weights", "../pets.pth", "--images", "../photographs"]
    made = run_here(clone, "tools.new_model", MODEL, "--task", "classification", *options)
    assert made.returncode == 0, made.stderr
    shorten_model(clone, MODEL)
    list_models(clone, MODEL)
    result = run_here(clone, "dvc", "repro", FETCH)
    assert sorted(stages_run(result.stdout)) == [FETCH, address("settings", MODEL), *ONLY_LOOKED], result.stderr
    subprocess.run(["git", "add", "--all"], cwd=clone, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "a model"], cwd=clone, check=True)
    return clone


def shorten(clone: Path) -> None:
    """Leave the stages up to `fetch`, on a machine that is known, and two that do nothing in the place of the last."""
    machine = YAML(typ="safe").load(clone / MACHINE_PIPELINE)["stages"]
    last = {"matrix": {"model": "${models}"}, "deps": ["data/raw/${item.model}"]}
    write_yaml(
        clone / PIPELINE, {"vars": ["models.yaml"], "stages": {name: {"cmd": f"echo {name}", **last} for name in LAST}}
    )
    write_yaml(clone / MACHINE_PIPELINE, {"stages": {"sources": machine["sources"]}})
    shutil.rmtree(clone / PIPELINES)
    shorten_model(clone, MODEL)
    write_json(clone / HARDWARE, HARDWARE_FACTS)


def shorten_model(clone: Path, model: str) -> None:
    """Leave the model the stages up to `fetch`."""
    stages = declared_stages(model)
    write_yaml(clone / ModelFiles(model).pipeline, {"stages": {name: stages[name] for name in ("settings", "fetch")}})


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a dvc.yaml of stages that have not run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    YAML().dump(content, path)
    path.with_suffix(".lock").unlink(missing_ok=True)


def raw(clone):
    return {
        str(path.relative_to(clone)): path.read_bytes() for path in (clone / "data/raw").rglob("*") if path.is_file()
    }


def with_other_weights(home):
    """Of the same size, and with the time of the earlier ones, as a synchronised folder has it."""
    status = (home / "pets.pth").stat()
    torch.save({"weight": torch.ones(8)}, home / "pets.pth")
    os.utime(home / "pets.pth", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (home / "pets.pth").stat().st_size == status.st_size
    return "models/pets/../../../pets.pth", sha256(home / "pets.pth")


def with_another_photograph(home):
    (home / "photographs/dogs/d.png").write_text("d")
    return "models/pets/../../../photographs", tree_sha256(home / "photographs")


@pytest.mark.parametrize(
    ("change", "command"),
    [
        (with_other_weights, ["dvc", "repro", FETCH]),
        (with_other_weights, ["dvc", "exp", "run", FETCH]),
        (with_other_weights, ["tools.repro"]),
        (with_another_photograph, ["dvc", "repro", FETCH]),
    ],
)
def test_what_has_changed_is_refused_with_its_new_sha256(project, change, command):
    home, before = project.parent, raw(project)
    shutil.copytree(home / "photographs", home / "kept")
    shutil.copy(home / "pets.pth", home / "kept.pth")
    try:
        path, found = change(home)
        result = run_here(project, *command)
        assert result.returncode != 0
        assert f"error: {path} has the sha256 {found}, models/pets/spec.yaml declares " in result.stderr
        assert f"\n    sha256: {found}\n" in result.stderr
        if command == ["tools.repro"]:
            assert stages_run(result.stdout)[-1] == FETCH  # no later stage takes what was refused
        if command[:2] == ["dvc", "repro"]:
            assert f"{FETCH}:" in run_here(project, "dvc", "status", FETCH).stdout
    finally:
        shutil.rmtree(home / "photographs")
        (home / "kept").rename(home / "photographs")
        (home / "kept.pth").replace(home / "pets.pth")
    if command[0] == "dvc":  # which leaves the outputs of a stage that failed deleted
        again = run_here(project, "dvc", "repro", FETCH)
        assert again.returncode == 0, again.stderr
    assert raw(project) == before


def test_the_new_sha256_is_taken_once_the_spec_declares_it(project, monkeypatch):
    spec = project / "models/pets/spec.yaml"
    before, weights = spec.read_text(), (project.parent / "pets.pth").read_bytes()
    monkeypatch.chdir(project)
    declared = load_spec("pets").sources[0].sha256
    try:
        _, found = with_other_weights(project.parent)
        spec.write_text(before.replace(declared, found))
        ran = stages_run(run_here(project, "dvc", "repro", FETCH).stdout)
        assert sorted(ran) == [FETCH, address("settings", MODEL), *ONLY_LOOKED]
        assert sha256(project / "data/raw/pets/pets.pth") == found
    finally:
        spec.write_text(before)
        (project.parent / "pets.pth").write_bytes(weights)
    assert run_here(project, "dvc", "repro", FETCH).returncode == 0


def test_what_is_gone_or_touched_and_was_fetched_before_reruns_nothing(project):
    """So it is for a colleague who has the model from DVC's remote, and in the clone of a sweep."""
    before, gone = raw(project), project.parent / "gone"
    (project.parent / "pets.pth").touch()
    assert stages_run(run_here(project, "dvc", "repro", FETCH).stdout) == ONLY_LOOKED
    for name in ("pets.pth", "photographs"):
        gone.mkdir(exist_ok=True)
        (project.parent / name).rename(gone / name)
    try:
        result = run_here(project, "dvc", "repro", FETCH)
        assert (result.returncode, stages_run(result.stdout)) == (0, ONLY_LOOKED)
        assert raw(project) == before
        (project / "data/raw/pets/pets.pth").unlink()
        result = run_here(project, "stages.fetch", MODEL)
        assert result.returncode == 1
        assert "error: pets.pth: there is no file or folder models/pets/../../../pets.pth" in result.stderr
    finally:
        for path in gone.iterdir():
            path.rename(project.parent / path.name)
    run_here(project, "dvc", "checkout", "--force", "data/raw/pets")
    assert raw(project) == before


def test_a_broken_model_does_not_keep_the_others_from_running(project):
    """What is wrong with a model stands in its file of data/sources/, and its own stages say it."""
    good = (project / FILES.spec).read_text()
    for name, (before, after, *_) in BROKEN.items():
        assert good.count(before) == 1
        shutil.copytree(project / FILES.folder, project / ModelFiles(name).folder)
        (project / ModelFiles(name).spec).write_text(good.replace(before, after))
        shorten_model(project, name)
    try:
        list_models(project, *BROKEN, MODEL)
        result = run_here(project, "dvc", "repro", "--keep-going")
    finally:
        list_models(project, MODEL)
    assert result.returncode != 0
    for name, (_, _, noted, says) in BROKEN.items():
        assert noted in (project / ModelFiles(name).on_disk).read_text()
        assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert {stage for stage in stages_run(result.stdout) if stage.startswith(LAST)} == {
        f"{name}@{MODEL}" for name in LAST
    }
    declared = YAML(typ="safe").load(good)["sources"]
    assert json.loads((project / FILES.on_disk).read_text()) == {
        source["name"]: source["sha256"] for source in declared
    }
