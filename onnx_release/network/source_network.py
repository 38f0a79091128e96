"""Load a network that a source itself is: an archive of TorchScript or torch.export, or a Hugging Face folder."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.errors import SpecError
from onnx_release.core.spec import Spec
from onnx_release.network.archives import archive_kind, load_archive
from onnx_release.network.hugging_face import CONFIG, load_pretrained


def load_source_network(model: str, spec: Spec, raw: Path) -> torch.nn.Module:
    """Load the network that exactly one of the sources in `raw` is.

    A folder of Hugging Face is loaded as the class in the `architectures` of its config.json. Raises SpecError if no
    source is a network or if several are, and what `load_archive` and `load_pretrained` raise.
    """
    places = [raw, *(raw / source.name for source in spec.sources)]
    found = [place for place in places if architecture(place) is not None or archive_kind(place) is not None]
    if len(found) != 1:
        several = f"{len(found)} sources are networks ({', '.join(path.name for path in found)})"
        raise SpecError(
            f"models/{model}/network.py is not there, and {several if found else 'no source is a network of its own'}: "
            "write network.py with build(), or name a class of the package transformers under `transformers` in "
            "spec.yaml, or declare one archive of TorchScript (torch.jit.save) or torch.export (torch.export.save), or "
            f"one folder with the {CONFIG} of a Hugging Face checkpoint, under sources"
        )
    place = found[0]
    name = architecture(place)
    if name is not None:
        return load_pretrained(name, spec, place)
    return with_named_inputs(load_archive(place), [tensor.name for tensor in spec.inputs])


def architecture(folder: Path) -> str | None:
    """Return the class that a checkpoint of Hugging Face was saved from, or None for anything else."""
    try:
        names = json.loads((folder / CONFIG).read_bytes())["architectures"]
        return str(names[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def with_named_inputs(network: Any, inputs: Sequence[str]) -> torch.nn.Module:
    """Wrap an archive's network in a module whose forward() takes `inputs`, by position."""

    class Archive(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *tensors: torch.Tensor) -> Any:
            return self.network(*tensors)

    # torch.export and its messages use the names of forward's parameters, and *tensors has none.
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *inputs)]
    Archive.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    module = Archive()
    module.training = False
    return module
