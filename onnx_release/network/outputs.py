"""Take a network's outputs by the names that the spec declares."""

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_release.core.errors import NetworkError


def take_outputs(given: Mapping[str, Any], names: Sequence[str], network: str = "the network") -> tuple[Any, ...]:
    """Return the outputs called `names`, in that order. Raises NetworkError if one is missing."""
    missing = [name for name in names if name not in given]
    if missing:
        raise NetworkError(
            f"{network} has no output {', '.join(missing)}, which spec.yaml declares; it gives {', '.join(given)}"
        )
    return tuple(given[name] for name in names)
