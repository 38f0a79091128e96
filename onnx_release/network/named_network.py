"""Build the network that a person names: a function, a class of timm, a folder of transformers, or an archive."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.errors import CheckpointError, NetworkError, ReleaseError
from onnx_release.core.spec import ITEM_BYTES
from onnx_release.network.archives import archive_kind
from onnx_release.network.example_arguments import Arguments, as_tensors, name_arguments, parameter_names
from onnx_release.network.guess_inputs import guess_arguments
from onnx_release.network.hugging_face_inputs import open_folder
from onnx_release.network.wrappers import unwrapped

INPUT = re.compile(r"(?P<name>[\w.]+)=(?P<dtype>\w+)\[(?P<shape>[\d, ]*)\]")


@dataclass(frozen=True)
class NamedNetwork:
    """A network, an example of its inputs, and what is known about it.

    `kind`: "function", "timm", "transformers", "torchscript" or "exported". `files` are those that it is loaded from.
    `reference` is the module and name to import, the name in timm, or the class of transformers. `task` is empty if it
    is not known, `guessed` says whether the inputs were guessed, and `settings` are those of timm. `called` says
    whether the name is that of a function, and `pair` whether it gives example inputs too.
    """

    network: torch.nn.Module
    arguments: Arguments
    kind: str
    reference: str
    files: tuple[Path, ...] = ()
    task: str = ""
    guessed: bool = False
    called: bool = True
    pair: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def open_network(text: str, inputs: Sequence[str] = ()) -> NamedNetwork:
    """Build the network that `text` names, in eval mode.

    `text`: MODULE:FUNCTION, timm:NAME, transformers:FOLDER, or the path of an archive of TorchScript or torch.export.
    `inputs`: example inputs such as "image=float32[2,3,224,224]", in the place of the network's own.

    Raises NetworkError if there is none, if it fails, or if its inputs are not known.
    """
    origin, colon, rest = text.partition(":")
    examples = dict(map(read_input, inputs))
    torch.manual_seed(0)  # as in the network.py that will build it
    if not colon:
        return open_archive(Path(text), examples)
    if origin == "timm":
        return open_timm(rest, examples)
    if origin == "transformers":
        found = open_folder(Path(rest), examples)
        return NamedNetwork(found.network, found.arguments, origin, found.name, found.files, found.task)
    return open_function(origin, rest, examples)


def read_input(text: str) -> tuple[str, torch.Tensor]:
    """Return the name and an example of an input such as image=float32[2,3,224,224]. Raises NetworkError."""
    match = INPUT.fullmatch(text.replace(" ", ""))
    if match is None or match["dtype"] not in ITEM_BYTES:
        raise NetworkError(
            f"--input {text} is not NAME=DTYPE[SIZE,SIZE...]: write it as in image=float32[2,3,224,224], with a "
            f"dtype of {', '.join(ITEM_BYTES)}"
        )
    shape = [int(size) for size in match["shape"].split(",") if size]
    dtype = getattr(torch, match["dtype"])
    if dtype.is_floating_point:
        return match["name"], torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return match["name"], torch.ones(shape, dtype=dtype)


def open_function(module_name: str, function_name: str, examples: Mapping[str, torch.Tensor]) -> NamedNetwork:
    """Build what a function, a class or an object of a module gives: a network, or a network and its example inputs."""
    named = find_named(module_name, function_name)
    called = callable(named) and not isinstance(named, torch.nn.Module)
    made = call(named, f"{module_name}:{function_name}") if called else named
    pair = isinstance(made, tuple) and len(made) == 2
    made, own = made if pair else (made, None)
    if not isinstance(made, torch.nn.Module):
        raise NetworkError(
            f"{module_name}:{function_name} gives {type(made).__name__}: let it return a torch.nn.Module, or one and "
            "its example inputs"
        )
    network = in_float32(unwrapped(made).eval())
    arguments, guessed = example_arguments(network, with_token_ids(network, examples) or own)
    reference = f"{module_name}:{function_name}"
    return NamedNetwork(network, arguments, "function", reference, guessed=guessed, called=called, pair=pair)


def with_token_ids(network: torch.nn.Module, examples: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the examples with integers that every table of the network has, except for masks, which stay ones."""
    tables = [layer.num_embeddings for layer in network.modules() if isinstance(layer, torch.nn.Embedding)]
    generator = torch.Generator().manual_seed(0)
    return {
        name: tensor
        if not tables or tensor.is_floating_point() or tensor.dtype is torch.bool or "mask" in name
        else torch.randint(0, min(tables), tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in examples.items()
    }


def find_named(module_name: str, name: str) -> Any:
    """Import a module and return what is called `name` in it. Raises NetworkError."""
    try:
        module = importlib.import_module(module_name)
    except Exception as cause:  # a module of the user may raise anything
        raise NetworkError(
            f"the module {module_name} cannot be imported ({type(cause).__name__}: {cause}): it must be importable "
            "from the repository root, as in mynet:build for mynet.py beside params.yaml"
        ) from cause
    if not hasattr(module, name):
        raise NetworkError(f"{module_name} has no {name}: name a function that returns the network")
    return getattr(module, name)


def call(function: Callable[[], Any], name: str) -> Any:
    """Return what the function returns. Raises NetworkError if it fails."""
    try:
        return function()
    except ReleaseError:
        raise
    except Exception as cause:  # the user's code may raise anything
        raise NetworkError(
            f"{name}() fails: {type(cause).__name__}: {cause}\n"
            "It is called without arguments, and returns the network, or the network and its example inputs"
        ) from cause


def example_arguments(network: torch.nn.Module, examples: Any) -> tuple[Arguments, bool]:
    """Return the example inputs as arguments, and whether they were guessed. Raises NetworkError without any."""
    if examples is not None and not (isinstance(examples, Mapping) and not examples):
        return name_arguments(network, examples), False
    guess = guess_arguments(network)
    if guess is None:
        taken = parameter_names(network) or ["..."]
        hints = " ".join(f"--input '{name}=float32[2,3,224,224]'" for name in taken)
        raise NetworkError(
            f"the inputs of forward({', '.join(taken)}) are not known: give an example of each, as in {hints}; or let "
            "the function return the network and a tuple or dict of example inputs"
        )
    return guess, True


def open_timm(name: str, examples: Mapping[str, torch.Tensor]) -> NamedNetwork:
    """Build a network of timm without its weights, at the input size of its default configuration."""
    try:
        timm = importlib.import_module("timm")
    except ImportError as cause:
        raise NetworkError(
            f"timm cannot be imported ({cause}): `pip install timm`, and add it to requirements.txt"
        ) from cause
    try:
        network = timm.create_model(name, pretrained=False).eval()
    except Exception as cause:  # an unknown name, or one that needs another package
        raise NetworkError(f"timm makes no {name}: {cause}. timm.list_models() has the names") from cause
    settings = dict(getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", {}))
    shape = (2, *settings.get("input_size", (3, 224, 224)))
    task = "classification" if settings.get("num_classes", 0) else ""
    arguments = name_arguments(network, examples or torch.randn(shape))
    return NamedNetwork(network, arguments, "timm", name, task=task, settings=settings)


def open_archive(path: Path, examples: Mapping[str, torch.Tensor]) -> NamedNetwork:
    """Open an archive of TorchScript, or one of torch.export, which has its example inputs."""
    if path.is_dir():
        raise NetworkError(f"{path} is a folder: write transformers:{path} if it is a checkpoint of Hugging Face")
    if not path.is_file():
        raise NetworkError(f"there is no file {path}, and no colon in it: name MODULE:FUNCTION, timm:NAME or a file")
    kind = archive_kind(path)
    if kind == "torch.export":
        program = loaded(torch.export.load, path, "torch.export.load")
        network = program.module()
        own, by_name = program.example_inputs or ((), {})
        given = name_arguments(network, tuple(examples.values()) or tuple(own))
        arguments = Arguments(given.positional, as_tensors(by_name), given.names)  # it takes them only in this way
        return NamedNetwork(network, arguments, "exported", path.name, (path,))
    if kind == "TorchScript":
        network = in_float32(loaded(torch.jit.load, path, "torch.jit.load").eval())
        arguments, guessed = example_arguments(network, examples)
        return NamedNetwork(network, arguments, "torchscript", path.name, (path,), guessed=guessed)
    raise CheckpointError(
        f"{path} is no archive of TorchScript or torch.export, which have the network's code: if it has weights alone, "
        "give the network with --network MODULE:FUNCTION and the file with --weights"
    )


def loaded(load: Callable[[Path], Any], path: Path, name: str) -> Any:
    """Return what `load` reads from the archive. Raises CheckpointError if it cannot."""
    try:
        return load(path)
    except Exception as cause:  # torch raises nearly anything on damaged bytes
        raise CheckpointError(f"{path} does not load by {name}: {type(cause).__name__}: {cause}") from cause


def in_float32(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network with weights of half precision in float32, to which the pipeline brings it too."""
    halves = (torch.float16, torch.bfloat16)
    return network.float() if any(weight.dtype in halves for weight in network.parameters()) else network
