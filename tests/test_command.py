"""An error that the user can mend is one message and exit code 1; a bug keeps its traceback."""

import errno

import pytest

from onnx_release.command import run_stage
from onnx_release.errors import DataError


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
