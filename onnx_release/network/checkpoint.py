"""Load weights strictly, and without running code in a file unless the model's spec trusts it."""

import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.errors import CheckpointError
from onnx_release.network.archives import archive_kind, load_archive
from onnx_release.network.readings import find_reading
from onnx_release.network.safetensors_files import INDEX, WEIGHTS, not_there, read_safetensors, read_shards
from onnx_release.network.trust import is_trusted

# What is in the pickle of any network, beside the name of its class.
OF_NETWORKS = (b"_parameters", b"_buffers", b"_modules")


def load_checkpoint(network: torch.nn.Module, path: Path, *, key: str | None = None, prefix: str | None = None) -> None:
    """Load the weights in `path` into `network`, strictly and on the CPU.

    A file that ends in .safetensors is read as such, and one that ends in .safetensors.index.json as the index of a
    checkpoint in several files beside it; of a folder, its model.safetensors or the index of it is read. An archive of
    TorchScript has the weights of its own network. `read_checkpoint` reads any other file.

    The weights may be in an entry of the checkpoint, such as state_dict or model, and a prefix such as module. may be
    before all names. If they are found in exactly one place, a note on stderr says where. `key` is the entry, with dots
    if it is nested, and "" for the checkpoint itself; `prefix` is the whole prefix, with its last dot.

    Raises CheckpointError if a file is missing, truncated, or could run code and is not trusted, if its names or shapes
    are not those of the network, or if several places have them. The network is then left as it was.
    """
    reading = find_reading(path, read_content(path), network.state_dict(), key, prefix)
    if key is None and prefix is None and not reading.as_it_is():
        print(f"note: the weights of the network are in {path} {reading}", file=sys.stderr)
    network.load_state_dict(dict(reading.weights), strict=False)  # find_reading was strict


def read_content(path: Path) -> Any:
    """Read a checkpoint of any kind: a state dict, a network, or a dict that has some."""
    if path.is_dir():
        index = path / f"{WEIGHTS.removesuffix('.safetensors')}{INDEX}"
        path = index if index.is_file() else path / WEIGHTS
    if path.name.endswith(INDEX):
        return read_shards(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    content = read_checkpoint(path)
    if not isinstance(content, dict | torch.nn.Module):
        raise CheckpointError(f"{path} contains a {type(content).__name__}, not a state dict")
    return content


def read_checkpoint(path: Path) -> Any:
    """Read a file of torch.save, with its tensors on the CPU.

    Such a file is a pickle, and a pickle can contain instructions that run any code. They are refused; tensors and
    plain Python values around them load without any. Only a source that the model's spec.yaml marks with
    `trusted_pickle: true`, and that still has the sha256 there, may run code.

    Raises CheckpointError for a file that is missing or damaged, or that needs to run code and is not trusted.
    """
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path} is an ONNX file, the result of an export: declare the PyTorch checkpoint that it was made from, "
            "with which the release is compared"
        )
    if archive_kind(path) is not None:
        return load_archive(path)
    try:
        return load_pickle(path, weights_only=True)
    except FileNotFoundError as cause:
        raise not_there(path) from cause
    except Exception as cause:  # torch raises nearly anything on damaged bytes, such as IndexError and struct.error
        if not isinstance(cause, pickle.UnpicklingError):
            message = f"{path} is truncated or not a checkpoint: fetch it again. torch says: {cause}"
            raise CheckpointError(message) from cause
        if not is_trusted(path):
            raise CheckpointError(describe_refused(path, cause)) from cause
    return read_trusted(path)


def describe_refused(path: Path, cause: Exception) -> str:
    """Describe a file that could run code, what is in it, and what to do."""
    # Not torch's whole message, which says how to load the file anyway.
    said = str(cause).partition("WeightsUnpickler error:")[2].strip().partition(". Please")[0]
    reason = said.partition("\n")[0] or "not a pickle of tensors"
    kind = (
        "has a whole network, as torch.save(network, ...) writes it"
        if has_network(path)
        else "is damaged, or has Python objects"
    )
    return (
        f"{path} is not a plain file of weights and was not loaded ({reason}): it {kind}, whose loading could run "
        "code. Where it was made, save only the weights, with torch.save(network.state_dict(), ...). If that is not "
        "possible, and you would run a program of the file's author, write `trusted_pickle: true` beside its sha256 in "
        "the model's spec.yaml: loading it then runs the code in it"
    )


def has_network(path: Path) -> bool:
    """Return whether a file of torch.save has a whole network in it, by the names in its pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            content = archive.read(name)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return all(name in content for name in OF_NETWORKS)


def read_trusted(path: Path) -> Any:
    """Read a trusted file, and run the code in it. Raises CheckpointError if that fails."""
    try:
        return load_pickle(path, weights_only=False)
    except Exception as cause:  # the code in the file may raise anything
        unknown = isinstance(cause, ImportError | AttributeError)
        fix = (
            "Its classes must be importable here under the names that they had when it was saved"
            if unknown
            else "Only files of torch.save can be read: read this one with the program that wrote it, and save its "
            "weights with torch.save(network.state_dict(), ...)"
        )
        raise CheckpointError(
            f"{path} is trusted, but does not load ({type(cause).__name__}: {cause}). {fix}"
        ) from cause


def load_pickle(path: Path, weights_only: bool) -> Any:
    """Load a file of torch.save to the CPU, without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an unusual pickle protocol; the error says enough
        return torch.load(path, map_location="cpu", weights_only=weights_only)
