"""What a repository must be for a sweep, and that one sweep at a time runs in it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from onnx_release.core.errors import SweepError
from onnx_release.sweep.repository import (
    CLONE,
    check_repository,
    clone_processes,
    git,
    only_sweep,
    open_clone,
    stop_processes,
)
from tests.imports import ROOT
from tests.sweep_project import make_project

GRID = Path("sweeps/grid.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one stage, in which the test runs; git knows nobody but through it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    pipeline = "stages: {copy: {cmd: cp code/in.txt out.txt, deps: [code/in.txt], outs: [out.txt]}}\n"
    folder = make_project(tmp_path / "project", {"dvc.yaml": pipeline, "code/in.txt": "1\n", str(GRID): "grid: {}\n"})
    monkeypatch.chdir(folder)
    return folder


def test_a_clean_commit_is_where_a_sweep_starts(project):
    assert check_repository(GRID) == git("rev-parse", "HEAD")


def test_the_grid_and_what_no_stage_reads_may_differ(project):
    GRID.write_text("grid: {a: [2]}\n")
    Path("notes.txt").write_text("")
    Path("docs").mkdir()
    Path("docs/new.md").write_text("")
    assert check_repository(GRID) == git("rev-parse", "HEAD")


def remove_name() -> None:
    git("config", "--unset", "user.name")


def change_parameters() -> None:
    Path("params.yaml").write_text("a: 2\n")


def add_code() -> None:
    Path("code/new.py").write_text("")


def stage_a_change() -> None:
    Path("code/in.txt").write_text("2\n")
    git("add", "code/in.txt")


def remove_lock() -> None:
    git("rm", "--quiet", "dvc.lock")
    git("commit", "--quiet", "--message", "no lock")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (remove_name, "git does not know user.name"),
        (change_parameters, "commit or stash params.yaml"),
        (stage_a_change, "commit or stash code/in.txt"),
        (add_code, "commit or stash code/new.py"),
        (remove_lock, "HEAD has no dvc.lock"),
    ],
)
def test_what_is_in_the_way_is_named(project, change, says):
    change()
    with pytest.raises(SweepError, match=says):
        check_repository(GRID)


def test_a_shallow_clone_is_refused(project, tmp_path, monkeypatch):
    git("commit", "--quiet", "--allow-empty", "--message", "another")
    git("clone", "--quiet", "--depth", "1", f"file://{project}", str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    with pytest.raises(SweepError, match="git fetch --unshallow"):
        check_repository(GRID)


def test_a_folder_without_a_repository_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SweepError, match="in the repository's root"):
        check_repository(GRID)


def test_two_sweeps_at_once_are_refused_and_a_killed_one_is_not_in_the_way(project):
    code = "from onnx_release.sweep.repository import only_sweep\nwith only_sweep():\n    print(1, flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=-1, stdout=-1, env={"PYTHONPATH": str(ROOT)}) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(SweepError, match="another sweep runs"), only_sweep():
            pass
        other.send_signal(signal.SIGKILL)
    with only_sweep():
        pass


def test_a_clone_has_the_cache_and_what_an_earlier_one_had_done(project):
    base = git("rev-parse", "HEAD")
    open_clone(base)
    done = f"refs/exps/{base[:2]}/{base[2:]}/done"
    git("update-ref", done, "HEAD", cwd=CLONE)
    git("update-ref", "refs/exps/celery/stash", "HEAD", cwd=CLONE)
    open_clone(base)
    assert git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=CLONE) == done
    with Repo(CLONE) as clone, Repo() as own:
        assert clone.cache.local_cache_dir == own.cache.local_cache_dir
    assert git("status", "--porcelain") == ""


def test_what_runs_in_the_clone_is_stopped_and_nothing_else(project):
    CLONE.mkdir(parents=True)
    with subprocess.Popen(["cat"], stdin=-1) as outside, subprocess.Popen(["cat"], stdin=-1, cwd=CLONE) as inside:
        assert [process.pid for process in clone_processes()] == [inside.pid]
        stop_processes()
        assert clone_processes() == []
        assert outside.poll() is None
        outside.kill()
