"""Which Python the Makefile takes, what it says where there is none that it can, and how it hands on MODEL."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.imports import ROOT

NAMES = ("python3", "python3.13", "python3.12", "python3.11")


@pytest.fixture
def make(tmp_path):
    """Run `make .venv/installed` where each of NAMES is a Python of some version; what they are asked is in `asked`."""
    (tmp_path / "bin").mkdir()
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)

    def run(versions, *arguments):
        for name in NAMES:
            version = versions.get(name, "3.10.4")
            program = f"import sys; sys.version_info = ({version.replace('.', ', ')}); "
            script = [
                "#!/bin/sh",
                f'case "$1" in --version) echo "Python {version}"; exit;;',
                f"""-c) exec {sys.executable} -c "{program}$2";; esac""",
                f'echo "{name} $*" >> {tmp_path}/asked; exit 7',
            ]
            (tmp_path / "bin" / name).write_text("\n".join(script) + "\n")
            (tmp_path / "bin" / name).chmod(0o755)
        command = ["make", "--directory", str(tmp_path), ".venv/installed", *arguments]
        environment = {"PATH": os.pathsep.join([str(tmp_path / "bin"), "/usr/bin", "/bin"])}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        asked = (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []
        return result, asked

    return run


@pytest.mark.parametrize(
    ("versions", "taken"),
    [
        ({"python3": "3.11.7", "python3.13": "3.13.0"}, "python3"),
        ({"python3": "3.14.0", "python3.12": "3.12.1", "python3.11": "3.11.7"}, "python3.12"),
        ({"python3.13": "3.13.0"}, "python3.13"),
    ],
)
def test_the_first_python_that_will_do_is_taken(make, versions, taken):
    _, asked = make(versions)
    assert asked == [f"{taken} -m venv --clear .venv"]


def test_the_python_that_is_asked_for_is_taken(make):
    _, asked = make({"python3": "3.11.7", "python3.12": "3.12.1"}, "PYTHON=python3.12")
    assert asked == ["python3.12 -m venv --clear .venv"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), "python3 is Python 3.10.4"),
        (("PYTHON=python3.12",), "python3.12 is Python 3.10.4"),
        (("PYTHON=python3.9",), "python3.9 is "),
    ],
)
def test_without_one_that_will_do_there_is_one_message(make, arguments, found):
    result, asked = make({"python3.13": "3.13.0"} if arguments else {}, *arguments)
    assert result.returncode == 2 and asked == []
    message, end = result.stderr.splitlines()
    assert message.startswith(f"error: Python 3.11, 3.12 or 3.13 is needed, and {found}")
    assert message.endswith(": make PYTHON=/path/to/python3.13")
    assert end.startswith("make: ***")


def test_an_environment_that_is_there_keeps_its_python(make, tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(tmp_path / "bin/python3.12")
    _, asked = make({"python3": "3.13.0", "python3.12": "3.12.1"})
    assert asked == ["python3.12 -m venv .venv"]


@pytest.mark.parametrize(
    ("target", "tools"), [("repro", ["repro", "gate"]), ("serve", ["serve"]), ("gpu-check", ["gpu_check"])]
)
def test_a_model_is_handed_to_every_tool_and_without_one_the_tool_takes_the_first(tmp_path, target, tools):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "constraints.txt", "requirements-serving.txt"):
        (tmp_path / name).touch()
    for arguments, options in ([[], ""], [["MODEL=minilm"], " --model minilm"]):
        command = ["make", "--dry-run", "--directory", str(tmp_path), target, *arguments]
        environment = {"PATH": os.environ["PATH"]}  # MODEL may be in it
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        run = [line.strip() for line in printed.splitlines() if line.strip().startswith("python -m tools.")]
        assert run == [f"python -m tools.{tool}{options}" for tool in tools]


def test_the_set_up_tells_git_how_to_merge_the_lock_and_does_not_need_git(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "constraints.txt"):
        (tmp_path / name).touch()
    command = ["make", "--dry-run", "--directory", str(tmp_path), ".venv/installed"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    driver = ".venv/bin/python -m tools.merge_lock %O %A %B %P"
    assert f'git config merge.dvc-lock.driver "{driver}" || true' in printed.splitlines()


def test_help_names_the_targets_that_take_a_model():
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    told = {line.partition(":")[0] for line in printed.splitlines() if "MODEL=NAME, or the first" in line}
    assert told == {"repro", "serve", "gpu-check"}
