"""Declare networks that make pictures, find things in them or read them, written here."""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.zoo_networks.layers import Residual, Transposed, conv, mlp


class Autoencoder(nn.Module):
    """Codes and decodes a picture: the mean of a variational autoencoder, and the log of its variance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), nn.Flatten(), nn.Linear(2048, 16))
        self.grow = nn.Linear(8, 512)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, log_variance = self.encoder(picture).chunk(2, 1)
        return self.decoder(self.grow(mean).view(-1, 8, 8, 8)), mean, log_variance


class VectorQuantized(nn.Module):
    """Codes a picture by the nearest vectors of a table, and decodes them (van den Oord et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.table = nn.Sequential(conv(3, 16, 3, 2), nn.Conv2d(16, 8, 1)), nn.Embedding(32, 8)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        code = self.encoder(picture).permute(0, 2, 3, 1)
        distance = ((code[..., None, :] - self.table.weight) ** 2).sum(-1)
        return self.decoder(self.table(distance.argmin(-1)).permute(0, 3, 1, 2))


def dcgan() -> nn.Module:
    """Return the generator of DCGAN (Radford et al., 2016)."""

    def grow(channels: int, out: int, stride: int, padding: int) -> list[nn.Module]:
        layer = nn.ConvTranspose2d(channels, out, 4, stride, padding, bias=False)
        return [layer, nn.BatchNorm2d(out), nn.ReLU()]

    layers = [*grow(16, 32, 1, 0), *grow(32, 16, 2, 1), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(nn.Unflatten(1, (16, 1, 1)), *layers)


class StyleGan(nn.Module):
    """Makes a picture with convolutions whose weights a style modulates, for each item (Karras et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = mlp(16, 32, 32, activation=lambda: nn.LeakyReLU(0.2))  # type: ignore[arg-type]
        self.start = nn.Parameter(torch.randn(1, 16, 4, 4))
        self.styles = nn.ModuleList(nn.Linear(32, 16) for _ in range(2))
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(16, 16, 3, 3) / 12) for _ in range(2))
        self.to_rgb = nn.Conv2d(16, 3, 1)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        style = self.mapping(noise / (noise.square().mean(1, keepdim=True) + 1e-8).sqrt())
        x = self.start.expand(len(noise), -1, -1, -1)
        for layer, weight in zip(self.styles, self.weights, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            modulated = weight * (layer(style) + 1)[:, None, :, None, None]
            modulated = modulated * (modulated.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
            size = x.shape[2:]
            x = F.conv2d(x.reshape(1, -1, *size), modulated.flatten(0, 1), padding=1, groups=len(noise))
            x = F.leaky_relu(x.reshape(-1, 16, *size), 0.2)
        return self.to_rgb(x)


class DiffusionUNet(nn.Module):
    """Predicts the noise in a picture at a time step: a small U-Net with attention (Ho et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.time = mlp(32, 32, 32, activation=nn.SiLU)
        self.front, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, 1)
        self.norm, self.attention = nn.GroupNorm(8, 32), nn.MultiheadAttention(32, 4, batch_first=True)
        self.up, self.head = (
            nn.Conv2d(48, 16, 3, padding=1),
            nn.Sequential(nn.GroupNorm(8, 16), nn.SiLU(), nn.Conv2d(16, 3, 1)),
        )

    def forward(self, picture: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        angle = step.to(picture.dtype) * torch.exp(torch.arange(16) * (-math.log(10000) / 16)).to(picture.dtype)
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
        first = self.front(picture)
        x = F.silu(self.norm(self.down(first) + time[:, :, None, None]))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        x = F.interpolate(tokens.transpose(1, 2).view_as(x), scale_factor=2)
        return self.head(F.silu(self.up(torch.cat([x, first], 1))))


class RealNvp(nn.Module):
    """Maps a vector to noise and back by affine couplings, with the log of the volume (Dinh et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(mlp(8, 32, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        volume = torch.zeros(())
        for coupling in self.couplings:
            left, right = x.chunk(2, 1)
            scale, shift = coupling(left).chunk(2, 1)
            x, volume = torch.cat([right * scale.tanh().exp() + shift, left], 1), volume + scale.tanh().sum(1)
        return x, volume


class PixelCnn(nn.Module):
    """Predicts each pixel from those before, with masked convolutions (van den Oord et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 16, 5, padding=2), nn.Conv2d(16, 16, 5, padding=2)])
        shown = torch.ones(5, 5)
        shown[2, 2:], shown[3:] = 0, 0
        self.register_buffer("shown", shown)
        self.head = nn.Conv2d(16, 32, 1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            picture = F.conv2d(picture, layer.weight * self.shown, layer.bias, padding=2).relu()
        return self.head(picture)


class Radiance(nn.Module):
    """Maps points and directions to colour and density, by their Fourier features (NeRF, Mildenhall et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.density, self.colour = mlp(39, 64, 64), nn.Linear(64, 1), mlp(67, 32, 3)

    def forward(self, points: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        angle = points[..., None] * (2.0 ** torch.arange(6)).to(points.dtype)
        features = self.body(torch.cat([points, angle.sin().flatten(-2), angle.cos().flatten(-2)], -1)).relu()
        colour = self.colour(torch.cat([features, F.normalize(directions, dim=-1)], -1)).sigmoid()
        return torch.cat([colour, F.softplus(self.density(features))], -1)


class Translation(nn.Module):
    """Turns a picture into one of another style, with instance norm and reflected edges (Zhu et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        block = [nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16), nn.ReLU()]
        front = [nn.ReflectionPad2d(3), nn.Conv2d(3, 8, 7), nn.InstanceNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1)]
        self.body = nn.Sequential(*front, Residual(*block), nn.ConvTranspose2d(16, 3, 3, 2, 1, 1), nn.Tanh())

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.body(picture)


def super_resolution() -> nn.Module:
    """Return a network that enlarges a picture three times with a pixel shuffle (Shi et al., 2016)."""
    layers = [nn.Conv2d(3, 16, 5, padding=2), nn.Tanh(), Residual(nn.Conv2d(16, 16, 3, padding=1), nn.PReLU())]
    return nn.Sequential(*layers, nn.Conv2d(16, 27, 3, padding=1), nn.PixelShuffle(3))


class Pyramid(nn.Module):
    """Finds objects on two levels of a feature pyramid: classes, boxes as distances, and centres (Tian et al., 2019)."""

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
