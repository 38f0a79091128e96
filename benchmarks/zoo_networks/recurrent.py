"""Declare recurrent networks, convolutions over time and networks of texts, written here."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.zoo_networks.layers import Residual, Summary, causal


class Recurrent(nn.Module):
    """Embeds tokens, runs a recurrent layer, and classifies each token or the last state."""

    def __init__(self, kind: Callable[..., nn.Module], tagger: bool = False, **options: Any) -> None:
        super().__init__()
        self.tagger = tagger
        self.embedding = nn.Embedding(50, 24)
        self.recurrent = kind(24, 32, batch_first=True, **options)
        self.head = nn.Linear(64 if options.get("bidirectional") else 32, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(self.embedding(tokens))
        return self.head(states if self.tagger else states.mean(1))


class Packed(nn.Module):
    """Runs an LSTM over packed sequences of other lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(12, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 6)

    def forward(self, steps: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(steps, length.flatten(), batch_first=True, enforce_sorted=False)
        states, _ = self.recurrent(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=steps.shape[1])
        return self.head(padded.sum(1))


class Streaming(nn.Module):
    """Runs an LSTM from states that are given, and returns the next ones: one call of a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(12, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 6)

    def forward(self, steps: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states, (hidden, cell) = self.recurrent(steps, (hidden, cell))
        return self.head(states), hidden, cell


class CellLoop(nn.Module):
    """Runs a cell step by step in a Python loop over a fixed number of steps."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.cell = kind(12, 24)
        self.head = nn.Linear(24, 6)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        state: Any = None
        for step in steps.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class ConvLstm(nn.Module):
    """Runs a convolutional LSTM (Shi et al., 2015) over a fixed number of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(3 + 8, 4 * 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        hidden = cell = pictures.new_zeros(pictures.shape[0], 8, *pictures.shape[3:])
        for picture in pictures.unbind(1):
            take, forget, give, new = self.gates(torch.cat([picture, hidden], 1)).chunk(4, 1)
            cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
            hidden = give.sigmoid() * cell.tanh()
        return self.head(hidden)


class Translator(nn.Module):
    """Translates with a GRU, additive attention (Bahdanau et al., 2015) and teacher forcing."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.encoder = nn.GRU(24, 16, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(24, 32, batch_first=True)
        self.keys, self.queries, self.score = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 1)
        self.head = nn.Linear(64, 50)

    def forward(self, source: torch.Tensor, target: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        memory, _ = self.encoder(self.embedding(source))
        states, _ = self.decoder(self.embedding(target))
        energy = self.score((self.keys(memory)[:, None] + self.queries(states)[:, :, None]).tanh())[..., 0]
        weights = energy.masked_fill(present[:, None] == 0, -torch.inf).softmax(-1)
        return self.head(torch.cat([states, weights @ memory], -1))


class TemporalConvolutions(nn.Module):
    """Runs dilated causal convolutions (Bai et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Residual(causal(16, 16, 3, 2**level), nn.ReLU(), causal(16, 16, 3, 2**level)) for level in range(3)]
        self.body = nn.Sequential(nn.Conv1d(6, 16, 1), *blocks)
        self.head = nn.Linear(16, 5)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(steps)[..., -1])


class TextConvolutions(nn.Module):
    """Classifies a text with convolutions of three widths (Kim, 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(24, 16, width, padding=width // 2) for width in (3, 5, 7))
        self.head = nn.Linear(48, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        text = self.embedding(tokens).transpose(1, 2)
        return self.head(torch.cat([layer(text).relu().amax(2) for layer in self.convolutions], 1))


class TransformerText(nn.Module):
    """Classifies a padded text with torch's own TransformerEncoder."""

    def __init__(self, norm_first: bool, activation: str) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(50, 32), nn.Embedding(64, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, activation=activation, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        text = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        states = self.encoder(text, src_key_padding_mask=~present)
        weights = present.unsqueeze(-1).to(states.dtype)
        return self.head((states * weights).sum(1) / weights.sum(1))


class TransformerTranslator(nn.Module):
    """Translates with torch's own Transformer, a causal mask and teacher forcing."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.transformer = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
        self.head = nn.Linear(32, 50)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        causal_mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        states = self.transformer(self.embedding(source), self.embedding(target), tgt_mask=causal_mask)
        return self.head(states)


class GptBlock(nn.Module):
    """Attends to earlier tokens with rotary positions, and feeds each token forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.qkv, self.out = (
            nn.RMSNorm(32),
            nn.RMSNorm(32),
            nn.Linear(32, 96),
            nn.Linear(32, 32),
        )
        self.ffn = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32))

    def forward(self, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.norm1(states)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in parts)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.out(attended.transpose(1, 2).flatten(2))
        return states + self.ffn(self.norm2(states))


class Gpt(nn.Module):
    """Predicts the next token: a small GPT with rotary positions, RMS norms and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(64, 32), nn.RMSNorm(32)
        self.blocks = nn.ModuleList(GptBlock() for _ in range(2))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states = self.embedding(tokens)
        angle = torch.arange(tokens.shape[1])[:, None] / 10000 ** (torch.arange(0, 8, 2) / 8)
        cos, sin = angle.cos().to(states.dtype), angle.sin().to(states.dtype)
        for block in self.blocks:
            states = block(states, cos, sin)
        return self.norm(states) @ self.embedding.weight.T


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn pairs of channels by an angle that grows with the position (Su et al., 2021)."""
    first, second = heads.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class SiameseText(nn.Module):
    """Compares two texts by the cosine of their averaged embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Embedding(50, 24), Summary(nn.Linear(24, 24)))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return F.cosine_similarity(self.body(left), self.body(right))


class Crf(nn.Module):
    """Tags with a BiGRU and the scores of a linear-chain CRF's forward pass over fixed steps."""

    def __init__(self) -> None:
        super().__init__()
        self.tagger = Recurrent(nn.GRU, tagger=True, bidirectional=True)
        self.moves = nn.Parameter(torch.randn(8, 8))

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.tagger(tokens)
        total = scores[:, 0]
        for step in range(1, 10):
            total = (total[:, :, None] + self.moves + scores[:, step, None]).logsumexp(1)
        return total.logsumexp(1), scores
