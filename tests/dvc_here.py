"""DVC in this process, which has imported it, where a tool that a test runs here would start another Python for it."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DVC = [sys.executable, "-m", "dvc"]


def popen_with(run_dvc: Callable[[Path, Sequence[str], bool], tuple[int, str, str]]) -> type[subprocess.Popen[str]]:
    """A class for subprocess.Popen that calls `run_dvc` for `python -m dvc` and starts a process for all else.

    `run_dvc` gets the folder, what follows `dvc`, and whether the output is taken; it returns the exit code and that.
    What gives DVC other options than a folder and pipes starts a process, too.
    """

    class Popen(subprocess.Popen[str]):
        def __init__(self, args: Any, **options: Any) -> None:
            piped = {options.get("stdout"), options.get("stderr")} == {subprocess.PIPE}
            known = {"cwd", *(("stdout", "stderr", "text") if piped else ())}
            self.taken: tuple[str | None, str | None] | None = None
            if isinstance(args, str) or list(args[:3]) != DVC or not options.keys() <= known:
                super().__init__(args, **options)
                return
            self.args, self.stdin, self.stdout, self.stderr = args, None, None, None
            folder = Path(options.get("cwd") or Path.cwd())
            self.returncode, printed, errors = run_dvc(folder, args[3:], piped)
            self.taken = (printed, errors) if piped else (None, None)

        def communicate(self, *arguments: Any, **options: Any) -> tuple[Any, Any]:
            return super().communicate(*arguments, **options) if self.taken is None else self.taken

    return Popen
