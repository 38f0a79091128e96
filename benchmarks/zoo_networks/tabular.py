"""Declare networks of tables, clicks, time series, points and graphs, written here."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.zoo_networks.layers import Residual, mlp


class Columns(nn.Module):
    """Embeds categories by one table with an offset a column, and numbers by a vector each: [rows, columns, d]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offsets: torch.Tensor
        self.register_buffer("offsets", torch.arange(4) * 10)
        self.table = nn.Embedding(40, width)
        self.weight, self.bias = nn.Parameter(torch.randn(6, width)), nn.Parameter(torch.randn(6, width))

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        return torch.cat([numbers[..., None] * self.weight + self.bias, self.table(categories + self.offsets)], 1)


class OnNumbers(nn.Module):
    """Applies a network to numbers and one-hot categories."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat([numbers, F.one_hot(categories, 10).flatten(1).to(numbers.dtype)], 1))


def residual_mlp() -> nn.Module:
    """Return a ResNet for tables (Gorishniy et al., 2021)."""
    blocks = [Residual(nn.BatchNorm1d(32), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)) for _ in range(2)]
    return OnNumbers(nn.Sequential(nn.Linear(46, 32), *blocks, nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)))


class FtTransformer(nn.Module):
    """Classifies rows with a transformer over their columns (Gorishniy et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.columns, self.token = Columns(24), nn.Parameter(torch.randn(1, 1, 24))
        layer = nn.TransformerEncoderLayer(24, 4, 48, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(24), nn.ReLU(), nn.Linear(24, 3))

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        columns = self.columns(numbers, categories)
        tokens = torch.cat([self.token.expand(len(columns), -1, -1), columns], 1)
        return self.head(self.encoder(tokens)[:, 0])


class TabM(nn.Module):
    """Averages an ensemble of MLPs that share their weights up to scales (Gorishniy et al., 2025)."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.randn(8, 46))
        self.body = mlp(46, 32, 32)
        self.heads = nn.Parameter(torch.randn(8, 32, 3) / 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        members = self.body(x[:, None] * self.scales)
        return torch.einsum("bki,kio->bko", members, self.heads).softmax(-1).mean(1)


class DeepCross(nn.Module):
    """Multiplies columns with each other in cross layers (Wang et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = Columns(8)
        self.crosses = nn.ModuleList(nn.Linear(80, 80) for _ in range(2))
        self.head = mlp(80, 32, 1)

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        first = x = self.columns(numbers, categories).flatten(1)
        for cross in self.crosses:
            x = first * cross(x) + x
        return self.head(x).sigmoid()


class DeepFm(nn.Module):
    """Adds a factorization machine and an MLP (Guo et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.columns, self.linear, self.deep = Columns(8), Columns(1), mlp(80, 32, 1)

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        columns = self.columns(numbers, categories)
        pairs = (columns.sum(1) ** 2 - (columns**2).sum(1)).sum(1, keepdim=True) / 2
        first = self.linear(numbers, categories).sum(1)
        return (first + pairs + self.deep(columns.flatten(1))).sigmoid()


class Dlrm(nn.Module):
    """Crosses bags of categories by their products (Naumov et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(20, 8, mode=mode) for mode in ("sum", "mean"))
        self.bottom, self.top = mlp(6, 16, 8), mlp(11, 16, 1)
        self.pairs: torch.Tensor
        self.register_buffer("pairs", torch.tril_indices(3, 3, -1))

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        bottom = self.bottom(numbers)
        features = torch.stack([bottom, *(bag(categories) for bag in self.bags)], 1)
        products = (features @ features.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([bottom, products], 1)).sigmoid()


class TabNet(nn.Module):
    """Chooses columns in two steps by sparse attention (Arik and Pfister, 2021), with softmax for sparsemax."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(46)
        self.shared, self.attend = nn.Linear(46, 64), nn.ModuleList(nn.Linear(16, 46) for _ in range(2))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        prior, answer = torch.ones_like(x), torch.zeros(())
        kept = F.glu(self.shared(x))[:, 16:]
        for attend in self.attend:
            mask = (attend(kept) * prior).softmax(1)
            prior = prior * (1.3 - mask)
            decided, kept = F.glu(self.shared(mask * x)).chunk(2, 1)
            answer = answer + decided.relu()
        return self.head(answer)


class Trees(nn.Module):
    """Averages soft oblivious trees (Popov et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.choice, self.threshold = nn.Parameter(torch.randn(46, 16, 3)), nn.Parameter(torch.randn(16, 3))
        self.leaves = nn.Parameter(torch.randn(16, 8))
        self.paths: torch.Tensor
        self.register_buffer("paths", torch.tensor([[leaf >> level & 1 for level in range(3)] for leaf in range(8)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        right = (torch.einsum("bi,itd->btd", x, self.choice.softmax(0)) - self.threshold).sigmoid()[:, :, None]
        weights = torch.where(self.paths.bool(), right, 1 - right).prod(-1)
        return (weights * self.leaves).sum(-1).mean(1, keepdim=True)


class TwoTowers(nn.Module):
    """Scores a user's last items against a candidate with attention (Zhou et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.score, self.head = nn.Embedding(50, 16, padding_idx=0), mlp(64, 16, 1), mlp(32, 16, 1)

    def forward(self, history: torch.Tensor, item: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        past, wanted = self.table(history), self.table(item)
        wide = wanted.expand_as(past)
        score = self.score(torch.cat([past, wide, past - wide, past * wide], -1)).masked_fill(~present[..., None], -1e9)
        return self.head(torch.cat([(score.softmax(1) * past).sum(1), wanted[:, 0]], 1)).sigmoid()


class Series(nn.Module):
    """Forecasts by the sum of blocks that take what the ones before left (N-BEATS, Oreshkin et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(mlp(24, 32, 32, 24 + 6) for _ in range(3))

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        forecast = torch.zeros(())
        for block in self.blocks:
            seen, new = block(past).split([24, 6], 1)
            past, forecast = past - seen, forecast + new
        return forecast


class Decomposed(nn.Module):
    """Forecasts trend and season by a linear layer each (DLinear, Zeng et al., 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.season, self.trend = nn.Linear(24, 6), nn.Linear(24, 6)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        steps = past.transpose(1, 2)
        trend = F.avg_pool1d(F.pad(steps, (2, 2), mode="replicate"), 5, 1)
        return (self.season(steps - trend) + self.trend(trend)).transpose(1, 2)


class PointNet(nn.Module):
    """Classifies a cloud of points, turned by a matrix that it predicts (Qi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.turn_head = nn.Sequential(nn.Conv1d(3, 32, 1), nn.ReLU()), nn.Linear(32, 9)
        self.body = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1))
        self.head = mlp(64, 32, 5)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        matrix = self.turn_head(self.turn(points.transpose(1, 2)).amax(2)).view(-1, 3, 3) + torch.eye(3)
        return self.head(self.body(torch.bmm(points, matrix).transpose(1, 2)).amax(2))


class GraphConvolution(nn.Module):
    """Classifies the nodes of a graph from its adjacency matrix (Kipf and Welling, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, features: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        edges = edges + torch.eye(edges.shape[1])
        scale = edges.sum(2).rsqrt()
        edges = scale[:, :, None] * edges * scale[:, None]
        return edges @ self.second((edges @ self.first(features)).relu())


class GraphAttention(nn.Module):
    """Passes messages along the edges of a graph, softmax over each node's neighbours (Velickovic et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.left, self.right = nn.Linear(12, 16), nn.Linear(16, 1), nn.Linear(16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        x = self.project(features)
        score = F.leaky_relu(self.left(x) + self.right(x).transpose(1, 2), 0.2)
        linked = (edges > 0.5) | torch.eye(edges.shape[1], dtype=torch.bool)
        return self.head(F.elu(score.masked_fill(~linked, -torch.inf).softmax(2) @ x))


class ScatteredMessages(nn.Module):
    """Sums messages along a list of edges with index_add (Hamilton et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(12, 16), nn.Linear(28, 4)

    def forward(self, features: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        messages = self.message(features).gather(1, sources[..., None].expand(-1, -1, 16))
        sums = features.new_zeros(*features.shape[:2], 16)
        sums = sums.scatter_add(1, targets[..., None].expand(-1, -1, 16), messages)
        return self.update(torch.cat([features, sums], 2).relu())
