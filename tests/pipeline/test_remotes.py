"""Remotes and releases: a bare git repository, a folder as DVC's remote, and somebody with no more than git's address.

The repository is a small one with dvc.yaml's own `artifacts:`: one quick stage writes a file to each of their places,
and metrics as every stage of the pipeline does.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from dvc.repo.artifacts import Artifacts, check_name_format
from ruamel.yaml import YAML

from onnx_release.core.variants import SHIPPABLE
from tests.imports import ROOT
from tests.in_process import run_here
from tests.revisions import commit, git

PIPELINE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
ARTIFACTS = PIPELINE["artifacts"]
STAGE = """
import json, pathlib
for path in PATHS:
    folder = pathlib.Path(path)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_text(path)
pathlib.Path("metrics.json").write_text(json.dumps({"made": len(PATHS)}))
"""


@dataclass(frozen=True)
class Project:
    clone: Path
    git: Path  # the bare repository


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
    paths = [artifact["path"] for artifact in ARTIFACTS.values()]
    (made.clone / "make.py").write_text(f"PATHS = {paths}{STAGE}")
    stage = {
        "cmd": "python make.py",
        "deps": ["make.py"],
        "outs": paths,
        "metrics": [{"metrics.json": {"cache": False}}],
    }
    with (made.clone / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": {"make": stage}, "artifacts": ARTIFACTS}, file)
    dvc(made.clone, "repro")
    pushed = run_here(made.clone, "tools.push", env={"PYTHONPATH": str(ROOT)})
    # For each artifact its file and its folder's list; and the metrics.
    expected = f"{2 * len(paths) + 1} files pushed; 1 runs are on the remote\n"
    assert pushed.stdout == expected, pushed.stdout + pushed.stderr
    commit(made.clone)
    git(made.clone, "remote", "add", "origin", made.git)
    for name in ARTIFACTS:
        git(made.clone, "tag", "--annotate", f"{name}@v1.0.0", "--message=released")
    git(made.clone, "push", "--quiet", "--tags", "origin", "main")
    return made


def test_every_shippable_variant_the_report_and_the_release_can_be_taken():
    assert set(ARTIFACTS) == {*SHIPPABLE, "report", "release"}
    outs = {out for stage in PIPELINE["stages"].values() for out in stage.get("outs", []) if isinstance(out, str)}
    for name, artifact in ARTIFACTS.items():
        check_name_format(name)
        assert artifact["path"] in outs
        assert artifact["type"] == ("report" if name == "report" else "model")
        assert artifact["desc"].endswith(".") and artifact["labels"]


def test_a_release_is_one_command_and_has_the_same_bytes(project, tmp_path):
    dvc(tmp_path, "artifacts", "get", str(project.git), "fp32")
    path = Path(ARTIFACTS["fp32"]["path"])
    got = (tmp_path / path.name / "model.onnx").read_bytes()
    assert got == (project.clone / path / "model.onnx").read_bytes() == str(path).encode()


@pytest.mark.parametrize("name", sorted(ARTIFACTS.keys() - {"fp32"}))
def test_every_artifact_is_released_by_version(project, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    count, out = Artifacts.get(str(project.git), name, version="v1.0.0", out="here")
    assert (count, (tmp_path / out / "model.onnx").read_text()) == (1, ARTIFACTS[name]["path"])


def test_another_machine_restores_a_run_instead_of_repeating_it(project, tmp_path):
    git(tmp_path, "clone", "--quiet", project.git, "other")
    other = tmp_path / "other"
    for name in ("dvc.lock", "metrics.json"):  # as in a branch in which nobody has run it
        (other / name).unlink()
    dvc(other, "pull", "--quiet", "--run-cache", "--allow-missing")
    printed = dvc(other, "repro", "--pull")
    assert "Stage 'make' is cached" in printed and "Running stage" not in printed
    assert json.loads((other / "metrics.json").read_text()) == {"made": len(ARTIFACTS)}
    assert (other / ARTIFACTS["fp32"]["path"] / "model.onnx").is_file()


def test_without_a_remote_one_message_says_what_to_do(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("")
    result = run_here(tmp_path, "tools.push", env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
    assert "no remote specified" in result.stderr and "docs/remotes.md" in result.stderr
