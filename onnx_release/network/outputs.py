"""Take a network's outputs by the names that the spec declares, or by their positions where they have no names.

Tuples, lists, dicts and data classes are flattened, and None is left out. The path of a tensor is the keys and
positions that lead to it: `logits`, `state.0`, `1.0`.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from onnx_release.core.errors import NetworkError
from onnx_release.core.plain_text import count_of
from onnx_release.network.arguments import pairs_of_cache

# At the end of an output's name, where its path alone is the name of an input: state_out is the path state or 1.state.
OUT = "_out"


def take_outputs(result: Any, names: Sequence[str], network: str = "the network") -> tuple[torch.Tensor, ...]:
    """Return the tensors of `result` that `names` declare, in that order.

    A name is a path, or its end if only one path ends so, with or without OUT. Tensors without a name, as in a tuple,
    go to the remaining names by position if there are as many. Raises NetworkError if one is missing, or if it is not
    clear which is which.
    """
    given = dict(flatten(result, fields=True))
    if not find_paths(names, given):  # the fields of a named tuple are also positions
        given = dict(flatten(result, fields=False))
    found = find_paths(names, given)
    if len(found) < len(names):
        rest = [path for path in given if path not in found.values()]
        missing = [name for name in names if name not in found]
        if len(rest) != len(missing) or not all(is_position(path) for path in rest):
            raise NetworkError(describe_outputs(given, names, missing, network))
        found |= dict(zip(missing, rest, strict=True))
    return tuple(given[found[name]] for name in names)


def flatten(value: Any, fields: bool, path: tuple[str, ...] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the path and the tensor of every tensor in `value`, in order; `fields` is that of `parts_of`."""
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
        return
    for key, part in parts_of(value, fields):
        yield from flatten(part, fields, (*path, key))


def parts_of(value: Any, fields: bool) -> list[tuple[str, Any]]:
    """Return what a container has, by name or position; nothing of another value, such as None or a number.

    With `fields`, the parts of a named tuple, such as the result of max(), have their names. A cache of transformers
    has pairs of keys and values, one for each layer.
    """
    value = pairs_of_cache(value)
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, tuple) and fields and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return [(str(index), part) for index, part in enumerate(value)]
    if type(value) in pytree.SUPPORTED_NODES:
        return [(str(index), part) for index, part in enumerate(pytree.tree_leaves(value))]
    return []


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """Return the values of a tensor, which may be a weight, or a view whose sign or conjugation is only marked."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().numpy()


def find_paths(names: Sequence[str], paths: Collection[str]) -> dict[str, str]:
    """Return the path of each of the names that has one, no path twice.

    Whole paths come before ends of paths, and names as they are before names without OUT.
    """
    found: dict[str, str] = {}
    for find in (whole_path, only_end):
        for ending in ("", OUT):
            for name in names:
                path = find(name.removesuffix(ending), paths) if name.endswith(ending) else None
                if path is not None and name not in found and path not in found.values():
                    found[name] = path
    return found


def whole_path(name: str, paths: Collection[str]) -> str | None:
    """Return the path that is `name`, if there is one."""
    return name if name in paths else None


def only_end(name: str, paths: Collection[str]) -> str | None:
    """Return the only path that ends with `name`, if it is the only one; a position is no such end."""
    ends = [path for path in paths if path.endswith(f".{name}")]
    return ends[0] if len(ends) == 1 and not is_position(name) else None


def is_position(path: str) -> bool:
    """Return whether a path has no name in it: it is that of a bare tensor, or of tuples and lists."""
    return all(key.isdigit() for key in path.split(".")) if path else True


def describe_outputs(
    given: Mapping[str, torch.Tensor], names: Sequence[str], missing: Sequence[str], network: str
) -> str:
    """Describe which outputs there are, which are declared, and what to do."""
    if not any(is_position(path) for path in given) and len(given) > 0:
        return f"{network} has no output {', '.join(missing)}, which spec.yaml declares; it gives {', '.join(given)}"
    there = ", ".join(f"{path} {list(tensor.shape)}".strip() for path, tensor in given.items()) or "no tensor"
    text = (
        f"{network} returns {count_of(len(given), 'output')}, spec.yaml declares {len(names)}: "
        f"{', '.join(names)}. It gives {there}"
    )
    paths = [path for path in given if path]
    if len(given) < len(names):
        return f"{text}. Declare only these, in this order"
    quoted = ", ".join(f'"{path}"' for path in paths[: len(names)])
    return f"{text}. Declare all of them in this order; or take some of them by their paths as names, such as {quoted}"
