"""An experiment of DVC that takes a model off the list is refused, since its result would remove that model's metrics.

The repository of these tests has the stage `sources` as it is, which runs in every experiment, and else stages that
take no time.
"""

import subprocess
from pathlib import Path

import pytest

from tests.clone import list_models
from tests.imports import ROOT
from tests.in_process import run_here
from tests.revisions import git
from tests.sweep_project import make_project

MACHINE_PIPELINE = """
stages:
  sources:
    wdir: ..
    cmd: python -m stages.sources
    always_changed: true
    outs: [data/sources]
"""
PIPELINE = """
vars: [models.yaml]
stages:
  measure:
    matrix: {model: "${models}"}
    cmd: mkdir -p metrics/${item.model} && cp data/sources/${item.model}.json metrics/${item.model}/measure.json
    deps: ["data/sources/${item.model}.json"]
    params:
    - models/${item.model}/params.yaml:
    metrics: [{"metrics/${item.model}/measure.json": {cache: false}}]
"""
FILES = {
    "dvc.yaml": PIPELINE,
    "stages/dvc.yaml": MACHINE_PIPELINE,
    "models.yaml": "models: [first, second]\n",
    **{f"models/{model}/{file}.yaml": "{}\n" for model in ("first", "second") for file in ("spec", "params")},
    ".gitignore": "/data\n",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose two models have run, with their metrics in git."""
    project = make_project(tmp_path_factory.mktemp("list") / "project", FILES)
    result = dvc(project, "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "as it ran")
    return project


@pytest.fixture
def project(made: Path) -> Path:
    git(made, "reset", "--quiet", "--hard")
    git(made, "clean", "--quiet", "--force", "-d")
    assert (made / "metrics/second/measure.json").is_file()
    return made


def dvc(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here(project, "dvc", *arguments, env={"PYTHONPATH": str(ROOT)})


def experiments(project: Path) -> str:
    return git(project, "for-each-ref", "refs/exps/[0-9a-f][0-9a-f]/")


@pytest.mark.parametrize("where", [[], ["--temp"]], ids=["workspace", "temp"])
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            "[first]",
            "models.yaml of this experiment lacks second, whose report and release `dvc exp apply` would remove",
        ),
        ("[]", "models.yaml lists no model"),
    ],
    ids=["shorter", "empty"],
)
def test_a_list_that_lacks_a_model_makes_no_experiment(project, where, names, says):
    result = dvc(project, "exp", "run", *where, "-S", f"models.yaml:models={names}")
    assert result.returncode != 0
    assert f"error: {says}" in result.stderr
    assert experiments(project) == ""
    # In the workspace, DVC has removed the metrics before any stage ran. What the message says brings them back.
    git(project, "restore", "models.yaml", "metrics")
    assert git(project, "status", "--porcelain", "metrics", "models.yaml", "dvc.lock") == ""


def test_an_empty_list_is_refused_by_dvc_repro_too(project):
    (project / "models.yaml").write_text("models: []\n")
    result = dvc(project, "repro")
    assert result.returncode != 0 and "error: models.yaml lists no model" in result.stderr
    assert git(project, "status", "--porcelain", "metrics") == ""


@pytest.mark.parametrize("key", ["models", "model"])
def test_dvc_itself_refuses_a_list_that_params_yaml_does_not_have(project, key):
    result = dvc(project, "exp", "run", "-S", f"{key}=first")
    assert result.returncode != 0 and f"Could not override '{key}'" in result.stderr
    assert experiments(project) == ""


def test_an_experiment_with_one_model_leaves_the_other_as_it_is(project):
    before = (project / "metrics/second/measure.json").read_bytes()
    result = dvc(project, "exp", "run", "-S", "models/first/params.yaml:++a=1", "measure@first")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Running stage 'measure@first'" in result.stdout and "measure@second" not in result.stdout
    assert (project / "metrics/second/measure.json").read_bytes() == before
    changed = git(project, "status", "--porcelain").splitlines()
    assert {line.split()[-1] for line in changed} <= {"models/first/params.yaml", "dvc.lock", "stages/dvc.lock"}


def test_a_new_model_may_be_tried_before_the_list_is_committed(project):
    for file in ("spec", "params"):
        (project / "models/third").mkdir(exist_ok=True)
        (project / f"models/third/{file}.yaml").write_text("{}\n")
    list_models(project, "third", "first", "second")
    result = dvc(project, "exp", "run", "measure@third")
    assert result.returncode == 0, result.stdout + result.stderr
