"""A small convolutional network for 8 by 8 handwritten digits. `train.py` beside it makes its weights."""

from pathlib import Path

import torch
from torch import nn

from onnx_release.checkpoint import load_checkpoint

CHECKPOINT = "weights.pth"


class DigitsCNN(nn.Module):
    """Maps float32 images [batch, 1, 8, 8] in 0..1 to logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.25), nn.Linear(32 * 4 * 4, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def build(raw: Path) -> nn.Module:
    """Return the trained network, in eval mode."""
    network = DigitsCNN()
    load_checkpoint(network, raw / CHECKPOINT)
    return network.eval()
