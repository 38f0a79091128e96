"""Build a network of the zoo with random weights of a fixed seed, and run it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree

from benchmarks.zoo_networks.catalogue import NETWORKS
from benchmarks.zoo_networks.declaration import Network
from onnx_release.network.outputs import OUT

SEED = 0


class FirstOutput(torch.nn.Module):
    """Gives the first output of a network that gives others for training."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        result = self.network(picture)
        while not isinstance(result, torch.Tensor):
            result = result[0]
        return result


def build(name: str) -> torch.nn.Module:
    """Return the network called `name` in eval mode. The same name gives the same weights."""
    declare_missing_operators()
    torch.manual_seed(SEED)
    network: torch.nn.Module = NETWORKS[name].build()
    fill_zeros(network)
    return network.float().eval()


def fill_zeros(network: torch.nn.Module) -> None:
    """Draw the parameters that are zero at first, since a trained network has none: else parts of it do nothing."""
    for parameter in network.parameters():
        if parameter.is_floating_point() and not parameter.any():
            torch.nn.init.normal_(parameter.data, std=0.02)


def declare_missing_operators() -> None:
    """Let torchvision be imported where its own operators cannot be loaded, as with a torch that has no GPU.

    No network of the zoo uses one. timm, open-clip and segmentation-models-pytorch import torchvision.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return  # the networks written here need none
    except RuntimeError:
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )


def run(network: torch.nn.Module, inputs: Mapping[str, np.ndarray]) -> Any:
    """Return what the network returns for these inputs by position; they are copied, so that it cannot change them."""
    with torch.inference_mode():
        return network(*(torch.from_numpy(array.copy()) for array in inputs.values()))


def named_outputs(declared: Network, result: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a result: of a mapping by name, those that are declared, else numbered in their order.

    A name that an input has too is declared with OUT at its end.
    """
    if isinstance(result, Mapping):
        names = declared.outputs or [name for name, value in result.items() if isinstance(value, torch.Tensor)]
        return {name: result[name.removesuffix(OUT)] for name in names}
    return {f"output_{number}": tensor for number, tensor in enumerate(tensors(result))}


def tensors(result: Any) -> list[torch.Tensor]:
    """Return all tensors of a nested result, in their order."""
    return [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
