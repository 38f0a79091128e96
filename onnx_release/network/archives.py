"""Read archives that are networks of their own: those of TorchScript and of torch.export."""

import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from onnx_release.core.errors import CheckpointError
from onnx_release.network.trust import is_trusted

# The operators of TorchScript that read or write a file, and what runs while an archive is loaded. Its other operators
# only compute, and its own unpickler runs no Python.
ON_FILES = re.compile(r"\b(save|from_file|load_tensor|__setstate__)\s*\(")


def archive_kind(path: Path) -> Literal["TorchScript", "torch.export"] | None:
    """Return which kind of archive a file is, by the names in it, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return None
    if "archive_format" in names or "serialized_exported_program.json" in names or "models/model.json" in names:
        return "torch.export"
    return "TorchScript" if any(name.startswith("code/") for name in names) else None


def load_archive(path: Path) -> torch.nn.Module:
    """Load the network in an archive of TorchScript or torch.export, on the CPU and in eval mode.

    An archive of TorchScript needs no trust unless it uses an operator of ON_FILES. One of torch.export always does:
    it has pickles, and the functions that it calls are looked up by name in Python. Raises CheckpointError if it needs
    trust and has none, or if it is damaged.
    """
    exported = archive_kind(path) == "torch.export"
    reason = (
        "an archive of torch.export, which may run any code"
        if exported
        else files_used(path)
        and "an archive of "
        f"TorchScript that calls {files_used(path)}(), which reads or writes files or runs while it is loaded"
    )
    if reason and not is_trusted(path):
        raise CheckpointError(
            f"{path} was not loaded: it is {reason}. If you would run a program of its author, write "
            "`trusted_pickle: true` beside its sha256 in the model's spec.yaml"
        )
    load: Callable[[Path], Any] = load_exported if exported else load_scripted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the deprecation of TorchScript
        try:
            network: torch.nn.Module = load(path)
        except Exception as cause:  # torch raises nearly anything on damaged bytes
            said = str(cause).strip().partition("\n")[0]
            raise CheckpointError(f"{path} is truncated, or of another version of torch: {said}") from cause
    for module in network.modules():
        module.training = False  # a graph of torch.export has no eval(), and is in the mode of its export
    return network


def files_used(path: Path) -> str | None:
    """Return the name of the first function of ON_FILES that an archive of TorchScript uses, or None."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.partition("/")[2].startswith("code/") and name.endswith(".py"):
                found = ON_FILES.search(archive.read(name).decode(errors="replace"))
                if found:
                    return found[1]
    return None


def load_scripted(path: Path) -> Any:
    """Load an archive of TorchScript in eval mode."""
    return torch.jit.load(path, map_location="cpu").eval()


def load_exported(path: Path) -> Any:
    """Load an archive of torch.export, without its checks of the sizes that it was made for: the spec has them."""
    return torch.export.load(path).module(check_guards=False)
