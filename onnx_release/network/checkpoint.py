"""Load weights strictly, and without running code in a file unless the model's spec trusts it."""

import json
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from onnx_release.core.errors import CheckpointError
from onnx_release.core.paths import RAW
from onnx_release.core.plain_text import first_few_lines
from onnx_release.core.spec import Source, load_spec
from onnx_release.data.checksums import path_sha256

INDEX = ".safetensors.index.json"


def load_checkpoint(network: torch.nn.Module, path: Path) -> None:
    """Load the weights in `path` into `network`, strictly and on the CPU.

    A file that ends in .safetensors is read as such, and one that ends in .safetensors.index.json as the index of a
    checkpoint in several files beside it. `read_checkpoint` reads any other file, as the state dict of a network or as
    the network itself.

    Raises CheckpointError if a file is missing, truncated, or could run code and is not trusted, or if its names or
    shapes are not those of the network. The network is then left as it was.
    """
    state = read_state(path)
    problems = state_problems(state, network.state_dict())
    if problems:
        raise CheckpointError(f"{path} does not fit the network in network.py:{first_few_lines(problems)}")
    network.load_state_dict(state, strict=False)  # the checks above were strict


def read_state(path: Path) -> dict[str, Any]:
    """Read the weights in a file by name. Raises CheckpointError if it is damaged or has something else."""
    if path.name.endswith(INDEX):
        return read_shards(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    state = read_checkpoint(path)
    if isinstance(state, torch.nn.Module):
        state = state.state_dict()
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} contains a {type(state).__name__}, not a state dict")
    return state


def state_problems(state: Mapping[str, Any], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """Describe each weight of `state` that does not fit the network's own, `expected`."""
    # A .safetensors file has weights that two layers share under one of their names.
    loaded = {memory_of(tensor) for name, tensor in expected.items() if name in state}
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    problems = misfits(
        [name for name, tensor in expected.items() if name not in state and memory_of(tensor) not in loaded],
        [name for name in state if name not in expected],
        [
            (name, tensors[name].shape, tensor.shape)
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    )
    return problems + [
        f"{name} is a {type(value).__name__}, not a tensor"
        for name, value in state.items()
        if name in expected and name not in tensors
    ]


def memory_of(tensor: torch.Tensor) -> tuple[int, torch.Size]:
    """Return the same value for two tensors only if they are the same memory."""
    return tensor.data_ptr(), tensor.shape


def not_there(path: Path) -> CheckpointError:
    """Return the error for a missing file."""
    return CheckpointError(f"{path} is not there: declare it under sources in the model's spec.yaml")


def misfits(
    missing: Iterable[str], unknown: Iterable[str], shapes: Iterable[tuple[str, Sequence[int], Sequence[int]]]
) -> list[str]:
    """Describe each weight that does not fit its network; `shapes` has a name, the shape found and the network's."""
    return [
        *(f"missing: {name}" for name in missing),
        *(f"not in the network: {name}" for name in unknown),
        *(f"{name} has the shape {list(found)}, the network's {list(wanted)}" for name, found, wanted in shapes),
    ]


def read_checkpoint(path: Path) -> Any:
    """Read a file of torch.save, with its tensors on the CPU.

    Such a file is a pickle, and a pickle can contain instructions that run any code. They are refused; tensors and
    plain Python values around them load without any. Only a source that the model's spec.yaml marks with
    `trusted_pickle: true`, and that still has the sha256 there, may run code.

    Raises CheckpointError for a file that is missing or damaged, or that needs to run code and is not trusted.
    """
    try:
        return load_pickle(path, weights_only=True)
    except FileNotFoundError as cause:
        raise not_there(path) from cause
    except Exception as cause:  # torch raises nearly anything on damaged bytes, such as IndexError and struct.error
        refused = isinstance(cause, pickle.UnpicklingError)
        scripted = "TorchScript" in str(cause)
        if not refused and not scripted:
            message = f"{path} is truncated or not a checkpoint: fetch it again. torch says: {cause}"
            raise CheckpointError(message) from cause
        trusted = trusted_source(path)
        if trusted is None:
            # Not torch's whole message, which says how to load the file anyway.
            said = str(cause).partition("WeightsUnpickler error:")[2].strip().partition(". Please")[0]
            reason = "an archive of TorchScript" if scripted else said.partition("\n")[0] or "not a pickle of tensors"
            raise CheckpointError(
                f"{path} is not a plain file of weights and was not loaded ({reason}): it is damaged, or has Python "
                "objects whose loading could run code. Save only the weights, with "
                "torch.save(network.state_dict(), ...). If that is not possible, and you would run a program of the "
                "file's author, write `trusted_pickle: true` beside its sha256 in the model's spec.yaml: loading it "
                "then runs the code in it"
            ) from cause
    return read_trusted(path, *trusted)


def read_trusted(path: Path, source: Source, place: Path) -> Any:
    """Read a trusted file, and run the code in it.

    Raises CheckpointError if that fails, and before that if `place`, the file or a folder above it, does not have the
    sha256 of `source`.
    """
    found = path_sha256(place)
    if found != source.sha256:
        raise CheckpointError(
            f"{path} was not loaded: `trusted_pickle` is for {source.name} with the sha256 {source.sha256}, and it has "
            f"{found}. `dvc checkout` brings back what was fetched"
        )
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


def trusted_source(path: Path) -> tuple[Source, Path] | None:
    """Return the source marked `trusted_pickle` that `path` was fetched from, and its path in data/raw, or None."""
    try:
        # Do not follow links: DVC may have linked the file to its cache.
        model, name, *below = path.absolute().relative_to(RAW.absolute()).parts
    except ValueError:
        return None  # a file from elsewhere, which no spec declares
    if any(part.startswith(".") for part in below):
        return None  # the sha256 of a folder leaves out hidden files
    for source in load_spec(model).sources:
        if source.name == name and source.trusted_pickle:
            return source, RAW / model / name
    return None


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name, mapped and not in memory twice. Raises CheckpointError."""
    try:
        return load_file(path)
    except FileNotFoundError as cause:
        raise not_there(path) from cause
    except (OSError, SafetensorError) as cause:
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint: fetch it again. safetensors says: {cause}"
        ) from cause


def read_shards(index: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of all files that an index of Hugging Face lists, which are beside it.

    Raises CheckpointError if the index or a file is missing or damaged, or a file does not have exactly the tensors
    that the index lists for it.
    """
    state: dict[str, torch.Tensor] = {}
    problems = []
    for name, names in read_index(index).items():
        shard = read_safetensors(index.parent / name)
        problems += [f"missing in {name}: {tensor}" for tensor in sorted(names - set(shard))]
        problems += [f"in {name} and not in the index: {tensor}" for tensor in sorted(set(shard) - names)]
        state |= shard
    if problems:
        raise CheckpointError(f"{index} and its files do not belong together:{first_few_lines(problems)}")
    return state


def read_index(path: Path) -> dict[str, set[str]]:
    """Return the names of the tensors in each file, by the file's name. Raises CheckpointError."""
    try:
        places = json.loads(path.read_bytes())["weight_map"].items()
        files: dict[str, set[str]] = {}
        for tensor, name in places:
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not a plain file name")
            files.setdefault(name, set()).add(tensor)
    except FileNotFoundError as cause:
        raise not_there(path) from cause
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise CheckpointError(
            f"{path} is damaged or not the index of a checkpoint: fetch it again. It must map each tensor to its "
            f"file under weight_map ({cause!r})"
        ) from cause
    return files
