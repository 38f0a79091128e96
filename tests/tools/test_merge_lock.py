"""Real merges with git of branches that ran models: every dvc.lock, the list and the metrics."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from onnx_release.core.files import write_text
from onnx_release.core.paths import PIPELINES, ModelFiles
from tests.imports import ROOT
from tests.revisions import commit, git

HEADER = "schema: '2.0'\nstages:\n"


def entry(stage: str, result: str) -> str:
    """Lines of dvc.lock as DVC writes them."""
    return f"  {stage}:\n    cmd: python -m stages.x\n    outs:\n    - path: {stage}.txt\n      md5: {result}\n"


def write(folder: Path, machine: str = "a", **results: str) -> None:
    """The files that a run of these models changes, on a machine."""
    (folder / "dvc.lock").write_text(HEADER + "".join(entry(f"package@{name}", made) for name, made in results.items()))
    shutil.rmtree(folder / PIPELINES, ignore_errors=True)
    for model, result in results.items():
        write_text(folder / ModelFiles(model).lock, HEADER + entry("export", result))
    (folder / "stages").mkdir(exist_ok=True)
    (folder / "stages/dvc.lock").write_text(HEADER + entry("hardware", machine))
    (folder / "models.yaml").write_text("models:\n" + "".join(f"- {model}\n" for model in results))
    for model, result in results.items():
        (folder / f"metrics/{model}").mkdir(parents=True, exist_ok=True)
        (folder / f"metrics/{model}/export.json").write_text(f'{{"size_mb": "{result}"}}\n')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository in which m and m_v2 have run, with git told of the driver as the Makefile does."""
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(
        tmp_path,
        "config",
        "merge.dvc-lock.driver",
        f"PYTHONPATH={ROOT} {sys.executable} -m tools.merge_lock %O %A %B %P",
    )
    write(tmp_path, m="1", m_v2="1")
    commit(tmp_path, "both models")
    return tmp_path


def merge(folder: Path, one: dict[str, str], two: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Merge a branch with the results `two` into one with the results `one`."""
    git(folder, "checkout", "--quiet", "-b", "two")
    write(folder, **two)
    commit(folder, "two")
    git(folder, "checkout", "--quiet", "-b", "one", "main")
    write(folder, **one)
    commit(folder, "one")
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "merge", "--no-edit", "two"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def results(folder: Path) -> dict[str, str]:
    """The result of each stage by the merged locks, which must be valid YAML."""
    locks = {path.parent.name: path for path in folder.glob(f"{PIPELINES}/*/dvc.lock")}
    stages = YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]
    for model, path in locks.items():
        own = YAML(typ="safe").load(path.read_text())["stages"]
        stages |= {f"{name}@{model}": stage for name, stage in own.items()}
    return {name: str(stage["outs"][0]["md5"]) for name, stage in stages.items()}


def test_two_people_on_two_models_with_another_machine_each_have_no_conflict(folder):
    found = merge(folder, {"m": "2", "m_v2": "1", "machine": "b"}, {"m": "1", "m_v2": "2", "machine": "c"})
    assert found.returncode == 0, found.stdout + found.stderr
    assert results(folder) == {"export@m": "2", "package@m": "2", "export@m_v2": "2", "package@m_v2": "2"}
    assert (folder / "metrics/m/export.json").read_text() == '{"size_mb": "2"}\n'
    assert (folder / "metrics/m_v2/export.json").read_text() == '{"size_mb": "2"}\n'
    assert "md5: b" in (folder / "stages/dvc.lock").read_text()  # this branch's, and it runs every time anyway


def test_two_new_models_have_no_conflict(folder):
    found = merge(folder, {"m": "1", "m_v2": "1", "ours": "1"}, {"m": "1", "m_v2": "1", "theirs": "2"})
    assert found.returncode == 0, found.stdout + found.stderr
    merged = results(folder)
    assert merged["package@ours"] == "1" and merged["package@theirs"] == "2"
    assert len(merged) == 8
    listed = YAML(typ="safe").load((folder / "models.yaml").read_text())["models"]
    assert sorted(listed) == ["m", "m_v2", "ours", "theirs"]


def test_a_model_that_one_branch_removes_stays_removed(folder):
    found = merge(folder, {"m": "1"}, {"m": "2", "m_v2": "1"})
    assert found.returncode == 0, found.stdout + found.stderr
    assert results(folder) == {"export@m": "2", "package@m": "2"}


def test_two_people_on_one_model_meet_one_message_whose_commands_end_the_merge(folder):
    found = merge(folder, {"m": "2", "m_v2": "1"}, {"m": "3", "m_v2": "3"})
    assert found.returncode == 1
    *_, said = found.stderr.split("error: ")
    said = "error: " + said
    assert found.stderr.count(said.strip()) == 2  # once for each lock
    assert said.startswith("error: both branches ran m, and results cannot be merged.")
    assert "make repro MODEL=m\n" in said + "\n" and "MODEL=m_v2" not in said
    assert results(folder) == {"export@m": "2", "package@m": "2", "export@m_v2": "3", "package@m_v2": "3"}
    commands = [line.strip() for line in said.splitlines() if line.startswith("  git ")]
    assert len(commands) == 2
    identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for line in commands:
        command = line.replace("git commit", "git commit --no-edit --quiet")
        subprocess.run(command, shell=True, cwd=folder, check=True, env={"PATH": "/usr/bin:/bin", **identity})
    assert git(folder, "status", "--porcelain") == ""
    assert (folder / "metrics/m/export.json").read_text() == '{"size_mb": "2"}\n'
    assert (folder / "metrics/m_v2/export.json").read_text() == '{"size_mb": "3"}\n'
