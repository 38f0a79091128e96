"""Load a network that a source itself is: an archive of TorchScript or torch.export, or a Hugging Face folder."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.errors import SpecError
from onnx_release.core.spec import Spec
from onnx_release.network.archives import archive_kind, has_network, load_archive
from onnx_release.network.arguments import identifier
from onnx_release.network.hugging_face import CONFIG, load_pretrained


def load_source_network(model: str, spec: Spec, raw: Path) -> torch.nn.Module:
    """Load the network that exactly one of the sources in `raw` is.

    A folder of Hugging Face is loaded as the class in the `architectures` of its config.json. Raises SpecError if no
    source is a network or if several are, and what `load_archive` and `load_pretrained` raise.
    """
    places = [raw, *(raw / source.name for source in spec.sources)]
    found = [place for place in places if architecture(place) is not None or archive_kind(place) is not None]
    if len(found) != 1:
        raise SpecError(describe_choice(model, found, [raw / source.name for source in spec.sources]))
    place = found[0]
    name = architecture(place)
    if name is not None:
        return load_pretrained(name, spec, place)
    return as_module(load_archive(place))


def describe_choice(model: str, found: Sequence[Path], sources: Sequence[Path]) -> str:
    """Describe why the sources do not say which network is meant, and what to do."""
    if found:
        several = ", ".join(path.name for path in found)
        return (
            f"models/{model}/network.py is not there, and {len(found)} sources are networks ({several}): write "
            "network.py with build(), which loads the right one, or declare only that one"
        )
    whole = "".join(
        f"\n{path.name} is a whole network, as torch.save(network, ...) writes it, without its code: write network.py "
        "with its class and load_checkpoint(), or save it with torch.export.save(torch.export.export(network, ...), "
        "...) where it was made"
        for path in sources
        if has_network(path)
    )
    exported = "".join(
        f"\n{path.name} is an ONNX file, the result of an export: the release is made from the PyTorch network, and "
        "compared with it"
        for path in sources
        if path.suffix == ".onnx"
    )
    return (
        f"models/{model}/network.py is not there, and no source is a network of its own: write network.py with "
        "build(), or name a class of the package transformers under `transformers` in spec.yaml, or declare one "
        "archive of TorchScript (torch.jit.save) or torch.export (torch.export.save), or one folder of Hugging Face "
        f"with a {CONFIG}, under sources{whole}{exported}"
    )


def architecture(folder: Path) -> str | None:
    """Return the class that a checkpoint of Hugging Face was saved from, or None for anything else."""
    try:
        names = json.loads((folder / CONFIG).read_bytes())["architectures"]
        return str(names[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def as_module(network: Any) -> torch.nn.Module:
    """Wrap a network of TorchScript or torch.export in a module in eval mode, whose forward() has its parameters.

    The network alone takes no hook, or no other forward().
    """

    class Archive(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *arguments: Any, **named: Any) -> Any:
            return self.network(*arguments, **named)

    # torch.export and its messages use the names of forward's parameters, and *arguments has none.
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *parameters_of(network)]
    Archive.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    module = Archive()
    module.training = False
    return module


def parameters_of(network: Any) -> list[inspect.Parameter]:
    """Return the parameters of forward() as the network takes them: Python does not know those of TorchScript.

    A network of torch.export takes by position what was given so when it was captured, and the others by name.
    """
    if not isinstance(network, torch.jit.ScriptModule):
        given = network.graph._codegen.pytree_info.in_spec.child(0).num_children
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY)
        found = inspect.signature(network.forward).parameters
        return [inspect.Parameter(name, kinds[index >= given]) for index, name in enumerate(found)]
    compiled: Any = network.forward
    names = [item.name for item in compiled.schema.arguments][1:]
    named = all(name.isidentifier() for name in names)  # a trace may call them input.1
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if named else inspect.Parameter.POSITIONAL_ONLY
    return [inspect.Parameter(identifier(name), kind) for name in names]


def is_scripted(network: torch.nn.Module) -> bool:
    """Return whether the network is one of TorchScript, in the module of `as_module`."""
    return isinstance(getattr(network, "network", None), torch.jit.ScriptModule)
