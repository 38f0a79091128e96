"""The pinned packages: wheels for every Python that the Makefile takes, and a pin for everything that they need."""

import os
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.clone import path_with_python
from tests.imports import ROOT
from tests.registry import registry

PYTHONS = ("3.11", "3.12", "3.13")
RUNS = ("requirements.txt", "requirements-serving.txt")
EVERYTHING = (*RUNS, "requirements-test.txt", "requirements-ray.txt", "requirements-dev.txt")
# Those that the files have markers for. The first is what CI runs on; the tests' own packages are for Linux and macOS.
PLATFORMS = {"x86_64-manylinux_2_28": EVERYTHING, "x86_64-pc-windows-msvc": RUNS, "aarch64-apple-darwin": RUNS}
# PyTorch's build for CUDA names the versions of these itself, and its build for CPUs needs none of them.
CUDA = ("nvidia-", "cuda-", "triton==")
# Has no wheel in the registry. It is pure Python, so one made of its source serves every version.
FROM_SOURCE = "antlr4-python3-runtime"


@pytest.fixture(scope="module")
def resolve():
    """Ask uv for what `files` install: `pip install --dry-run` downloads whole wheels, and takes its own Python's
    version for that of the markers (pypa/pip#11664)."""
    settings = registry()

    def run(python: str, platform: str, files: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        options = ["--python", sys.executable, "--python-version", python, "--python-platform", platform]
        wheels = ["--only-binary", ":all:", "--no-binary", FROM_SOURCE]
        shown = ["--quiet", "--no-header", "--no-annotate"]
        environment = {**os.environ, **settings, "PATH": path_with_python(), "MACOSX_DEPLOYMENT_TARGET": "14.0"}
        command = ["uv", "pip", "compile", *options, *wheels, *shown, *(str(ROOT / name) for name in files)]
        # A pinned version keeps its files, so what is in uv's cache is still true; else the registry is asked.
        known = subprocess.run([*command, "--offline"], env=environment, capture_output=True, text=True, check=False)
        if known.returncode == 0:
            return known
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def pins(*files: str) -> set[str]:
    """Every NAME==VERSION in requirements files and in constraints.txt, whatever its markers."""
    found = set()
    for name in (*files, "constraints.txt"):
        for line in (ROOT / name).read_text().splitlines():
            text = re.sub(r"(^|\s)#.*", "", line).strip()
            if text and not text.startswith("-"):
                requirement = Requirement(text)
                found.add(f"{canonicalize_name(requirement.name)}{requirement.specifier}")
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_package_has_a_wheel_and_all_that_it_needs_is_pinned(resolve, python, platform):
    files = PLATFORMS[platform]
    result = resolve(python, platform, files)
    assert result.returncode == 0, result.stderr
    resolved = {line.partition(" ")[0] for line in result.stdout.splitlines()}
    assert len(resolved) > 100
    assert {package for package in resolved - pins(*files) if not package.startswith(CUDA)} == set()


def test_a_version_without_a_wheel_is_noticed(resolve, tmp_path):
    (tmp_path / "old.txt").write_text("numpy==1.26.4\n")  # which is for 3.9 to 3.12
    found = [resolve(python, "x86_64-manylinux_2_28", (str(tmp_path / "old.txt"),)).returncode for python in PYTHONS]
    assert [code == 0 for code in found] == [True, True, False]


def test_the_same_versions_of_python_stand_wherever_they_are_named():
    lowest, highest = (tuple(map(int, PYTHONS[end].split("."))) for end in (0, -1))
    assert f"not {lowest} <= sys.version_info[:2] <= {highest}" in (ROOT / "Makefile").read_text()
    matrix = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/ci.yml").read_text())
    assert matrix is not None and re.findall(r"[\d.]+", matrix[1]) == list(PYTHONS)
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / "README.md").read_text()
    settings = (ROOT / "pyproject.toml").read_text()
    assert f'target-version = "py{PYTHONS[0].replace(".", "")}"' in settings
    assert f'python_version = "{PYTHONS[0]}"' in settings
