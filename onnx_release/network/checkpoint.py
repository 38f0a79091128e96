"""Load weights, strictly, and without running what a file may hold unless the model's spec trusts it."""

import json
import pickle
import warnings
from collections.abc import Iterable, Sequence
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

    A file that ends in .safetensors is read as one, one that ends in .safetensors.index.json as the index of a
    checkpoint in several files, which lie beside it, and any other by `read_checkpoint`, as the state dict of a network
    or as the network itself.

    Raises CheckpointError if a file is missing, truncated, or could run code and is not trusted, or if its names or
    shapes are not those of the network, which is then left as it was.
    """
    state: Any
    if path.name.endswith(INDEX):
        state = read_shards(path)
    elif path.suffix == ".safetensors":
        state = read_safetensors(path)
    else:
        state = read_checkpoint(path)
        if isinstance(state, torch.nn.Module):
            state = state.state_dict()
        if not isinstance(state, dict):
            raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict")
    expected = network.state_dict()
    # Weights that two layers share are in a .safetensors file under one of their names.
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
    problems += [
        f"{name} is a {type(value).__name__}, not a tensor"
        for name, value in state.items()
        if name in expected and name not in tensors
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit the network in network.py:{first_few_lines(problems)}")
    network.load_state_dict(state, strict=False)  # strict it has been above


def memory_of(tensor: torch.Tensor) -> tuple[int, torch.Size]:
    """Return what two tensors have in common that are the same memory."""
    return tensor.data_ptr(), tensor.shape


def not_there(path: Path) -> CheckpointError:
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
    """Return what torch.save has written to `path`, with its tensors on the CPU.

    Such a file is a pickle, and a pickle can hold instructions that run any code. They are refused: tensors, and plain
    Python values around them in any nesting, load without. Only what the model's spec.yaml marks `trusted_pickle: true`
    among its sources, and what still has the sha256 there, is loaded with all that it asks for.

    Raises CheckpointError for a file that is missing, damaged, or not trusted and in need of it.
    """
    try:
        return load_pickle(path, weights_only=True)
    except FileNotFoundError as cause:
        raise not_there(path) from cause
    except Exception as cause:  # torch raises nearly anything on damaged bytes, IndexError and struct.error among it
        refused = isinstance(cause, pickle.UnpicklingError)
        scripted = "TorchScript" in str(cause)
        if not refused and not scripted:
            message = f"{path} is truncated or no checkpoint: fetch it again. torch says: {cause}"
            raise CheckpointError(message) from cause
        trusted = trusted_source(path)
        if trusted is None:
            # Not torch's whole message: it says how to load the file all the same.
            said = str(cause).partition("WeightsUnpickler error:")[2].strip().partition(". Please")[0]
            reason = "an archive of TorchScript" if scripted else said.partition("\n")[0] or "no pickle of tensors"
            raise CheckpointError(
                f"{path} is not a plain file of weights: it is damaged, or it holds Python objects whose loading could "
                f"run code, and was not loaded ({reason}). Save the weights alone, with "
                "torch.save(network.state_dict(), ...). Where that cannot be done, and you would run a program of "
                "whoever made the file, write `trusted_pickle: true` beside its sha256 in the model's spec.yaml: "
                "loading it then runs the code that it holds"
            ) from cause
    return read_trusted(path, *trusted)


def read_trusted(path: Path, source: Source, memory_of: Path) -> Any:
    """Return what `path` holds, running the code that it asks for.

    Raises CheckpointError if it fails, and before that if what lies at `place`, the file or a folder above it, is not
    what `source` pins.
    """
    found = path_sha256(memory_of)
    if found != source.sha256:
        raise CheckpointError(
            f"{path} was not loaded: `trusted_pickle` is for {source.name} with the sha256 {source.sha256}, and it has "
            f"{found}. `dvc checkout` brings back what was fetched"
        )
    try:
        return load_pickle(path, weights_only=False)
    except Exception as cause:  # of whatever code the file runs
        unknown = isinstance(cause, ImportError | AttributeError)
        fix = (
            "The classes that it holds must be importable here by the names that they had where it was saved"
            if unknown
            else "Only a file that torch.save has written can be read: read this one with what wrote it, and save its "
            "weights with torch.save(network.state_dict(), ...)"
        )
        raise CheckpointError(
            f"{path} is trusted, and does not load all the same ({type(cause).__name__}: {cause}). {fix}"
        ) from cause


def load_pickle(path: Path, weights_only: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an unusual pickle protocol; the error says enough
        return torch.load(path, map_location="cpu", weights_only=weights_only)


def trusted_source(path: Path) -> tuple[Source, Path] | None:
    """Return the source marked `trusted_pickle` from which `path` was fetched, and its place in data/raw; None without one."""
    try:
        # Links are not followed: DVC may have linked the file to its cache.
        model, name, *below = path.absolute().relative_to(RAW.absolute()).parts
    except ValueError:
        return None  # a file from elsewhere, which no spec pins
    if any(part.startswith(".") for part in below):
        return None  # the sha256 of a folder leaves out what is hidden
    for source in load_spec(model).sources:
        if source.name == name and source.trusted_pickle:
            return source, RAW / model / name
    return None


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name, mapped from it and so not held in memory twice. Raises CheckpointError."""
    try:
        return load_file(path)
    except FileNotFoundError as cause:
        raise not_there(path) from cause
    except (OSError, SafetensorError) as cause:
        raise CheckpointError(
            f"{path} is truncated or no checkpoint: fetch it again. safetensors says: {cause}"
        ) from cause


def read_shards(index: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of all files that an index of Hugging Face names, which lie beside it.

    Raises CheckpointError if the index or a file is missing or damaged, and if a file does not hold exactly what the
    index says of it.
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
            f"{path} is damaged or no index of a checkpoint: fetch it again. It must map each tensor to its file under "
            f"weight_map ({cause!r})"
        ) from cause
    return files
