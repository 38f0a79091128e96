"""MobileNetV2 for 1,000 ImageNet classes, with the names of torchvision's checkpoint, which loads strictly.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2. The
checkpoint is torchvision's `mobilenet_v2-b0353104.pth`.
"""

from pathlib import Path

import torch
from torch import nn

from onnx_release.checkpoint import load_checkpoint

CHECKPOINT = "mobilenet_v2-b0353104.pth"

# Table 2 of the paper, a row for each group of blocks: expansion, output channels, blocks, stride of the first.
GROUPS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a padded convolution without bias, with batch normalisation and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expands, filters each channel by itself and projects; adds the input if the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([convolution(inputs, hidden, kernel=1)] if expansion > 1 else []),
            convolution(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Maps float32 images [batch, 3, height, width], normalised, to logits [batch, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, 32, kernel=3, stride=2)]
        channels = 32
        for expansion, outputs, blocks, stride in GROUPS:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        layers.append(convolution(channels, 1280, kernel=1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def build(raw: Path) -> nn.Module:
    """Return the network with the checkpoint in `raw` loaded, in eval mode."""
    network = MobileNetV2()
    load_checkpoint(network, raw / CHECKPOINT)
    return network.eval()
