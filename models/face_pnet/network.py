"""P-Net, the first of MTCNN's three networks, with the names of facenet-pytorch's checkpoint, which loads strictly.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", 2016, figure 2. It
looks at every square of 12 pixels, two pixels apart. The checkpoint is `pnet.pt`.
"""

from pathlib import Path

import torch
from torch import nn

from onnx_release.checkpoint import load_checkpoint

CHECKPOINT = "pnet.pt"


class PNet(nn.Module):
    """Maps float32 images [batch, 3, height, width], normalised, to two maps [batch, ., rows, columns].

    The first has, for each square, by what share of its side x1, y1, x2 and y2 must move; the second has the
    probabilities of no face and of a face.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = nn.PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        return self.conv4_2(x), self.conv4_1(x).softmax(1)


def build(raw: Path) -> nn.Module:
    """Return the network with the checkpoint in `raw` loaded, in eval mode."""
    network = PNet()
    load_checkpoint(network, raw / CHECKPOINT)
    return network.eval()
