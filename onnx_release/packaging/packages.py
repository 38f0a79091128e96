"""Find the packages that a release needs: those that its files import, and their dependencies, in pinned versions."""

import functools
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from onnx_release.core.errors import SpecError
from onnx_release.core.imports import outside_names
from onnx_release.runtime.providers import CPU

REQUIREMENTS, CONSTRAINTS = Path("requirements.txt"), Path("constraints.txt")
# This file is complete in itself, since the pipeline may run without the server's packages.
SERVING = Path("requirements-serving.txt")
# The builds of ONNX Runtime, all of which are imported by one name.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
# The extras that install CUDA and cuDNN, which in the pipeline come with PyTorch.
GPU_EXTRAS = ("cuda", "cudnn")


def pinned_packages(files: Iterable[str], provider: str) -> dict[str, str]:
    """Return the version of every package that `files` need, by its name, for a model that `provider` runs.

    `files` are relative to the repository root. Raises SpecError for an import of PyTorch, and for a package that none
    of the three files pins.
    """
    pins = read_pins(REQUIREMENTS) | read_pins(CONSTRAINTS) | read_pins(SERVING)
    needed = set(read_pins(SERVING))
    for file in sorted(files):
        needed |= {imported_package(name, file, pins) for name in outside_names(file)}
    needed = with_dependencies(needed, pins) - set(RUNTIMES)
    found = {name: pins[name] for name in sorted(needed)}
    version = next(pins[name] for name in RUNTIMES if name in pins)
    found["onnxruntime" if provider == CPU else f"onnxruntime-gpu[{','.join(GPU_EXTRAS)}]"] = version
    return dict(sorted(found.items()))


def read_pins(path: Path) -> dict[str, str]:
    """Return the versions that a requirements file pins for this system, by the package's canonical name."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text and not text.startswith("-"):
            requirement = Requirement(text)
            versions = [part.version for part in requirement.specifier if part.operator == "=="]
            if versions and (requirement.marker is None or requirement.marker.evaluate()):
                found[canonicalize_name(requirement.name)] = versions[0]
    return found


def imported_package(name: str, file: str, pins: Mapping[str, str]) -> str:
    """Return the canonical name of the pinned package that a dotted name is imported from."""
    parts = name.split(".")
    if parts[0] == "torch":
        raise SpecError(f"{file} imports {name}, and a release runs without PyTorch: write it in numpy")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    for candidate in (*prefixes, *sorted(packages_by_import().get(parts[0], []))):
        if canonicalize_name(candidate) in pins:
            return canonicalize_name(candidate)
    raise SpecError(
        f"{file} imports {parts[0]}, which the release would lack: pin its package in {REQUIREMENTS}, and what that "
        f"needs in {CONSTRAINTS}"
    )


def with_dependencies(names: Iterable[str], pins: Mapping[str, str]) -> set[str]:
    """Return `names` and all their dependencies on this system, read from the installed packages.

    A package that is not installed counts as without dependencies: it is one of the server's, and
    requirements-serving.txt is complete.
    """
    waiting = [(name, "") for name in sorted(names)]
    found: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        if name not in pins:
            raise SpecError(f"the release needs {name}, which is pinned nowhere: add it to {CONSTRAINTS}")
        found.add((name, extra))
        for requirement in dependencies(name, extra):
            waiting += [(canonicalize_name(requirement.name), needed) for needed in ("", *requirement.extras)]
    return {name for name, _ in found}


def dependencies(name: str, extra: str) -> list[Requirement]:
    """Return the dependencies of an installed package on this system, for one of its extras, or without one ("")."""
    builds = RUNTIMES if name in RUNTIMES else (name,)
    for build in builds:
        try:
            declared = [Requirement(text) for text in importlib.metadata.requires(build) or []]
        except importlib.metadata.PackageNotFoundError:
            continue
        return [needed for needed in declared if needed.marker is None or needed.marker.evaluate({"extra": extra})]
    return []


@functools.cache
def packages_by_import() -> Mapping[str, list[str]]:
    """Return the installed packages that provide each top-level name."""
    return importlib.metadata.packages_distributions()
