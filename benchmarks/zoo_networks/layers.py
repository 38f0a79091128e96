"""Give the layers that several networks written here share."""

from itertools import pairwise

import torch
from torch import nn


class Residual(nn.Sequential):
    """Adds its input to what its layers make."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]


class Summary(nn.Module):
    """Averages over the steps and applies a layer."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean(1))


class Transposed(nn.Module):
    """Applies a layer to the last two axes exchanged, as a Linear or a LayerNorm to channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


def causal(channels: int, out: int, width: int, dilation: int = 1) -> nn.Module:
    """Return a convolution over time that sees no later step."""
    return nn.Sequential(
        nn.ConstantPad1d((dilation * (width - 1), 0), 0), nn.Conv1d(channels, out, width, 1, 0, dilation)
    )


def conv(channels: int, out: int, width: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return a convolution over pictures with batch norm and ReLU."""
    layer = nn.Conv2d(channels, out, width, stride, width // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU())


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return linear layers of these widths, with an activation between two of them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])
