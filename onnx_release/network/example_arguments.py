"""Name the tensors in the arguments and in the result of a network, however they are nested."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from onnx_release.core.errors import NetworkError
from onnx_release.core.plain_text import count_of
from onnx_release.network.arguments import CACHES, pairs_of_cache, with_caches
from onnx_release.network.outputs import parts_of


@dataclass(frozen=True)
class Arguments:
    """What a network is called with: `positional` arguments, and those `by_name`.

    `names` has the parameter of each positional argument.
    """

    positional: tuple[Any, ...]
    by_name: Mapping[str, Any]
    names: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Return each tensor by its path: `mask`, or `state.0` and `state.1` for a tuple called state."""
        found: dict[str, torch.Tensor] = {}
        for name, value in (*zip(self.names, self.positional, strict=True), *self.by_name.items()):
            found |= flatten(value, name)
        return found

    def replaced(self, tensors: Mapping[str, torch.Tensor]) -> "Arguments":
        """Return the arguments with `tensors`, which are by path, in the place of those in them."""
        positional = [
            with_tensors(value, name, tensors) for name, value in zip(self.names, self.positional, strict=True)
        ]
        by_name = {name: with_tensors(value, name, tensors) for name, value in self.by_name.items()}
        return Arguments(tuple(positional), by_name, self.names)

    def call(self, network: Callable[..., Any], tensors: Mapping[str, torch.Tensor]) -> Any:
        """Call the network with copies of `tensors`, which are by path, in the place of those in the arguments."""
        replaced = self.replaced(tensors)
        given = dict(zip(self.names, replaced.positional, strict=True)) | dict(replaced.by_name)
        given = with_caches(type(network), given)
        positional = [given.pop(name) for name in self.names]
        return network(*positional, **given)


def name_arguments(network: torch.nn.Module, examples: Any) -> Arguments:
    """Return example inputs as arguments: one tensor, a tuple in the order of forward(), or a dict by its parameters.

    Arrays of NumPy become tensors, and float64 becomes float32. Raises NetworkError for inputs that forward() does not
    take.
    """
    if isinstance(examples, Mapping):
        positional, by_name = (), {str(name): as_tensors(value) for name, value in examples.items()}
    else:
        values = examples if isinstance(examples, tuple | list) else (examples,)
        positional, by_name = tuple(as_tensors(value) for value in values), {}
    known = parameter_names(network)
    if known is None:  # it takes any number, without a name for each
        names = tuple(f"input_{index}" for index in range(len(positional)))
        return Arguments(positional, by_name, names)
    caches = CACHES if not set(CACHES).isdisjoint(known) else ()  # one parameter with two names
    unknown = [name for name in by_name if name not in (*known, *caches)]
    if unknown or len(positional) > len(known):
        wrong = f"has no {', '.join(unknown)}" if unknown else f"does not take {count_of(len(positional), 'input')}"
        raise NetworkError(f"forward({', '.join(known)}) {wrong}: give the example inputs of these names")
    return Arguments(positional, by_name, tuple(known[: len(positional)]))


def parameter_names(network: torch.nn.Module) -> list[str] | None:
    """Return the parameters of the network's forward() in their order; None if it takes *args or **kwargs."""
    if isinstance(network, torch.jit.ScriptModule):
        schema: Any = network.forward.schema  # type: ignore[attr-defined]
        return [argument.name for argument in schema.arguments[1:]]
    parameters = inspect.signature(network.forward).parameters.values()
    if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters):
        named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        return None if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters) else named
    return [parameter.name for parameter in parameters]


def as_tensors(value: Any) -> Any:
    """Return `value` with tensors in the place of arrays, all on the CPU and none in float64.

    A cache of transformers becomes pairs of keys and values, one for each layer.
    """
    value = pairs_of_cache(value)
    if isinstance(value, Mapping):
        return {name: as_tensors(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return (
            type(value)(*map(as_tensors, value)) if hasattr(value, "_fields") else type(value)(map(as_tensors, value))
        )
    if hasattr(value, "__array__") and not isinstance(value, torch.Tensor):
        value = torch.as_tensor(value)
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    return value.float() if value.dtype is torch.float64 else value


def flatten(value: Any, path: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors in nested tuples, lists, mappings and data classes by their paths; None is dropped."""
    if isinstance(value, torch.Tensor):
        return {path: value}
    return {
        name: tensor
        for key, item in parts_of(value, fields=True)
        for name, tensor in flatten(item, f"{path}.{key}" if path else key).items()
    }


def with_tensors(value: Any, path: str, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return an argument with each of its tensors replaced by a copy of that of its path in `tensors`."""
    if isinstance(value, torch.Tensor):
        return tensors[path].clone()  # the network may write into it
    if isinstance(value, Mapping):
        return {key: with_tensors(item, f"{path}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [with_tensors(item, f"{path}.{key}", tensors) for key, item in parts_of(value, fields=True)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
