"""A release that cannot be read ends in one message and exit code 1."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

from tests.in_process import run_here
from tests.served import PATIENCE


@pytest.fixture
def folder(lengths: Path, tmp_path: Path) -> Path:
    return shutil.copytree(lengths, tmp_path / "release")


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def refuse_to_read(name: str) -> Callable[[Path], None]:
    """A file that opens and whose first byte the system does not give, to any user."""

    def replace(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("/proc/self/mem")

    return replace


def without_timings(folder: Path) -> None:
    path = folder / "MANIFEST.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": {"benchmark": None}}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write("MANIFEST.json", "[" * 100_000), "nested too deeply"),
        (without_timings, "MANIFEST.json has no metrics.benchmark.provider"),
    ],
)
def test_it_is_one_message_and_exit_code_1(folder, damage, message):
    damage(folder)
    is_one_error(run_here(folder, "serving", "--port", "0"), message)


@pytest.mark.parametrize(
    ("damage", "workers", "message"),
    [
        (refuse_to_read("runtime.json"), 2, "a file of the release cannot be read (Input/output error)"),
        (write("serving/app.py", "import a_package_that_is_missing"), 1, "`pip install -r requirements.txt`"),
    ],
)
def test_so_it_is_with_the_code_of_the_release_and_with_workers(folder, damage, workers, message):
    damage(folder)
    command = [sys.executable, "-m", "serving", "--port", "0", "--workers", str(workers)]
    is_one_error(run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=PATIENCE), message)


def is_one_error(ended: CompletedProcess[str], message: str) -> None:
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = set(ended.stderr.splitlines())  # each worker may say it
    assert line.startswith("error: ")
    assert message in ended.stderr
