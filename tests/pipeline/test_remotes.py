"""Remotes and releases: a bare git repository, a folder as DVC's remote, and somebody with no more than git's address.

The repository is a small one of two models, each with the artifacts that pipelines/NAME/dvc.yaml names. One
quick stage for each writes a file to each of the places under `artifacts:`, and metrics as every stage does.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from dvc.repo.artifacts import Artifacts, check_name_format
from gto.constants import assert_fullname_is_valid
from ruamel.yaml import YAML

from onnx_release.core.paths import ModelFiles
from onnx_release.core.variants import SHIPPABLE
from tests.clone import list_models
from tests.declared_stages import declared_stages
from tests.imports import ROOT
from tests.in_process import run_here
from tests.revisions import commit, git
from tools.new_model import pipeline_text

# The name of one is the beginning of the other's.
MODELS = ("m", "m_v2")
NAMES = (*SHIPPABLE, "report", "release")
STAGE = """
import json, pathlib, sys
*paths, metrics = sys.argv[1:]
for path in map(pathlib.Path, paths):
    path.mkdir(parents=True)
    (path / "model.onnx").write_text(str(path))
metrics = pathlib.Path(metrics)
metrics.parent.mkdir(parents=True, exist_ok=True)
metrics.write_text(json.dumps({"made": len(paths)}))
"""
METRICS = "metrics/${item.model}/made.json"


@dataclass(frozen=True)
class Project:
    clone: Path
    git: Path  # the bare repository


def declared(model):
    """What `dvc artifacts get` takes of the model."""
    return YAML(typ="safe").load(pipeline_text(model))["artifacts"]


def place(model, name):
    """The path of an artifact, from the root."""
    path = Path("pipelines", model, declared(model)[name]["path"])
    return path.resolve().relative_to(Path.cwd()).as_posix()


def dvc(folder, *arguments):
    result = run_here(folder, "dvc", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone that has pushed to both remotes. Its metrics are in git and not in DVC's cache, as the pipeline's are."""
    folder = tmp_path_factory.mktemp("remotes")
    made = Project(folder / "clone", folder / "project.git")
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", made.git)
    git(folder, "init", "--quiet", "--initial-branch=main", made.clone)
    (made.clone / ".dvc").mkdir()
    remote = (
        f"[core]\n    remote = storage\n    analytics = false\n['remote \"storage\"']\n    url = {folder}/storage\n"
    )
    (made.clone / ".dvc/config").write_text(remote)
    (made.clone / ".gitignore").write_text("/.dvc/cache\n/.dvc/tmp\n")
    (made.clone / "make.py").write_text(STAGE)
    paths = [place("${item.model}", name) for name in NAMES]
    stage = {
        "matrix": {"model": "${models}"},
        "cmd": f"python make.py {' '.join(paths)} {METRICS}",
        "deps": ["make.py"],
        "outs": paths,
        "metrics": [{METRICS: {"cache": False}}],
    }
    with (made.clone / "dvc.yaml").open("w") as file:
        YAML().dump({"vars": ["models.yaml"], "stages": {"make": stage}}, file)
    list_models(made.clone, *MODELS)
    for model in MODELS:
        pipeline = made.clone / ModelFiles(model).pipeline
        pipeline.parent.mkdir(parents=True)
        YAML().dump({"artifacts": declared(model)}, pipeline)
    dvc(made.clone, "repro")
    pushed = run_here(made.clone, "tools.push", env={"PYTHONPATH": str(ROOT)})
    # For each artifact its file and its folder's list; and the metrics, which are the same for all models.
    expected = f"{2 * len(paths) * len(MODELS) + 1} files pushed; {len(MODELS)} runs are on the remote\n"
    assert pushed.stdout == expected, pushed.stdout + pushed.stderr
    commit(made.clone)
    git(made.clone, "remote", "add", "origin", made.git)
    for model in MODELS:
        for name in NAMES:
            git(made.clone, "tag", "--annotate", f"pipelines/{model}={name}@v1.0.0", "--message=released")
    git(made.clone, "push", "--quiet", "--tags", "origin", "main")
    return made


def test_every_shippable_variant_the_report_and_the_release_can_be_taken():
    artifacts = declared("m")
    assert set(artifacts) == set(NAMES)
    outs = {out for stage in declared_stages("m").values() for out in stage.get("outs", []) if isinstance(out, str)}
    for name, artifact in artifacts.items():
        check_name_format(name)
        assert_fullname_is_valid(f"pipelines/m:{name}")
        assert place("m", name) in outs
        assert artifact["type"] == ("report" if name == "report" else "model")
        assert artifact["desc"].endswith(".") and artifact["labels"]


@pytest.mark.parametrize("model", MODELS)
def test_a_release_is_one_command_and_has_the_same_bytes(project, tmp_path, model):
    dvc(tmp_path, "artifacts", "get", str(project.git), f"pipelines/{model}:release")
    path = project.clone / "artifacts" / model / "release/model.onnx"
    got = (tmp_path / "release/model.onnx").read_bytes()
    assert got == path.read_bytes() == f"artifacts/{model}/release".encode()


@pytest.mark.parametrize("name", sorted({*NAMES} - {"release"}))
def test_every_artifact_is_released_by_version(project, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    count, out = Artifacts.get(str(project.git), f"pipelines/m_v2:{name}", version="v1.0.0", out="here")
    assert (count, (tmp_path / out / "model.onnx").read_text()) == (1, f"artifacts/m_v2/{name}")


def test_each_model_has_its_own_versions(project, tmp_path):
    """With the commands of docs/remotes.md, in a clone."""
    git(tmp_path, "clone", "--quiet", project.git, "other")
    other = tmp_path / "other"
    for key in ("name", "email"):
        git(other, "config", f"user.{key}", "test")
    commit(other)  # the one before has versions
    registered = run_here(other, "gto.cli", "register", "pipelines/m_v2:release", "--version", "v2.0.0")
    assert registered.returncode == 0, registered.stdout + registered.stderr
    assert "pipelines/m_v2=release@v2.0.0" in git(other, "tag").splitlines()
    shown = run_here(other, "gto.cli", "show").stdout
    found = dict(line.split()[1:4:2] for line in shown.splitlines() if ":release" in line)
    assert found == {"pipelines/m:release": "v1.0.0", "pipelines/m_v2:release": "v2.0.0"}


def test_another_machine_restores_a_run_instead_of_repeating_it(project, tmp_path):
    git(tmp_path, "clone", "--quiet", project.git, "other")
    other = tmp_path / "other"
    for name in ("dvc.lock", "metrics/m/made.json"):  # as in a branch in which nobody has run it
        (other / name).unlink()
    dvc(other, "pull", "--quiet", "--run-cache", "--allow-missing")
    printed = dvc(other, "repro", "--pull")
    assert "Stage 'make@m' is cached" in printed and "Running stage" not in printed
    assert json.loads((other / "metrics/m/made.json").read_text()) == {"made": len(NAMES)}
    assert (other / "artifacts/m/fp32/model.onnx").is_file()


def test_one_model_s_outputs_can_be_pulled_alone(project, tmp_path):
    git(tmp_path, "clone", "--quiet", project.git, "other")
    dvc(tmp_path / "other", "pull", "--quiet", "make@m")
    pulled = [path.relative_to(tmp_path / "other") for path in tmp_path.glob("other/artifacts/**/model.onnx")]
    assert sorted(path.parts[1:3] for path in pulled) == [("m", name) for name in sorted(NAMES)]


def test_without_a_remote_one_message_says_what_to_do(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("")
    result = run_here(tmp_path, "tools.push", env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
    assert "no remote specified" in result.stderr and "docs/remotes.md" in result.stderr
