"""Run a stage or a tool as `python -m` does, but in this process, where torch and onnxruntime are imported already."""

import logging
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any, TextIO

import pytest
from dvc.repo import Repo
from networkx import dfs_postorder_nodes

from onnx_release.core.addresses import model_of
from onnx_release.core.child_process import call_guarded
from onnx_release.core.paths import PIPELINE
from tests.clone import path_with_python
from tests.dvc_here import popen_with

# The modules of the library that run work in a process of its own. A script's own import is made anew for each run.
IN_CHILDREN = ("core.child_process", "core.variants", "export.choose_export", "reduce.fp16")
# A process that has imported torch starts others in no time. It keeps the environment that it was started with.
# Loading any network imports torch._dynamo, in each process that times PyTorch.
WITH_TORCH = get_context("forkserver")
WITH_TORCH.set_forkserver_preload(["torch", "torch._dynamo", "onnxruntime", "pydantic", "ruamel.yaml"])


def run_here(folder: Path, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Run `python -m MODULE` with the code of this repository on what is in `folder`; never raises."""
    environment = {"PATH": path_with_python(), **(env or {})}
    with working_in(folder, environment) as patch, captured(1, "stdout") as printed, captured(2, "stderr") as errors:
        patch.setattr(sys, "argv", [module, *arguments])
        for name in IN_CHILDREN:  # no process of its own for what a stage runs in one
            patch.setattr(f"onnx_release.{name}.run_in_child", call_guarded)
        start_contenders_with_torch(patch)
        if module == "dvc":
            take_output_of_dvc(patch)
        else:
            patch.setattr(subprocess, "Popen", popen_with(run_dvc))
        code = exit_code(module)
        found = [content(printed), content(errors)]
    return CompletedProcess([module, *arguments], code, *found)


def start_contenders_with_torch(patch: pytest.MonkeyPatch) -> None:
    """Let what the benchmark times start in processes of its own as ever, from one that has imported torch."""
    patch.setattr("onnx_release.timing.worker.get_context", lambda _: WITH_TORCH)


def run_dvc(folder: Path, arguments: Sequence[str], taken: bool) -> tuple[int, str, str]:
    """Run DVC with `arguments`; its exit code, and what it printed where that is `taken` from what is printed here."""
    with working_in(folder) as patch, ExitStack() as stack:
        files = [
            stack.enter_context(captured(number, f"std{name}")) for number, name in ((1, "out"), (2, "err")) if taken
        ]
        patch.setattr(sys, "argv", ["dvc", *arguments])
        take_output_of_dvc(patch)
        code = exit_code("dvc")
        printed, errors = map(content, files) if taken else ("", "")
    return code, printed, errors


def run_stages(folder: Path, model: str, left_out: Collection[str] = ()) -> None:
    """Run the commands for one model, each after those that it depends on, without DVC; each of them must succeed."""
    with Repo(str(folder)) as repo:
        steps = [stage_and_command(stage) for stage in dfs_postorder_nodes(repo.index.graph)]
    for name, of, command in steps:
        if name not in left_out and of in (model, ""):
            python, option, *arguments = shlex.split(command)
            assert (python, option) == ("python", "-m")
            result = run_here(folder, *arguments)
            assert result.returncode == 0, result.stdout + result.stderr


def stage_and_command(stage: Any) -> tuple[str, str, str]:
    """The name of a stage without what its matrix adds, its model (empty for the machine's stages), and its command."""
    file = Path(stage.path_in_repo)
    address = stage.name if file == PIPELINE else f"{file.as_posix()}:{stage.name}"
    return stage.name.partition("@")[0], model_of(address), stage.cmd


def exit_code(module: str) -> int:
    """Run the module as __main__ and return the exit code that its process would have."""
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def captured(descriptor: int, name: str) -> Iterator[TextIO]:
    """Yield the file that takes what is written to sys.`name` and, by other processes too, to the file descriptor."""
    with tempfile.TemporaryFile("w+", buffering=1, encoding="utf-8") as file, pytest.MonkeyPatch.context() as patch:
        kept = os.dup(descriptor)
        os.dup2(file.fileno(), descriptor)
        patch.setattr(sys, name, file)
        try:
            yield file
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)


def take_output_of_dvc(patch: pytest.MonkeyPatch) -> None:
    """Let DVC print to sys.stdout and sys.stderr as they are now, and not as they were when it was imported."""
    patch.setenv("DVC_TEST", "true")  # or it would put the earlier sys.stdout back
    for name in ("dvc", "dvc_objects", "dvc_data"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                patch.setattr(handler, "stream", sys.stderr if handler.level >= logging.WARNING else sys.stdout)


def content(file: TextIO) -> str:
    file.flush()
    file.seek(0)
    return file.read()


@contextmanager
def working_in(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[pytest.MonkeyPatch]:
    """Work in `folder` and import the models that are there, whatever models other tests have imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(folder)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        before = forget_models()
        try:
            yield patch
        finally:
            forget_models()
            sys.modules.update(before)


def forget_models() -> dict[str, ModuleType]:
    """Take every module below models/ out of sys.modules, and return these."""
    names = [name for name in sys.modules if name == "models" or name.startswith("models.")]
    return {name: sys.modules.pop(name) for name in names}
