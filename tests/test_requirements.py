"""The pinned packages: wheels for every Python that the Makefile takes, and a pin for everything that is needed."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.imports import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
FILES = sorted(ROOT.glob("requirements*.txt"))
# Come with PyTorch's build for CUDA, which names their versions itself, and are on no machine with its build for CPUs.
CUDA = ("nvidia", "cuda", "triton")


def pins(path) -> dict[str, Requirement]:
    """What a requirements file and those that it includes pin for Linux, by canonical name."""
    found = {}
    for line in path.read_text().splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text.startswith("-"):
            found |= pins(ROOT / text.split()[1])
        elif text:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux"}):
                found[canonicalize_name(requirement.name)] = requirement
    return found


PINS = {name: requirement for path in FILES for name, requirement in pins(path).items()}


def serves_every_python(name: str) -> bool:
    """Whether the installed package is a wheel for any Python 3, or for its stable ABI, that takes all of PYTHONS.

    antlr4-python3-runtime, which has no wheel in the registry, counts by the wheel that pip made of it here.
    """
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return False
    tags = re.findall(r"^Tag: (\w+)-(\w+)-", found.read_text("WHEEL") or "", re.MULTILINE)
    takes = SpecifierSet(found.metadata.get("Requires-Python") or "")
    any_python = any(python.startswith("py") or abi == "abi3" for python, abi in tags)
    return any_python and all(python in takes for python in PYTHONS)


@pytest.mark.parametrize("python", [version for version in PYTHONS if version != "{}.{}".format(*sys.version_info)])
def test_what_is_built_for_one_python_has_a_wheel_for_the_others(python, tmp_path):
    built = [str(requirement) for name, requirement in PINS.items() if not serves_every_python(name)]
    assert len(built) > 20 and any(text.startswith("numpy==") for text in built)
    # Markers would be evaluated for the Python that runs pip (pypa/pip#11664): no pin may need one.
    assert [text for text in built if "python" in text.partition(";")[2]] == []
    (tmp_path / "built.txt").write_text("\n".join(built))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    options = ["--python-version", python, "--only-binary=:all:", "--target", str(tmp_path / "target")]
    result = subprocess.run(
        [*command, *options, "--requirement", str(tmp_path / "built.txt")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_everything_that_is_needed_on_any_python_is_pinned(path):
    pinned = pins(path)
    asked = [(name, extra) for name, requirement in pinned.items() for extra in ("", *requirement.extras)]
    missing = set()
    for name, extra in asked:
        try:
            needed = map(Requirement, distribution(name).requires or [])
        except PackageNotFoundError:
            continue  # of the linters, which are installed for `make lint` alone
        for requirement in needed:
            environments = [
                {"python_version": version, "python_full_version": f"{version}.0", "extra": extra}
                for version in PYTHONS
            ]
            marker = requirement.marker
            if marker is None or any(marker.evaluate(environment) for environment in environments):
                missing |= {(name, canonicalize_name(requirement.name))} - {(name, known) for known in pinned}
    assert {(name, needed) for name, needed in missing if not needed.startswith(CUDA)} == set()


def test_the_same_versions_of_python_stand_wherever_they_are_named():
    lowest, highest = (tuple(map(int, PYTHONS[end].split("."))) for end in (0, -1))
    assert f"not {lowest} <= sys.version_info[:2] <= {highest}" in (ROOT / "Makefile").read_text()
    matrix = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/ci.yml").read_text())
    assert matrix is not None and re.findall(r"[\d.]+", matrix[1]) == list(PYTHONS)
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / "README.md").read_text()
    settings = (ROOT / "pyproject.toml").read_text()
    assert f'target-version = "py{PYTHONS[0].replace(".", "")}"' in settings
    assert f'python_version = "{PYTHONS[0]}"' in settings
