"""Running, failing or changing one model leaves data, metrics, release and lock entries of another as they are."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from onnx_release.core.addresses import last_stages
from onnx_release.core.files import write_text
from onnx_release.core.paths import LOCK, ModelFiles
from onnx_release.runtime.release import NOT_RELEASED
from tests.clone import list_models, outputs, run
from tests.in_process import run_here
from tests.small_project import ENVIRONMENT, make_small_project

# The name of one is the beginning of the other's.
MODELS = ("m", "m_v2")
BOTH_WAYS = [MODELS, MODELS[::-1]]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository in which both models are released."""
    folder = make_small_project(tmp_path_factory.mktemp("pristine"), *MODELS)
    assert run_here(folder, "tools.repro", "--all", env=ENVIRONMENT).returncode == 0
    return folder


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(pristine, tmp_path, dirs_exist_ok=True))


def repro(project: Path, model: str) -> tuple[int, str]:
    """The exit code of a run of the model, and what went wrong."""
    result = run_here(project, "tools.repro", "--model", model, env=ENVIRONMENT)
    return result.returncode, result.stderr


def owned(project: Path, model: str) -> dict[str, object]:
    """The sha256 of each file that was made of the model, and the lock entries of its stages."""
    files = {path: digest for path, digest in outputs(project).items() if model in Path(path).parts}
    locks = (ModelFiles(model).lock, LOCK)
    own, last = (YAML(typ="safe").load((project / lock).read_text())["stages"] for lock in locks)
    locked = {name: stage for name, stage in last.items() if name in last_stages(model)}
    assert len(files) == 4 and len(locked) == 2 and len(own) == 1
    return {**files, **locked, **own}


def change(project: Path, model: str) -> None:
    write_text(project / ModelFiles(model).folder / "weights.txt", "changed")


@pytest.mark.parametrize(("model", "other"), BOTH_WAYS)
def test_a_run_of_one_model_changes_nothing_of_another(project, model, other):
    before, own = owned(project, other), owned(project, model)
    change(project, model)
    change(project, other)  # which the run leaves for a run of this one
    assert repro(project, model) == (0, "")
    after = owned(project, model)
    assert all(after[name] != value for name, value in own.items())
    assert owned(project, other) == before


@pytest.mark.parametrize(("model", "other", "stage"), [("m", "m_v2", "prepare"), ("m_v2", "m", "package")])
def test_a_run_that_fails_changes_nothing_of_another_model_and_leaves_its_own_release(project, model, other, stage):
    before, own = owned(project, other), owned(project, model)
    change(project, model)
    write_text(project / f"{stage}@{model}", "fails")
    code, says = repro(project, model)
    assert code == 1 and f"{stage}@{model} fails" in says
    assert owned(project, other) == before
    release = f"{ModelFiles(model).release}/MANIFEST.json"
    assert owned(project, model)[release] == own[release]


def test_a_run_that_fails_before_its_first_stage_changes_nothing(project):
    before = outputs(project)
    (project / "models/m/weights.txt").unlink()  # DVC comes to no stage
    assert repro(project, "m")[0] == 1
    assert outputs(project) == before


def test_a_run_that_cannot_begin_changes_nothing(project):
    before = outputs(project)
    write_text(project / "dvc.lock", "")
    code, says = repro(project, "m_v2")
    assert code == 1 and says.startswith("error: dvc.lock is empty: run `git restore dvc.lock`")
    assert outputs(project) == before


@pytest.mark.parametrize(("model", "other"), BOTH_WAYS)
def test_a_model_that_leaves_the_list_keeps_what_was_made_and_the_others_run(project, model, other):
    before = owned(project, other)
    list_models(project, model)
    change(project, model)
    code, says = repro(project, model)
    assert (code, says.partition(". ")[0]) == (0, f"note: not on the list in models.yaml, and so not kept up: {other}")
    assert owned(project, other) == before


@pytest.mark.parametrize(("arguments", "model"), [([], "m"), (["--model", "m_v2"], "m_v2")])
def test_the_release_of_the_model_that_is_asked_for_is_served(project, arguments, model):
    release = project / ModelFiles(model).release
    write_text(release / "serving/__main__.py", "import os; print('served in', os.getcwd())")
    result = run(project, "tools.serve", *arguments, env=ENVIRONMENT)
    assert (result.returncode, result.stdout) == (0, f"served in {release}\n"), result.stderr


def test_without_a_release_nothing_is_served(project):
    release = project / ModelFiles("m_v2").release
    shutil.rmtree(release)
    assert said(project) == "error: there is no folder artifacts/m_v2/release: run `make repro MODEL=m_v2`\n"
    write_text(release / NOT_RELEASED, "No variant of m_v2 may be released:\n- fp32: it is off by 3\n")
    assert said(project) == (
        "error: artifacts/m_v2/release has no release. No variant of m_v2 may be released:\n- fp32: it is off by 3\n"
    )


def test_a_model_that_is_not_listed_is_not_served(project):
    list_models(project, "m")
    assert said(project).startswith("error: models.yaml does not list m_v2, but m: choose one of them, or add a line")


def said(project: Path) -> str:
    """What `make serve MODEL=m_v2` says where it does not serve."""
    result = run_here(project, "tools.serve", "--model", "m_v2")
    assert result.returncode == 1
    return result.stderr
