"""artifacts/release is of the model that params.yaml names, or not there; and no other one is served."""

import shutil
from pathlib import Path

import pytest

from onnx_release.core.files import write_json, write_text
from onnx_release.core.paths import RELEASE
from onnx_release.runtime.release import MANIFEST, NOT_RELEASED
from tests.clone import run, set_param
from tests.digits_spec import DIGITS_SPEC
from tests.imports import ROOT
from tests.in_process import run_here

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
# A pipeline of one stage, which makes a release of the model, or fails where a file says so.
PIPELINE = """
stages:
  package:
    cmd: python package.py ${model}
    deps: [weights.txt]
    params: [model]
    outs: [artifacts/release]
"""
PACKAGE = """
import json, pathlib, sys
if pathlib.Path("fails").exists():
    sys.exit("it fails")
folder = pathlib.Path("artifacts/release")
folder.mkdir(parents=True)
manifest = json.loads(pathlib.Path("manifest.json").read_text())
(folder / "MANIFEST.json").write_text(json.dumps(manifest | {"model": sys.argv[1]}))
"""


def manifest(model: str) -> dict[str, object]:
    empty: dict[str, object] = {name: {} for name in ("files", "metrics", "hardware", "versions", "opsets")}
    return {"format": 1, "model": model, "variant": "fp32", "task": "tensor", "git": None, **empty}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository in which the release of one model was made."""
    folder = tmp_path_factory.mktemp("pristine")
    shutil.copy(ROOT / "params.yaml", folder)
    write_text(folder / ".dvc/config", "[core]\n    no_scm = true\n    analytics = false\n")
    write_text(folder / "dvc.yaml", PIPELINE)
    write_text(folder / "package.py", PACKAGE)
    write_text(folder / "weights.txt", "first")
    write_json(folder / "manifest.json", manifest(""))
    for model in ("one", "two"):
        write_text(folder / f"models/{model}/spec.yaml", DIGITS_SPEC)
    set_param(folder, "model", "one")
    assert run_here(folder, "tools.repro", env=ENVIRONMENT).returncode == 0
    return folder


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(pristine, tmp_path, dirs_exist_ok=True))


def released(project: Path) -> str:
    """What the folder of the release has of its model; empty where there is none."""
    path = project / RELEASE / MANIFEST
    return path.read_text() if path.is_file() else ""


def test_a_run_of_another_model_that_fails_leaves_no_release(project):
    assert '"model": "one"' in released(project)
    set_param(project, "model", "two")
    write_text(project / "fails", "")
    result = run_here(project, "tools.repro", env=ENVIRONMENT)
    assert result.returncode == 1
    assert not (project / RELEASE).exists()
    assert "removed artifacts/release, which was of one: `make repro MODEL=one` makes it again" in result.stderr
    set_param(project, "model", "one")  # and it does, although the stage would fail
    assert run_here(project, "tools.repro", env=ENVIRONMENT).returncode == 0
    assert '"model": "one"' in released(project)


def test_a_run_that_fails_before_the_release_leaves_none_of_another_model(project):
    set_param(project, "model", "two")
    (project / "weights.txt").unlink()  # DVC does not come to the stage
    assert run_here(project, "tools.repro", env=ENVIRONMENT).returncode == 1
    assert not (project / RELEASE).exists()


def test_a_run_that_cannot_begin_changes_neither_the_model_nor_the_release(project):
    before, release = (project / "params.yaml").read_text(), released(project)
    write_text(project / "dvc.lock", "")
    result = run_here(project, "tools.repro", "--model", "two", env=ENVIRONMENT)
    assert (result.returncode, result.stderr) == (
        1,
        "error: dvc.lock is empty: run `git restore dvc.lock` for the committed version\n",
    )
    assert ((project / "params.yaml").read_text(), released(project)) == (before, release)


def test_a_run_of_the_same_model_that_fails_brings_its_release_back(project):
    write_text(project / "weights.txt", "second")
    write_text(project / "fails", "")
    result = run(project, "tools.repro", env=ENVIRONMENT)
    assert result.returncode == 1 and "it fails" in result.stderr
    assert '"model": "one"' in released(project)
    assert "is removed" not in result.stderr


def test_a_release_of_the_model_that_params_yaml_names_is_served(project):
    write_text(project / RELEASE / "serving/__main__.py", "import os; print('served in', os.getcwd())")
    result = run(project, "tools.serve", env={"PYTHONPATH": str(ROOT)})
    assert (result.returncode, result.stdout) == (0, f"served in {project / RELEASE}\n"), result.stderr


def test_a_release_of_another_model_is_not_served(project):
    set_param(project, "model", "two")
    assert said(project) == (
        "error: artifacts/release is a release of one, and params.yaml names two: run `make repro` to release two, or "
        "write `model: one` there\n"
    )


def test_without_a_release_nothing_is_served(project):
    shutil.rmtree(project / RELEASE)
    assert said(project).startswith("error: there is no folder artifacts/release: `make repro` makes a release")
    write_text(project / RELEASE / NOT_RELEASED, "No variant of one may be released:\n- fp32: it is off by 3\n")
    assert said(project) == (
        "error: artifacts/release has no release. No variant of one may be released:\n- fp32: it is off by 3\n"
    )


def said(project: Path) -> str:
    """What `make serve` says where it does not serve."""
    result = run_here(project, "tools.serve")
    assert result.returncode == 1
    return result.stderr
