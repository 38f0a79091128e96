"""Give a network its declared inputs by the names of forward's parameters, where their positions would not do.

An input that has the name of a parameter is that parameter, whatever its position. A name such as `state.0` or
`batch.image` is a part of the parameter before the first dot: a tuple if the parts are numbers, a dict if not. Inputs
whose names are no parameters go in by position.
"""

import inspect
import keyword
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from onnx_release.core.errors import NetworkError

BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
CACHES = ("past_key_values", "cache")  # parameters of transformers, by their older and their newer name


class Place(NamedTuple):
    """Where an input goes: the name of a parameter of forward, and the keys that lead to it within its argument."""

    parameter: str
    keys: tuple[str, ...] = ()


def take_by_name(network: torch.nn.Module, names: Sequence[str]) -> None:
    """Let the network take its inputs, called `names`, by position, each for the parameter that its name says.

    A network whose positions are right already stays as it is. Else its class becomes a subclass with another forward,
    so that its modules keep their names. Raises NetworkError if the names do not say which input is which parameter.
    """
    signature = inspect.signature(network.forward)
    places = places_of(names, signature, type(network).__name__)
    positions = [name for name, parameter in signature.parameters.items() if parameter.kind in BY_POSITION]
    if places is None or not (any(place.keys for place in places) or wrong_positions(places, positions)):
        return
    before = [name for name, item in signature.parameters.items() if item.kind is inspect.Parameter.POSITIONAL_ONLY]
    replace_forward(network, places, before)


def places_of(names: Sequence[str], signature: inspect.Signature, network: str) -> list[Place] | None:
    """Return the place of each input, or None if all go in by position. Raises NetworkError for a mixture."""
    known = [name for name, parameter in signature.parameters.items() if parameter.kind in (*BY_POSITION, *BY_NAME)]
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    found = [place_of(name, known) for name in names]
    positions = [name for name in known if signature.parameters[name].kind in BY_POSITION]
    enough = len(names) <= len(positions) or inspect.Parameter.VAR_POSITIONAL in kinds
    if not any(found) and enough:
        return None
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return [place or split(name) for place, name in zip(found, names, strict=True)]
    missing = [name for name, place in zip(names, found, strict=True) if place is None]
    if not missing:
        return [place for place in found if place is not None]
    # The others take their positions, if that leaves nothing to guess.
    guessed = [place or Place(positions[i]) if i < len(positions) else None for i, place in enumerate(found)]
    places = [place for place in guessed if place is not None]
    if len(places) == len(names) and not wrong_positions(places, positions):
        return None
    raise NetworkError(
        f"spec.yaml declares the input{'s' * (len(missing) > 1)} {', '.join(missing)}, and forward() of {network} has "
        f"no such parameter: it is forward{signature}. Name every input after its parameter; a part of a tuple or of "
        f"a dict by its path, as in {known[-1] if known else 'state'}.0 or {known[-1] if known else 'batch'}.mask"
    )


def place_of(name: str, parameters: Sequence[str]) -> Place | None:
    """Return the place that the name of an input says; None if it names no parameter."""
    if name in parameters:
        return Place(name)
    place = split(name)
    return place if place.keys and place.parameter in parameters else None


def split(name: str) -> Place:
    """Return the place that a path such as state.0 leads to."""
    parameter, *keys = name.split(".")
    return Place(parameter, tuple(keys))


def wrong_positions(places: Sequence[Place], positions: Sequence[str]) -> list[str]:
    """Return the parameters that an input would not reach by its position."""
    return [
        place.parameter
        for index, place in enumerate(places)
        if index >= len(positions) or positions[index] != place.parameter
    ]


def replace_forward(network: torch.nn.Module, places: Sequence[Place], before: Sequence[str]) -> None:
    """Give the network a forward that takes tensors by position and puts each in its place.

    The parameters in `before` can only be given by position.
    """
    base: Any = type(network)
    sequence: type = tuple  # or list, for a network that changes one or adds to it
    has_own = "forward" in vars(network)  # one set on the network itself would hide that of its class
    if has_own:
        vars(network)["own_forward"] = vars(network).pop("forward")  # as an attribute a copy binds it to itself

    def forward(self: torch.nn.Module, *tensors: torch.Tensor) -> Any:
        nonlocal sequence
        try:
            return call(self, tensors, sequence)
        except (AttributeError, TypeError) as cause:
            if sequence is list or "tuple" not in str(cause):
                raise
            try:
                result = call(self, tensors, list)
            except Exception:
                raise cause from None  # it is not about the list
        sequence = list
        return result

    def call(self: Any, tensors: Sequence[torch.Tensor], sequence: type) -> Any:
        arguments = with_caches(base, nested_arguments(places, tensors, sequence))
        first = [arguments.pop(name) for name in before if name in arguments]
        return self.own_forward(*first, **arguments) if has_own else base.forward(self, *first, **arguments)

    # torch.export and its messages use the names of forward's parameters, and *tensors has none.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["self", *(identifier("_".join((place.parameter, *place.keys))) for place in places)]
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    attributes = {"forward": forward, "__module__": base.__module__, "__qualname__": base.__qualname__}
    network.__class__ = type(base.__name__, (base,), attributes)


def identifier(name: str) -> str:
    """Return the name as Python allows it for a parameter."""
    plain = re.sub(r"\W", "_", name)
    return f"_{plain}" if not plain.isidentifier() or keyword.iskeyword(plain) else plain


def nested_arguments(places: Sequence[Place], tensors: Sequence[torch.Tensor], sequence: type) -> dict[str, Any]:
    """Return the arguments by the names of their parameters, with tuples or lists in them."""
    arguments: dict[str, Any] = {}
    for place, tensor in zip(places, tensors, strict=True):
        *outer, last = (place.parameter, *place.keys)
        part = arguments
        for key in outer:
            part = part.setdefault(key, {})
        part[last] = tensor
    return {name: with_sequences(argument, sequence) for name, argument in arguments.items()}


def pairs_of_cache(value: Any) -> Any:
    """Return a decoder's cache of transformers as pairs of keys and values, one for each layer.

    Any other value is returned as it is, also the caches of other networks, such as encoder-decoders and Mamba.
    """
    layers = getattr(value, "layers", ()) if type(value).__module__.startswith("transformers.cache_utils") else ()
    if not layers or not all(hasattr(layer, "keys") and hasattr(layer, "values") for layer in layers):
        return value
    return tuple((layer.keys, layer.values) for layer in layers)


def with_caches(network: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with pairs of keys and values, one for each layer, as the cache that transformers takes."""
    if not any(item.__module__ == "transformers.modeling_utils" for item in network.__mro__):
        return arguments
    from transformers import DynamicCache

    return {
        name: DynamicCache(argument)
        if name in CACHES
        and isinstance(argument, tuple)
        and all(isinstance(pair, tuple) and len(pair) == 2 for pair in argument)
        else argument
        for name, argument in arguments.items()
    }


def with_sequences(argument: Any, sequence: type) -> Any:
    """Return the argument with a `sequence` in place of every dict whose keys are the numbers from 0 on."""
    if not isinstance(argument, dict):
        return argument
    parts = {key: with_sequences(part, sequence) for key, part in argument.items()}
    numbers = [str(number) for number in range(len(parts))]
    return sequence(parts[number] for number in numbers) if sorted(parts) == sorted(numbers) else parts
