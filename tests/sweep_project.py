"""A small DVC project for tests of what a sweep does to a repository, whatever its stages are."""

from collections.abc import Mapping
from pathlib import Path

from dvc.repo import Repo

from onnx_release.sweep.repository import git


def make_project(folder: Path, files: Mapping[str, str]) -> Path:
    """A committed DVC repository with these files."""
    content = {"params.yaml": "a: 1\nb: 1\n", "dvc.lock": "schema: '2.0'\nstages: {}\n", ".gitignore": "/*.txt\n"}
    for name, text in {**content, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git("init", "--quiet", cwd=folder)
    Repo.init(str(folder)).close()
    git("config", "user.name", "test", cwd=folder)
    git("config", "user.email", "test@example.invalid", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "test", cwd=folder)
    return folder
