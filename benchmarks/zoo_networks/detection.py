"""Declare networks that find things in pictures or read them, written here."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.zoo_networks.layers import Transposed, conv, mlp


class Pyramid(nn.Module):
    """Finds objects on two levels of a feature pyramid: classes, boxes and centres (Tian et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(conv(3, 16, 3, 2), conv(16, 16, 3, 2)), conv(16, 32, 3, 2)
        self.side1, self.side2 = nn.Conv2d(16, 16, 1), nn.Conv2d(32, 16, 1)
        self.classes, self.boxes, self.centres = (nn.Conv2d(16, out, 3, padding=1) for out in (5, 4, 1))

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.first(picture)
        coarse = self.side2(self.second(fine))
        fine = self.side1(fine) + F.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        scores = [(self.classes(x).sigmoid() * self.centres(x).sigmoid()).flatten(2) for x in (fine, coarse)]
        boxes = [self.boxes(x).exp().flatten(2) * stride for x, stride in ((fine, 4), (coarse, 8))]
        return torch.cat(scores, 2).transpose(1, 2), torch.cat(boxes, 2).transpose(1, 2)


class Anchors(nn.Module):
    """Finds objects with one grid of anchors, and decodes and keeps the ten best boxes (SSD, Liu et al., 2016)."""

    def __init__(self, size: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 32, 3, 2))
        self.classes, self.boxes = nn.Conv2d(32, 3 * 4, 3, padding=1), nn.Conv2d(32, 3 * 4, 3, padding=1)
        grid = (
            torch.stack(torch.meshgrid(torch.arange(size // 8), torch.arange(size // 8), indexing="ij"), -1) * 8.0 + 4
        )
        sides = torch.tensor([8.0, 16.0, 32.0])
        self.register_buffer("centres", grid.reshape(-1, 1, 2).expand(-1, 3, -1).reshape(-1, 2))
        self.register_buffer("sides", sides.repeat(len(grid.reshape(-1, 2)))[:, None])

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.body(picture)
        scores = self.classes(features).permute(0, 2, 3, 1).reshape(len(picture), -1, 4).softmax(-1)
        moves = self.boxes(features).permute(0, 2, 3, 1).reshape(len(picture), -1, 4)
        centres, half = self.centres + moves[..., :2] * self.sides, moves[..., 2:].exp() * self.sides / 2
        best, labels = scores[..., 1:].max(-1)
        best, order = best.topk(10, 1)
        boxes = torch.cat([centres - half, centres + half], -1).gather(1, order[..., None].expand(-1, -1, 4))
        return boxes, best, labels.gather(1, order)


class CenterNet(nn.Module):
    """Finds objects as peaks of a map of centres (Zhou et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), up, nn.BatchNorm2d(16), nn.ReLU())
        self.heat, self.size = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 2, 1)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(picture)
        heat = self.heat(features).sigmoid()
        return heat * (F.max_pool2d(heat, 3, 1, 1) == heat), self.size(features)


class Queries(nn.Module):
    """Finds objects by learned queries to a transformer (DETR, Carion et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, 3, 4), conv(16, 32, 3, 4))
        self.rows, self.columns = nn.Parameter(torch.rand(10, 16)), nn.Parameter(torch.rand(10, 16))
        self.queries, self.transformer = (
            nn.Parameter(torch.rand(6, 32)),
            nn.Transformer(32, 4, 1, 1, 64, batch_first=True),
        )
        self.classes, self.boxes = nn.Linear(32, 5), mlp(32, 32, 4)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(picture)
        height, width = features.shape[-2:]
        rows, columns = self.rows[:height, None].expand(-1, width, -1), self.columns[:width].expand(height, -1, -1)
        tokens = features.flatten(2).transpose(1, 2) + torch.cat([rows, columns], -1).flatten(0, 1)
        found = self.transformer(tokens, self.queries.expand(len(picture), -1, -1))
        return self.classes(found), self.boxes(found).sigmoid()


class Keypoints(nn.Module):
    """Finds points of a body as the mean place of a softmax over a map (Sun et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 16, 3, 2), nn.Conv2d(16, 5, 1))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        maps = self.body(picture)
        weights = maps.flatten(2).softmax(2).view_as(maps)
        rows, columns = (torch.linspace(-1, 1, size).to(maps.dtype) for size in maps.shape[2:])
        return torch.stack([(weights.sum(2) * columns).sum(2), (weights.sum(3) * rows).sum(2)], 2)


class Crnn(nn.Module):
    """Reads a line of text: convolutions and LSTMs over its columns (Shi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        pools = [nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d((2, 1)), nn.MaxPool2d((4, 1))]
        widths = [(1, 8), (8, 16), (16, 24), (24, 32)]
        layers = [layer for width, pool in zip(widths, pools, strict=True) for layer in (conv(*width), pool)]
        self.body, self.recurrent = nn.Sequential(*layers), nn.LSTM(32, 24, 2, bidirectional=True)
        self.head = nn.Linear(48, 30)

    def forward(self, line: torch.Tensor) -> torch.Tensor:
        columns = self.body(line).squeeze(2).permute(2, 0, 1)
        return self.head(self.recurrent(columns)[0]).log_softmax(2).transpose(0, 1)


class Binarized(nn.Module):
    """Finds text by a probability and a threshold for each pixel (DB, Liao et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 16))
        self.probability, self.threshold = (
            nn.Sequential(conv(16, 8), nn.ConvTranspose2d(8, 1, 2, 2), nn.Sigmoid()) for _ in range(2)
        )

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(picture)
        probability, threshold = self.probability(features), self.threshold(features)
        return probability, 1 / (1 + torch.exp(-50 * (probability - threshold)))


class Rectified(nn.Module):
    """Reads a word that it straightens first with a spatial transformer (Jaderberg et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(conv(1, 8, 3, 2), nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), nn.Linear(128, 6))
        self.body = nn.Sequential(conv(1, 16, 3, 2), conv(16, 32, 3, 2), nn.AdaptiveAvgPool2d((1, 12)), nn.Flatten(2))
        self.head = Transposed(nn.Linear(12, 12))
        self.letters = nn.Linear(32, 30)

    def forward(self, word: torch.Tensor) -> torch.Tensor:
        theta = self.where(word).view(-1, 2, 3) / 10 + torch.eye(2, 3)
        grid = F.affine_grid(theta, [len(word), 1, 32, 96], align_corners=False)
        columns = self.body(F.grid_sample(word, grid, align_corners=False)).transpose(1, 2)
        return self.letters(self.head(columns))
