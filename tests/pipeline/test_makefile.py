"""Which Python the Makefile takes, and what it says where there is none that it can."""

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
