"""A small DVC project for tests of what a sweep does to a repository, whatever its stages are."""

from collections.abc import Mapping
from pathlib import Path

from dvc.repo import Repo

from onnx_release.core.paths import MACHINE_PIPELINE, MODEL_LIST, PARAMS, PIPELINE, ModelFiles
from onnx_release.sweep.repository import git
from tests.imports import ROOT


def make_project(folder: Path, files: Mapping[str, str]) -> Path:
    """A committed DVC repository with these files."""
    content = {"params.yaml": "a: 1\nb: 1\n", "dvc.lock": "schema: '2.0'\nstages: {}\n", ".gitignore": "/*.txt\n"}
    write_files(folder, {**content, **files})
    git("init", "--quiet", cwd=folder)
    Repo.init(str(folder)).close()
    git("config", "user.name", "test", cwd=folder)
    git("config", "user.email", "test@example.invalid", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "test", cwd=folder)
    return folder


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def own_pipeline(*models: str) -> dict[str, str]:
    """The pipeline of this repository for these models: what DVC and a sweep read before anything runs."""
    of_models = [path for files in map(ModelFiles, models) for path in (files.spec, files.overrides, files.pipeline)]
    files = {path.as_posix(): (ROOT / path).read_text() for path in (PIPELINE, MACHINE_PIPELINE, PARAMS, *of_models)}
    return {**files, MODEL_LIST.as_posix(): "models:\n" + "".join(f"- {model}\n" for model in models)}
