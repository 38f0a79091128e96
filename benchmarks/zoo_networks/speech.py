"""Declare networks of speech and sound, written here."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.zoo_networks.layers import Residual, Transposed, causal, conv


class DeepSpeech(nn.Module):
    """Maps spectrograms to letters: convolutions, GRUs, and a log softmax (Amodei et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(conv(1, 8, 3, 2), conv(8, 8))
        self.recurrent = nn.GRU(8 * 20, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 29)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        features = self.front(mel[:, None]).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.recurrent(features)[0]).log_softmax(-1)


class ConformerBlock(nn.Module):
    """Is one block of a Conformer (Gulati et al., 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.feed1, self.feed2 = (feed_forward(width) for _ in range(2))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.convolution = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1),
            nn.GLU(1),
            nn.Conv1d(width, width, 7, padding=3, groups=width),
            nn.BatchNorm1d(width),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, x: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        x = x + self.feed1(x) / 2
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, key_padding_mask=padded, need_weights=False)[0]
        x = x + self.convolution(self.norm2(x).transpose(1, 2)).transpose(1, 2)
        return self.norm3(x + self.feed2(x) / 2)


def feed_forward(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))


class Conformer(nn.Module):
    """Maps padded spectrograms to letters with Conformer blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(40, 32)
        self.blocks = nn.ModuleList(ConformerBlock(32) for _ in range(2))
        self.head = nn.Linear(32, 29)

    def forward(self, mel: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        x = self.front(mel.transpose(1, 2))
        padded = torch.arange(x.shape[1], device=x.device) >= length
        for block in self.blocks:
            x = block(x, padded)
        return self.head(x)


def quartznet() -> nn.Module:
    """Return a QuartzNet (Kriman et al., 2020): separable convolutions over time."""

    def separable(channels: int, out: int, width: int, stride: int = 1) -> nn.Sequential:
        depthwise = nn.Conv1d(channels, channels, width, stride, width // 2, groups=channels, bias=False)
        return nn.Sequential(depthwise, nn.Conv1d(channels, out, 1, bias=False), nn.BatchNorm1d(out), nn.ReLU())

    blocks = [Residual(separable(32, 32, 11), separable(32, 32, 11)) for _ in range(2)]
    return nn.Sequential(separable(40, 32, 11, 2), *blocks, nn.Conv1d(32, 29, 1), nn.LogSoftmax(1))


class Speaker(nn.Module):
    """Embeds a speaker: dilated convolutions, and attentive mean and deviation over time (Desplanques et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv1d(40, 32, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(32)]
        blocks = [Residual(nn.Conv1d(32, 32, 3, 1, step, step), nn.ReLU(), Squeeze(32)) for step in (2, 3)]
        self.body = nn.Sequential(*layers, *blocks)
        self.attention = nn.Sequential(nn.Conv1d(96, 16, 1), nn.Tanh(), nn.Conv1d(16, 32, 1))
        self.head = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 24))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.body(mel)
        mean, deviation = x.mean(2, keepdim=True), (x.var(2, keepdim=True, unbiased=False) + 1e-4).sqrt()
        weights = self.attention(torch.cat([x, mean.expand_as(x), deviation.expand_as(x)], 1)).softmax(2)
        mean = (x * weights).sum(2)
        deviation = ((x**2 * weights).sum(2) - mean**2).clamp(min=1e-4).sqrt()
        return F.normalize(self.head(torch.cat([mean, deviation], 1)))


class Squeeze(nn.Module):
    """Scales channels by what their means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv1d(channels, 8, 1), nn.ReLU(), nn.Conv1d(8, channels, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x.mean(2, keepdim=True))


class ConvTasNet(nn.Module):
    """Separates two speakers in a waveform (Luo and Mesgarani, 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 32, 16, 8, bias=False)
        blocks = [self.block(2**level) for level in range(3)]
        self.mask = nn.Sequential(nn.GroupNorm(1, 32), *blocks, nn.PReLU(), nn.Conv1d(32, 64, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(32, 1, 16, 8, bias=False)

    def block(self, dilation: int) -> nn.Module:
        depthwise = nn.Conv1d(48, 48, 3, padding=dilation, dilation=dilation, groups=48)
        return Residual(
            nn.Conv1d(32, 48, 1), nn.PReLU(), nn.GroupNorm(1, 48), depthwise, nn.PReLU(), nn.Conv1d(48, 32, 1)
        )

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        code = self.encoder(wave[:, None]).relu()
        masked = self.mask(code).unflatten(1, (2, 32)) * code[:, None]
        return self.decoder(masked.flatten(0, 1)).unflatten(0, (-1, 2))[:, :, 0]


class Spectrogram(nn.Module):
    """Classifies a waveform by its own log mel spectrogram, from a short-time Fourier transform."""

    def __init__(self) -> None:
        super().__init__()
        self.window: torch.Tensor
        self.register_buffer("window", torch.hann_window(64))
        self.mel = nn.Linear(33, 16, bias=False)
        self.head = nn.Sequential(conv(1, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(wave, 64, 32, window=self.window, center=False, return_complex=True).abs()
        return self.head((self.mel(spectrum.transpose(1, 2)).relu() + 1e-3).log()[:, None])


class HifiGan(nn.Module):
    """Makes a waveform of a spectrogram: transposed convolutions with weight norm (Kong et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        weight_norm = nn.utils.parametrizations.weight_norm
        layers: list[nn.Module] = [weight_norm(nn.Conv1d(40, 32, 7, padding=3))]
        for channels in (32, 16):
            layers += [nn.LeakyReLU(0.1), weight_norm(nn.ConvTranspose1d(channels, channels // 2, 8, 4, 2))]
            layers.append(
                Residual(nn.LeakyReLU(0.1), weight_norm(nn.Conv1d(channels // 2, channels // 2, 3, padding=1)))
            )
        self.body = nn.Sequential(*layers, nn.LeakyReLU(0.1), nn.Conv1d(8, 1, 7, padding=3), nn.Tanh())

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return self.body(mel)


class FastSpeech(nn.Module):
    """Makes a spectrogram of phonemes, with pitch and a duration of each (Ren et al., 2021), not yet repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 32)
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.duration, self.pitch = (self.predictor() for _ in range(2))
        self.head = nn.Linear(32, 20)

    def predictor(self) -> nn.Module:
        return nn.Sequential(Transposed(nn.Conv1d(32, 16, 3, padding=1)), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 1))

    def forward(self, phonemes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.encoder(self.embedding(phonemes))
        pitch = self.pitch(x)
        return self.head(x + pitch), self.duration(x)[..., 0].exp(), pitch[..., 0]


class WaveNet(nn.Module):
    """Predicts the next sample of a waveform with gated dilated convolutions (van den Oord et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.front = causal(1, 16, 2)
        self.gates = nn.ModuleList(causal(16, 32, 2, 2**level) for level in range(4))
        self.mixes = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 32, 1), nn.ReLU(), nn.Conv1d(32, 64, 1))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        x, total = self.front(wave[:, None]), torch.zeros(())
        for gate, mix in zip(self.gates, self.mixes, strict=True):
            new, share = gate(x).chunk(2, 1)
            step = mix(new.tanh() * share.sigmoid())
            x, total = x + step, total + step
        return self.head(total)


class RnnTransducer(nn.Module):
    """Joins an acoustic encoder and a network of letters (Graves, 2012) on a grid of frames and letters."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(40, 24, batch_first=True)
        self.embedding, self.prediction = nn.Embedding(29, 16), nn.LSTM(16, 24, batch_first=True)
        self.head = nn.Linear(24, 29)

    def forward(self, mel: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
        frames, _ = self.encoder(mel.transpose(1, 2))
        texts, _ = self.prediction(self.embedding(letters))
        return self.head((frames[:, :, None] + texts[:, None]).tanh()).log_softmax(-1)


class Keywords(nn.Module):
    """Spots keywords with separable convolutions (Zhang et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(conv(16, 16, 3, groups=16), conv(16, 16, 1)) for _ in range(3)]
        self.body = nn.Sequential(conv(1, 16, 5, 2), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return self.body(mel[:, None])


class Denoiser(nn.Module):
    """Masks noise in a magnitude spectrogram with a causal GRU (RNNoise and its kind)."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.recurrent, self.head = (
            nn.Linear(40, 32),
            nn.GRU(32, 32, 2, batch_first=True),
            nn.Linear(32, 40),
        )

    def forward(self, magnitudes: torch.Tensor) -> torch.Tensor:
        steps = magnitudes.transpose(1, 2)
        return (steps * self.head(self.recurrent(self.front(steps).tanh())[0]).sigmoid()).transpose(1, 2)
