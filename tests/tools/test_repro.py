"""`make repro` where it cannot start, and where it is interrupted: in a small repository with one stage."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.clone import path_with_python, set_param
from tests.imports import ROOT
from tests.in_process import run_here

ENVIRONMENT = {
    **os.environ,
    "PATH": path_with_python(),
    "PYTHONPATH": str(ROOT),
}
# With the file `wait`, it stops before it has written anything.
STAGE = """
import pathlib, signal
from onnx_release.core.command import run_stage

def main():
    if pathlib.Path("wait").exists():
        print("waiting", flush=True)
        signal.pause()
    pathlib.Path("artifacts").mkdir(exist_ok=True)
    pathlib.Path("artifacts/made.txt").write_text("made")
    pathlib.Path("metrics").mkdir(exist_ok=True)
    pathlib.Path("metrics/made.json").write_text("{}")

run_stage(main)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the repository, as an archive has them: without git."""
    folder = tmp_path / "project"
    for name in ("params.yaml", "models/digits_cnn/spec.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    set_param(folder, "model", "digits_cnn")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (folder / "make.py").write_text(STAGE)
    stage = {
        "cmd": "python make.py",
        "deps": ["make.py"],
        "params": ["calibrate"],
        "outs": ["artifacts/made.txt"],
        "metrics": [{"metrics/made.json": {"cache": False}}],
    }
    with (folder / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": {"make": stage}}, file)
    return folder


def repro(folder):
    return run_here(folder, "tools.repro", env={"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("fix", ["git init", "dvc config --local core.no_scm true"])
def test_without_git_one_message_has_two_fixes_that_work(folder, fix):
    result = repro(folder)
    assert result.returncode == 1
    assert result.stderr.startswith("error: there is no git repository here, and DVC needs one.")
    assert f"\n  {fix} " in result.stderr
    subprocess.run(fix.split(), cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    result = repro(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (folder / "artifacts/made.txt").read_text() == "made"


def test_a_root_that_cannot_be_written_to_is_named_before_dvc_starts(folder):
    """A file where DVC has a folder, since root may write whatever the permissions say."""
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / ".dvc/tmp").write_text("in the way")
    result = repro(folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: .dvc/tmp: File exists: move away the file or folder of that name")
    assert result.stderr.count("\n") == 1


def test_without_its_hidden_files_a_copy_is_told_what_it_lacks(folder):
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    shutil.rmtree(folder / ".dvc")
    result = repro(folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: there is no folder .dvc here: ")


def test_a_model_that_is_not_there_is_named_with_those_that_are(folder):
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    set_param(folder, "model", "digits_cn")
    result = repro(folder)
    assert (result.returncode, result.stderr) == (
        1,
        "error: there is no model called digits_cn: models/ has digits_cnn\n",
    )


def test_ctrl_c_ends_all_processes_without_a_traceback_and_the_outputs_are_back(folder):
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    assert repro(folder).returncode == 0
    (folder / "wait").touch()
    set_param(folder, "calibrate.bins", "1024")
    command = [sys.executable, "-m", "tools.repro"]
    with subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line == "waiting\n":
                assert not (folder / "artifacts/made.txt").exists()  # DVC has removed it
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
        printed = process.communicate()[0]
    assert process.returncode == 130
    assert "Traceback" not in printed and printed.endswith("before this run.\nstopped\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # none of its processes is left
    assert (folder / "artifacts/made.txt").read_text() == "made"
    assert (folder / "metrics/made.json").is_file()
