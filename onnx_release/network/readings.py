"""Find the weights of a network in what a checkpoint contains: in which entry, and after which prefix of the names."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.errors import CheckpointError
from onnx_release.core.plain_text import first_few, first_few_lines
from onnx_release.network.weight_names import state_problems

# What torch.compile, DistributedDataParallel and the like put into the names of a layer that they wrap.
WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
DEEPEST = 4


@dataclass(frozen=True)
class Reading:
    """Weights by the names that they would have in the network.

    `key` is the entry of the checkpoint that they are in, with dots if it is nested, and "" for the checkpoint itself.
    `prefix` was before their names. `left_out` counts the entry's other weights. `unwrapped` tells whether the names of
    WRAPPERS were taken out.
    """

    key: str
    prefix: str
    weights: Mapping[str, Any]
    left_out: int = 0
    unwrapped: bool = False

    def as_it_is(self) -> bool:
        """Return whether these are the checkpoint's own names."""
        return not (self.key or self.prefix or self.unwrapped)

    def __str__(self) -> str:
        parts = [f"in the entry {self.key!r}"] if self.key else []
        parts += [f"after the prefix {self.prefix!r}"] if self.prefix else []
        parts += ["without the names of wrappers"] if self.unwrapped else []
        parts += [f"without {self.left_out} other weights"] if self.left_out else []
        return ", ".join(parts) or "as they are"


def find_reading(
    path: Path, content: Any, expected: Mapping[str, torch.Tensor], key: str | None, prefix: str | None
) -> Reading:
    """Return the only reading of `content`, read from `path`, that has exactly the weights of `expected`.

    `key` and `prefix` narrow the search. Raises CheckpointError if no reading fits, or several with other values do.
    """
    entries = dict(find_entries(content))
    if key is not None and key not in entries:
        raise CheckpointError(f"{path} has no entry {key!r} with weights; it has {first_few([*entries], 8)}")
    if key is not None:
        entries = {key: entries[key]}
    plain = list(readings_in(entries, expected, prefix))
    fitting = [reading for reading in plain if not state_problems(reading.weights, expected)]
    if not fitting:
        unwrapped = readings_in(entries, expected, prefix, unwrap=True)
        fitting = [reading for reading in unwrapped if not state_problems(reading.weights, expected)]
    if not fitting:
        best = min(plain, key=lambda reading: len(state_problems(reading.weights, expected)))
        where = "" if best.as_it_is() else f", {best},"
        problems = first_few_lines(state_problems(best.weights, expected))
        raise CheckpointError(f"{path}{where} does not fit the network in network.py:{problems}")
    if not all(same_weights(fitting[0], other) for other in fitting[1:]):
        listed = "".join(f"\n  {reading}: key={reading.key!r}, prefix={reading.prefix!r}" for reading in fitting)
        raise CheckpointError(
            f"{path} has weights that fit the network in {len(fitting)} places. Say which you want, as in "
            f"load_checkpoint(network, path, key=..., prefix=...):{listed}"
        )
    return fitting[0]


def find_entries(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the key and the weights of each state dict or network in `content`, which is one itself or has some."""
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        return
    if depth == 0 or any(isinstance(value, torch.Tensor) for value in content.values()):
        yield key, {str(name): value for name, value in content.items()}
    if depth < DEEPEST:
        for name, value in content.items():
            yield from find_entries(value, f"{key}.{name}" if key else str(name), depth + 1)


def readings_in(
    entries: Mapping[str, Mapping[str, Any]],
    expected: Mapping[str, torch.Tensor],
    prefix: str | None,
    unwrap: bool = False,
) -> Iterator[Reading]:
    """Yield the readings of each entry: the names as they are, and after each prefix of an expected name."""
    for key, entry in entries.items():
        weights = {without_wrappers(name): value for name, value in entry.items()} if unwrap else entry
        if unwrap and (len(weights) < len(entry) or weights.keys() == entry.keys()):
            continue
        for found in find_prefixes(weights, expected) if prefix is None else [prefix]:
            after = {name.removeprefix(found): value for name, value in weights.items() if name.startswith(found)}
            yield Reading(key, found, after, len(weights) - len(after), unwrap)


def find_prefixes(names: Iterable[str], expected: Mapping[str, Any]) -> list[str]:
    """Return what is before the names of `expected` in `names`, up to a dot; the first is always ""."""
    found = {"": None}
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts)):
            if ".".join(parts[length:]) in expected:
                found[".".join(parts[:length]) + "."] = None
    return list(found)


def without_wrappers(name: str) -> str:
    """Return the name of a weight without the parts that wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def same_weights(one: Reading, other: Reading) -> bool:
    """Return whether two readings have the same values."""
    return one.weights.keys() == other.weights.keys() and all(
        value is other.weights[name] or torch.equal(value, other.weights[name]) for name, value in one.weights.items()
    )
