"""Make a clone of the working tree in another folder and run modules in it, for tools that run the pipeline."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from onnx_release.core.command import path_with_python

ROOT = Path(__file__).parents[1]


def make_clone(folder: Path, params: Mapping[str, str] | None = None, root: Path = ROOT) -> Path:
    """Copy the files of a working tree that git does not ignore to a new repository, and change `params` there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)
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


def forget_runs(clone: Path) -> None:
    """Remove what DVC knows of earlier runs of stages, so that each runs, or comes from the run cache."""
    for lock in clone.glob("pipelines/*/dvc.lock"):
        lock.unlink()
    (clone / "dvc.lock").unlink(missing_ok=True)


def list_models(clone: Path, *models: str) -> None:
    """Make these the models that the clone keeps up."""
    (clone / "models.yaml").write_text("models:\n" + "".join(f"- {model}\n" for model in models))


def only_model(clone: Path, model: str) -> None:
    """Make this the only model that the clone keeps up, and the only one whose stages DVC knows."""
    list_models(clone, model)
    for folder in (clone / "pipelines").iterdir():
        if folder.name != model:
            shutil.rmtree(folder)


def run(clone: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` in the clone with this environment's Python; it does not raise if the command fails."""
    environment = {**os.environ, "PATH": path_with_python(), **options.pop("env", {})}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False, **options)
