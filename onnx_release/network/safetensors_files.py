"""Read weights in files of safetensors, which have no code, and in several of them with an index."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from onnx_release.core.errors import CheckpointError
from onnx_release.core.plain_text import first_few_lines

WEIGHTS = "model.safetensors"
INDEX = ".safetensors.index.json"


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


def not_there(path: Path) -> CheckpointError:
    """Return the error for a missing file."""
    return CheckpointError(f"{path} is not there: declare it under sources in the model's spec.yaml")
