"""What lies outside of the repository is watched in every run, whatever starts it, and refused once it has changed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from onnx_release.core.files import sha256
from onnx_release.core.spec import load_spec
from onnx_release.data.checksums import tree_sha256
from tests.clone import make_clone, stages_run
from tests.in_process import run_here

ONLY_LOOKED = ["sources"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a model as `tools.new_model` writes it for weights and photographs beside the clone; fetched."""
    home = tmp_path_factory.mktemp("home")
    (home / "clone").mkdir()
    clone = make_clone(home / "clone", {"model": "pets"})
    # DVC reads all of dvc.yaml before each command, and all of dvc.lock around each stage.
    (clone / "dvc.lock").unlink()
    pipeline = YAML(typ="safe").load(clone / "dvc.yaml")
    stages = {name: pipeline["stages"][name] for name in ("hardware", "sources", "fetch", "prepare")}
    with (clone / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": stages}, file)
    for arguments in (["user.name", "test"], ["user.email", "test@example.invalid"]):
        subprocess.run(["git", "config", *arguments], cwd=clone, check=True)
    torch.save({"weight": torch.zeros(8)}, home / "pets.pth")
    for name in ("cats/a.png", "cats/b.png", "dogs/c.png"):
        (home / "photographs" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "photographs" / name).write_text(name)
    options = ["--weights", "../pets.pth", "--images", "../photographs"]
    made = run_here(clone, "tools.new_model", "pets", "--task", "classification", *options)
    assert made.returncode == 0, made.stderr
    assert stages_run(run_here(clone, "dvc", "repro", "fetch").stdout) == ["sources", "fetch"]
    subprocess.run(["git", "add", "--all"], cwd=clone, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "a model"], cwd=clone, check=True)
    return clone


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
        (with_other_weights, ["dvc", "repro", "fetch"]),
        (with_other_weights, ["dvc", "exp", "run", "fetch"]),
        (with_other_weights, ["tools.repro"]),
        (with_another_photograph, ["dvc", "repro", "fetch"]),
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
            assert stages_run(result.stdout)[-1] == "fetch"  # no later stage takes what was refused
        if command[:2] == ["dvc", "repro"]:
            assert "fetch:" in run_here(project, "dvc", "status", "fetch").stdout
    finally:
        shutil.rmtree(home / "photographs")
        (home / "kept").rename(home / "photographs")
        (home / "kept.pth").replace(home / "pets.pth")
    if command[0] == "dvc":  # which leaves the outputs of a stage that failed deleted
        again = run_here(project, "dvc", "repro", "fetch")
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
        assert stages_run(run_here(project, "dvc", "repro", "fetch").stdout) == ["sources", "fetch"]
        assert sha256(project / "data/raw/pets/pets.pth") == found
    finally:
        spec.write_text(before)
        (project.parent / "pets.pth").write_bytes(weights)
    assert run_here(project, "dvc", "repro", "fetch").returncode == 0


def test_what_is_gone_or_touched_and_was_fetched_before_reruns_nothing(project):
    """So it is for a colleague who has the model from DVC's remote, and in the clone of a sweep."""
    before, gone = raw(project), project.parent / "gone"
    (project.parent / "pets.pth").touch()
    assert stages_run(run_here(project, "dvc", "repro", "fetch").stdout) == ONLY_LOOKED
    for name in ("pets.pth", "photographs"):
        gone.mkdir(exist_ok=True)
        (project.parent / name).rename(gone / name)
    try:
        result = run_here(project, "dvc", "repro", "fetch")
        assert (result.returncode, stages_run(result.stdout)) == (0, ONLY_LOOKED)
        assert raw(project) == before
        (project / "data/raw/pets/pets.pth").unlink()
        result = run_here(project, "stages.fetch")
        assert result.returncode == 1
        assert "error: pets.pth: there is no file or folder models/pets/../../../pets.pth" in result.stderr
    finally:
        for path in gone.iterdir():
            path.rename(project.parent / path.name)
    run_here(project, "dvc", "checkout", "--force", "data/raw/pets")
    assert raw(project) == before
