"""A working copy of the repository in another folder, for tests that run the pipeline itself."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.imports import ROOT

# Enough to run the harness, and no more: no test reads a timing.
QUICK = {
    "model": "digits_cnn",
    "benchmark.starts": "1",
    "benchmark.turn_seconds": "0.02",
    "profile.calls": "10",
}


def make_clone(folder: Path, params: Mapping[str, str] | None = None) -> Path:
    """Copy what git would hold of the working tree to `folder`, as a new repository, and change `params` there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "test"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    for key, value in (params or {}).items():
        set_param(folder, key, value)
    return folder


def set_param(clone: Path, key: str, value: str) -> None:
    """Change one value in params.yaml, given as YAML."""
    yaml = YAML()
    params = yaml.load((clone / "params.yaml").read_text())
    *sections, name = key.split(".")
    section = params
    for part in sections:
        section = section[part]
    section[name] = YAML(typ="safe").load(value)
    with (clone / "params.yaml").open("w") as file:
        yaml.dump(params, file)


def run(clone: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` in the clone with this environment's Python; never raises."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **options.pop("env", {})}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False, **options)


def stages_run(output: str) -> list[str]:
    """The stages that a `dvc repro` ran, from what it printed."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def outputs(clone: Path) -> dict[str, str]:
    """The sha256 of every file that the pipeline has made."""
    files = [path for name in ("data", "artifacts", "metrics") for path in (clone / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(clone)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


@contextmanager
def edited(path: Path, content: bytes) -> Iterator[None]:
    """Give the file another content for the length of the block."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
