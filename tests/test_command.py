"""An error that the user can mend is one message and exit code 1; a bug keeps its traceback."""

import argparse
import errno
import os
import subprocess
import sys
import tempfile

import pytest

from onnx_release.command import run_stage, run_tool
from onnx_release.errors import DataError, GraphError
from tests.imports import ROOT


def run(monkeypatch, error, *arguments):
    """Run a stage that raises `error`; gives the exit code."""

    def main() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["stage", *arguments])
    monkeypatch.delenv("DVC_STAGE", raising=False)
    with pytest.raises(SystemExit) as stopped:
        run_stage(main)
    return stopped.value.code


def test_one_message_and_exit_code_1(monkeypatch, capsys):
    assert run(monkeypatch, DataError("cat.jpg cannot be read: replace it")) == 1
    assert capsys.readouterr().err == "error: cat.jpg cannot be read: replace it\n"


def test_debug_shows_the_traceback(monkeypatch, capsys):
    assert run(monkeypatch, DataError("cat.jpg cannot be read"), "--debug") == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.endswith("error: cat.jpg cannot be read\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_says_where_and_what_to_do(monkeypatch, capsys, number):
    assert run(monkeypatch, OSError(number, "no room", "artifacts/export")) == 1
    assert capsys.readouterr().err == (
        "error: no space left while writing artifacts/export (no room): free some and run it again\n"
    )


@pytest.mark.parametrize("bug", [TypeError("a bug"), OSError(errno.EACCES, "denied")])
def test_a_bug_keeps_its_traceback(monkeypatch, bug):
    monkeypatch.setattr("sys.argv", ["stage"])

    def main() -> None:
        raise bug

    with pytest.raises(type(bug)):
        run_stage(main)


def test_under_dvc_it_says_how_to_get_the_outputs_back(monkeypatch, capsys):
    def main() -> None:
        raise DataError("bad")

    monkeypatch.setattr("sys.argv", ["stage"])
    monkeypatch.setenv("DVC_STAGE", "prepare")
    with pytest.raises(SystemExit):
        run_stage(main)
    assert "dvc checkout" in capsys.readouterr().err


def test_a_full_disk_without_a_name_is_still_one_message(monkeypatch, capsys):
    assert run(monkeypatch, OSError(errno.ENOSPC, "no room")) == 1
    assert capsys.readouterr().err == "error: no space left (no room): free some and run it again\n"


def test_debug_shows_the_traceback_of_a_full_disk(monkeypatch, capsys):
    assert run(monkeypatch, OSError(errno.ENOSPC, "no room", "a.npz"), "--debug") == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.endswith("error: no space left while writing a.npz (no room): free some and run it again\n")


def test_a_tool_gets_its_arguments_and_ends_quietly(monkeypatch, capsys):
    seen: list[argparse.Namespace] = []
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    monkeypatch.setattr("sys.argv", ["tool", "fp32"])
    run_tool(seen.append, parser)
    assert [(arguments.variant, arguments.debug) for arguments in seen] == [("fp32", False)]
    assert capsys.readouterr() == ("", "")


STAGE = """
import sys
from pathlib import Path
import numpy as np
from onnx_release.array_files import writing_arrays
from onnx_release.command import run_stage

def full_disk():
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with writing_arrays(Path("data/evaluation.npz")) as writer:
        writer.add("x", np.zeros(100_000))

def bug():
    raise IndexError("a bug")

run_stage({"full_disk": full_disk, "bug": bug}[sys.argv.pop()])
"""


def run_process(folder, what):
    """Run a stage as a process of its own, as DVC does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DVC_STAGE", None)
    command = [sys.executable, "-c", STAGE, what]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_file_that_the_system_refuses_to_write_is_named_and_not_left_in_part(tmp_path):
    done = run_process(tmp_path, "full_disk")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no space left while writing data/evaluation.npz (File too large): free some and run it again\n"
    )
    assert not list((tmp_path / "data").iterdir())


def test_the_traceback_of_a_bug_reaches_standard_error(tmp_path):
    done = run_process(tmp_path, "bug")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("IndexError: a bug\n")


def blamed(cause):
    error = GraphError("onnxslim fails on model.onnx")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_full_disk_is_said_whatever_was_blamed_for_it(monkeypatch, capsys, debug):
    assert run(monkeypatch, blamed(blamed(OSError(errno.ENOSPC, "no room", "/tmp/weights"))), *debug) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "error: no space left while writing /tmp/weights (no room): free some and run it again"


def test_no_room_in_any_folder_for_temporary_files_is_one_message(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.gettempdir()
    assert run(monkeypatch, caught.value) == 1
    assert capsys.readouterr().err.startswith("error: no folder for temporary files can be written (")


def test_another_cause_is_left_as_it_is(monkeypatch, capsys):
    assert run(monkeypatch, blamed(OSError(errno.EIO, "input/output"))) == 1
    assert capsys.readouterr().err == "error: onnxslim fails on model.onnx\n"


def test_a_copy_that_fills_the_disk_is_named_by_where_it_goes(monkeypatch, capsys):
    error = OSError(errno.ENOSPC, "no room", "models/net/weights.pth", None, "data/raw/net.partial/weights.pth")
    assert run(monkeypatch, error) == 1
    assert "while writing data/raw/net.partial/weights.pth" in capsys.readouterr().err
