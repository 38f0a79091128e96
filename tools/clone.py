"""Make a clone of the working tree in another folder and run modules in it, for tools that run the pipeline."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


def make_clone(folder: Path, params: Mapping[str, str] | None = None) -> Path:
    """Copy the files of the working tree that git does not ignore to a new repository, and change `params` there."""
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


def path_with_python() -> str:
    """Return the environment variable PATH with this environment's programs first, where `make` puts them, too."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def run(clone: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` in the clone with this environment's Python; it does not raise if the command fails."""
    environment = {**os.environ, "PATH": path_with_python(), **options.pop("env", {})}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False, **options)
