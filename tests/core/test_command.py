"""An error that the user can fix is one message and exit code 1; a bug keeps its traceback."""

import argparse
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from onnx_release.core.command import run_stage, run_tool
from onnx_release.core.errors import DataError, GraphError
from tests.imports import ROOT


def run(monkeypatch, error, *arguments):
    """Run a stage that raises `error`; gives the exit code."""

    def main(model: str) -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["stage", "net", *arguments])
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


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "artifacts: denied: change its owner or its permissions"),
        (errno.EROFS, "artifacts: denied: it is read-only: mount it writable"),
        (errno.ENOTDIR, "artifacts: denied: move away the file or folder of that name"),
        (errno.EEXIST, "artifacts: denied: move away the file or folder of that name"),
        (errno.EISDIR, "artifacts: denied: move away the file or folder of that name"),
        (errno.ENAMETOOLONG, "artifacts: denied: shorten the name"),
        (errno.EIO, "artifacts: denied: the disk or the network drive fails"),
        (errno.EMFILE, "denied: allow more open files"),
        (errno.ENOMEM, "denied: free some memory"),
    ],
)
def test_what_the_system_refuses_is_one_message_with_the_path_and_what_to_do(monkeypatch, capsys, number, message):
    assert run(monkeypatch, OSError(number, "denied", "artifacts")) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_memory_that_runs_out_is_one_message(monkeypatch, capsys):
    assert run(monkeypatch, MemoryError("Unable to allocate 7 TiB")) == 1
    assert capsys.readouterr().err.startswith("error: memory ran out (Unable to allocate 7 TiB): ")


def test_ctrl_c_is_one_line_and_exit_code_130(monkeypatch, capsys):
    assert run(monkeypatch, KeyboardInterrupt()) == 130
    assert run(monkeypatch, KeyboardInterrupt("stopped; the same command goes on")) == 130
    assert capsys.readouterr().err == "stopped\nstopped; the same command goes on\n"


@pytest.mark.parametrize(
    "bug",
    [
        TypeError("a bug"),
        OSError(errno.EACCES, "denied"),  # with no path, nobody knows what to change
        OSError(errno.EBADF, "bad", "artifacts"),
        OSError("could not get source code"),
        FileNotFoundError(errno.ENOENT, "gone", "artifacts"),
    ],
)
def test_a_bug_keeps_its_traceback(monkeypatch, bug):
    monkeypatch.setattr("sys.argv", ["stage", "net"])

    def main(model: str) -> None:
        raise bug

    with pytest.raises(type(bug)):
        run_stage(main)


@pytest.mark.parametrize(
    ("stage", "commands"),
    [
        (
            "pipelines/net/dvc.yaml:prepare",
            "`dvc checkout pipelines/net/dvc.yaml:prepare` and `git restore metrics/net`",
        ),
        (
            "pipelines/net/dvc.yaml:validate@fp32",
            "`dvc checkout pipelines/net/dvc.yaml:validate@fp32` and `git restore metrics/net`",
        ),
        ("stages/dvc.yaml:hardware", "`dvc checkout stages/dvc.yaml:hardware`"),
    ],
)
def test_under_dvc_it_says_how_to_get_the_outputs_back_and_leaves_other_models(monkeypatch, capsys, stage, commands):
    def main(model: str) -> None:
        raise DataError("bad")

    monkeypatch.setattr("sys.argv", ["stage", "net"])
    monkeypatch.setenv("DVC_STAGE", stage)
    with pytest.raises(SystemExit):
        run_stage(main)
    assert capsys.readouterr().err == (
        "error: bad\nnote: DVC removed this stage's earlier outputs before the run; to bring them back, use "
        f"{commands}\n"
    )


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


def test_a_stage_gets_the_model_and_where_there_are_several_the_variant(monkeypatch):
    seen: list[tuple[str, ...]] = []

    def one(model: str) -> None:
        seen.append((model,))

    def each(model: str, variant: str) -> None:
        seen.append((model, variant))

    monkeypatch.setattr("sys.argv", ["stage", "net"])
    run_stage(one)
    monkeypatch.setattr("sys.argv", ["stage", "net", "fp16"])
    run_stage(each, ("fp32", "fp16"))
    assert seen == [("net",), ("net", "fp16")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: model, variant"),
        (["net"], "the following arguments are required: variant"),
        (["net", "fp8"], "argument variant: invalid choice: 'fp8' (choose from"),
        (["net", "fp32", "fp16"], "unrecognized arguments: fp16"),
    ],
)
def test_a_command_line_without_a_model_or_with_an_unknown_variant_runs_nothing(
    monkeypatch, capsys, arguments, message
):
    def main(model: str, variant: str) -> None:
        raise AssertionError("it runs")

    monkeypatch.setattr("sys.argv", ["stage", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run_stage(main, ("fp32", "fp16"))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


STAGE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from onnx_release.core.array_files import writing_arrays
from onnx_release.core.command import run_stage
from onnx_release.core.files import write_text

def full_disk(model):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with writing_arrays(Path("data/evaluation.npz")) as writer:
        writer.add("x", np.zeros(100_000))

def bug(model):
    raise IndexError("a bug")

def read_only(model):
    write_text(Path("read_only/artifacts/a.txt"), "a")

def file_in_the_way(model):
    Path("artifacts").write_text("a file")
    write_text(Path("artifacts/a.txt"), "a")

def long_name(model):
    write_text(Path("a" * 300), "a")

def interrupted(model):
    print("ready", flush=True)
    signal.pause()

def many_lines(model):
    for number in range(100_000):
        print(number)

def one_line(model):
    print("a line that stays in the buffer until the end")

def exits(model):
    print("a line")
    sys.exit(1)

def another_pipe(model):
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b"x")

run_stage(globals()[sys.argv.pop()])
"""


def environment():
    return {**{key: value for key, value in os.environ.items() if key != "DVC_STAGE"}, "PYTHONPATH": str(ROOT)}


def run_process(folder, what, *before):
    """Run a stage as a process of its own, as DVC does; `before` is a command that runs it."""
    command = [*before, sys.executable, "-c", STAGE, "net", what]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_file_that_the_system_refuses_to_write_is_named_and_not_left_in_part(tmp_path):
    done = run_process(tmp_path, "full_disk")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no space left while writing data/evaluation.npz (File too large): free some and run it again\n"
    )
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sockets that keep writes apart and then end")
def test_an_error_is_written_at_once_since_other_processes_may_fail_at_the_same_time(tmp_path):
    """In a container Python often does not buffer, as in the release's own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command: list[str] = [sys.executable, "-u", "-c", STAGE, "net", "read_only"]
    (tmp_path / "read_only").write_text("no folder")
    with ours, theirs:
        subprocess.run(command, cwd=tmp_path, env=environment(), stderr=theirs.fileno(), check=False)
        message = ours.recv(10_000).decode()
    assert message.startswith("error: read_only/artifacts: ") and message.endswith("\n")


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


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("file_in_the_way", "error: artifacts: File exists: move away the file or folder of that name"),
        ("long_name", "File name too long: shorten the name"),
    ],
)
def test_a_path_that_cannot_be_written_is_named(tmp_path, what, message):
    done = run_process(tmp_path, what)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_read_only_file_system_is_named(tmp_path):
    """In a mount of its own, which ends with the process: root may write whatever the permissions say."""
    (tmp_path / "read_only").mkdir()
    mount = 'mount --bind -o ro read_only read_only && exec "$@"'
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if not shutil.which("unshare") or subprocess.run([*private, "true"], cwd=tmp_path, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    done = run_process(tmp_path, "read_only", *private)
    assert (done.returncode, done.stderr) == (
        1,
        "error: read_only/artifacts: Read-only file system: it is read-only: mount it writable, or work in a "
        "copy of the repository elsewhere\n",
    )


def test_ctrl_c_ends_a_process_with_one_line(tmp_path):
    command = [sys.executable, "-c", STAGE, "net", "interrupted"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("", "stopped\n")
    assert process.returncode == 130


def test_ctrl_c_while_libraries_are_imported_leaves_no_traceback(tmp_path):
    """The package of the module takes care of it, before the module's own imports."""
    for package in ("tools", "stages", "benchmarks"):
        assert (ROOT / package / "__init__.py").read_text().endswith("\ndie_of_ctrl_c_until_main()\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/__init__.py").write_text((ROOT / "tools/__init__.py").read_text())
    (tmp_path / "tools/slow.py").write_text("import signal\nprint('importing', flush=True)\nsignal.pause()\n")
    with subprocess.Popen(
        [sys.executable, "-m", "tools.slow"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("", "")
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("what", ["many_lines", "one_line", "exits"])
def test_output_that_nobody_reads_ends_a_tool_quietly(tmp_path, what):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", STAGE, "net", what],
        cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_tool_runs_where_its_output_was_closed_before_it_began(closed):
    shell = f"{sys.executable} -m tools.repro --help {closed}"
    done = subprocess.run(shell, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""


def test_another_pipe_that_breaks_is_a_bug(tmp_path):
    assert run_process(tmp_path, "another_pipe").stderr.endswith("BrokenPipeError: [Errno 32] Broken pipe\n")


def test_everything_that_is_run_ends_as_this_says():
    """But for what other processes are: nncf_recipes.py belongs to another environment."""
    files = [path for name in ("tools", "stages", "benchmarks") for path in sorted((ROOT / name).glob("*.py"))]
    run_by_hand = {path.name: path.read_text().partition('if __name__ == "__main__":')[2] for path in files}
    own = {name for name, text in run_by_hand.items() if text and "run_tool(" not in text and "run_stage(" not in text}
    assert own == {"nncf_recipes.py"}
