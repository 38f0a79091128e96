"""Call git."""

import subprocess
from pathlib import Path

from onnx_release.core.errors import RevisionError


def run_git(*arguments: str, cwd: Path = Path()) -> subprocess.CompletedProcess[bytes]:
    """Run git and return its result, whatever the exit code. Raises RevisionError if git is not installed."""
    try:
        return subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=cwd,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError as cause:
        raise RevisionError("git is not installed: install it") from cause


def git_output(*arguments: str, cwd: Path = Path()) -> str | None:
    """Return the output of git without the last line break; None if git fails."""
    found = run_git(*arguments, cwd=cwd)
    return found.stdout.decode().rstrip("\n") if found.returncode == 0 else None
