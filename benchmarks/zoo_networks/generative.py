"""Declare networks that make or code pictures and vectors, written here."""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.zoo_networks.layers import Residual, conv, mlp


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
        self.first, self.second = nn.Conv2d(1, 16, 5, padding=2), nn.Conv2d(16, 16, 5, padding=2)
        shown = torch.ones(5, 5)
        shown[2, 2:], shown[3:] = 0, 0
        self.shown: torch.Tensor
        self.register_buffer("shown", shown)
        self.head = nn.Conv2d(16, 32, 1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.second):
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
