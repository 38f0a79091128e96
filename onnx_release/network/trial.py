"""Run a network on its example inputs with some of their axes at other sizes."""

from collections.abc import Mapping
from typing import Any

import torch

from onnx_release.core.errors import NetworkError
from onnx_release.core.plain_text import first_few
from onnx_release.network.example_arguments import Arguments, flatten

Axis = tuple[str, int]  # a tensor's path and the position of one of its axes
Shapes = dict[str, tuple[int, ...]]


class Trial:
    """A network, its example inputs, and the outputs that it gives for them.

    Raises NetworkError if the network fails on the example inputs or returns no tensor.
    """

    def __init__(self, network: torch.nn.Module, arguments: Arguments) -> None:
        self.network = network
        self.arguments = arguments
        self.inputs = arguments.tensors
        self.failure = ""
        outputs = self.run(self.inputs)
        if outputs is None:
            shapes = first_few([f"{name} {list(tensor.shape)}" for name, tensor in self.inputs.items()], 8)
            raise NetworkError(
                f"the network fails on its example inputs, {shapes or 'of which there are none'}: {self.failure}\n"
                "Give others with --input NAME=DTYPE[SIZE,SIZE...], one for each argument of forward()"
            )
        if not outputs:
            raise NetworkError("the network returns no tensor, so there is nothing to export")
        self.outputs = outputs

    def run(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
        """Return the outputs by their paths; None if the network fails, and `failure` says how."""
        try:
            with torch.inference_mode():
                return flatten(self.arguments.call(self.network, tensors), "")
        except Exception as cause:  # a network raises anything on sizes that it does not take
            self.failure = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
            return None

    def resized(self, sizes: Mapping[Axis, int]) -> dict[str, torch.Tensor]:
        """Return the example inputs with these axes at these sizes, their values repeated or cut."""
        tensors = dict(self.inputs)
        for (name, axis), size in sizes.items():
            tensor = tensors[name]
            tensors[name] = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
        return tensors

    def shapes(self, sizes: Mapping[Axis, int]) -> Shapes | None:
        """Return the shapes of the outputs at these sizes; None if the network fails there.

        It also fails by other outputs than at the example sizes, an empty one, and one that is no longer finite.
        """
        if any(size < 0 for size in sizes.values()):
            return None
        found = self.run(self.resized(sizes))
        if found is None or found.keys() != self.outputs.keys():
            return None
        for name, tensor in found.items():
            usual = self.outputs[name]
            if (tensor.dtype, tensor.ndim) != (usual.dtype, usual.ndim):
                return None
            if (not tensor.numel() and usual.numel()) or (is_finite(usual) and not is_finite(tensor)):
                return None
        return shapes_of(found)

    def accepts(self, sizes: Mapping[Axis, int]) -> bool:
        """Return whether the network runs at these sizes."""
        return self.shapes(sizes) is not None


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether no value is NaN or infinite."""
    return bool(torch.isfinite(tensor).all())


def shapes_of(tensors: Mapping[str, Any]) -> Shapes:
    """Return the shape of each tensor by its path."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
