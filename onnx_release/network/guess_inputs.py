"""Guess the inputs of a network with one argument from the layer that comes first in it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from onnx_release.network.example_arguments import Arguments, flatten, name_arguments, parameter_names

SIDES = (64, 224)  # pixels: the first that the network takes
LENGTH = 16  # of a sequence


def guess_arguments(network: nn.Module) -> Arguments | None:
    """Return example inputs that the network takes, guessed from its first layer with weights; None without any."""
    names = parameter_names(network)
    if names is None or not names:
        return None
    for example in guesses(network):
        arguments = name_arguments(network, example)
        try:
            with torch.inference_mode():
                result = arguments.call(network, arguments.tensors)
        except Exception:  # a network raises anything on inputs that it does not take
            continue
        if flatten(result):
            return arguments
    return None


def guesses(network: nn.Module) -> Iterator[torch.Tensor]:
    """Yield inputs that fit the first layer with weights, each with a batch of 2, the likeliest first."""
    modules: Iterator[Any] = network.modules()
    for layer in modules:
        if not list(layer.parameters(recurse=False)):
            continue
        kind = getattr(layer, "original_name", type(layer).__name__)  # the modules of TorchScript have one class
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) or kind in ("Conv1d", "Conv2d", "Conv3d"):
            axes = layer.weight.ndim - 2
            channels = getattr(layer, "in_channels", layer.weight.shape[1])  # TorchScript keeps only the weights
            for side in SIDES if axes < 3 else (16, 32):
                yield torch.randn(2, channels, *[side] * axes)
        elif isinstance(layer, nn.Linear) or kind == "Linear":
            yield torch.randn(2, layer.weight.shape[1])
            yield torch.randn(2, LENGTH, layer.weight.shape[1])
        elif isinstance(layer, nn.Embedding) or kind == "Embedding":
            yield torch.arange(2 * LENGTH).reshape(2, LENGTH) % layer.weight.shape[0]
        elif isinstance(layer, nn.RNNBase):
            yield torch.randn(2, LENGTH, layer.input_size)
        return
