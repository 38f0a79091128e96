"""Round the weights of one layer so that its outputs change least, not each weight by itself.

The error of a row of weights w rounded to v, on inputs X without their mean, is (w - v) H (w - v)^T with
H = X X^T / n. Weights are rounded in turn, the one with the strongest input first, and what each leaves over is made
good by those still to come. Source: Frantar et al., GPTQ, 2022, arXiv 2210.17323.
"""

from dataclasses import dataclass

import numpy as np

# Added to the diagonal of H, as a share of its mean: the paper's own.
DAMPING = 0.01
# Shares of the largest weight of a row that the scale is tried at; what lies beyond is clipped.
SCALE_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
# Weights rounded one by one before the others hear of it, all at once.
BLOCK = 64


@dataclass
class InputStatistics:
    """Sums over the inputs of a layer, as it gets them and as it should: float64.

    `product` [groups, inputs, inputs] is the sum of x x^T of the inputs as they are; `total` and `wanted` [groups,
    inputs] sum the inputs as they are and as they should be; `count` is the number of positions.
    """

    product: np.ndarray
    total: np.ndarray
    wanted: np.ndarray
    count: int = 0

    @classmethod
    def empty(cls, groups: int, inputs: int) -> "InputStatistics":
        return cls(np.zeros((groups, inputs, inputs)), np.zeros((groups, inputs)), np.zeros((groups, inputs)))

    def add(self, inputs: np.ndarray, wanted: np.ndarray) -> None:
        """Count float32 [groups, inputs, positions] of both kinds."""
        self.product += inputs @ inputs.transpose(0, 2, 1)
        self.total += inputs.sum(axis=2, dtype=np.float64)
        self.wanted += wanted.sum(axis=2, dtype=np.float64)
        self.count += inputs.shape[2]

    def merge(self, other: "InputStatistics") -> "InputStatistics":
        """Count what the other has counted, too."""
        self.product += other.product
        self.total += other.total
        self.wanted += other.wanted
        self.count += other.count
        return self

    @property
    def covariance(self) -> np.ndarray:
        """H: the bias takes care of the mean."""
        mean = self.total / self.count
        return self.product / self.count - mean[:, :, None] * mean[:, None, :]


def round_layer(weights: np.ndarray, statistics: InputStatistics, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers within -limit to limit, int8 [groups, outputs, inputs], and scales [groups, outputs] of `weights`."""
    covariance = statistics.covariance
    scales = search_scales(weights, covariance, limit)
    return round_weights(weights, covariance, scales, limit).astype(np.int8), scales


def search_scales(weights: np.ndarray, covariance: np.ndarray, limit: int) -> np.ndarray:
    """For each row the scale, of those that SCALE_SHARES give, with the least error of plain rounding."""
    largest = np.abs(weights).max(axis=2)
    largest[largest == 0] = 1.0  # a row of zeros has any scale
    best = np.full(largest.shape, np.inf)
    scales = np.zeros(largest.shape)
    for share in SCALE_SHARES:
        tried = largest * share / limit
        difference = weights - np.clip(np.rint(weights / tried[..., None]), -limit, limit) * tried[..., None]
        error = ((difference @ covariance) * difference).sum(axis=2)
        better = error < best
        best[better], scales[better] = error[better], tried[better]
    return scales


def round_weights(weights: np.ndarray, covariance: np.ndarray, scales: np.ndarray, limit: int) -> np.ndarray:
    """Integers in float32, [groups, outputs, inputs], each rounded knowing what those before it left over."""
    groups, _, inputs = weights.shape
    strength = np.einsum("gkk->gk", covariance)
    order = np.argsort(-strength, axis=1, kind="stable")
    damped = covariance + np.eye(inputs) * (DAMPING * strength.mean(axis=1) + 1e-10)[:, None, None]
    sorted_covariance = damped[np.arange(groups)[:, None, None], order[:, :, None], order[:, None, :]]
    # The upper factor U of the inverse, inverse = U^T U, holds how an error is best made good by later weights.
    upper = np.linalg.cholesky(np.linalg.inv(sorted_covariance)).transpose(0, 2, 1).astype(np.float32)
    left = np.take_along_axis(weights, order[:, None, :], axis=2).astype(np.float32)
    scales = scales.astype(np.float32)
    rounded = np.empty_like(left)
    for start in range(0, inputs, BLOCK):
        stop = min(start + BLOCK, inputs)
        errors = np.empty_like(left[:, :, start:stop])
        for k in range(start, stop):
            rounded[:, :, k] = np.clip(np.rint(left[:, :, k] / scales), -limit, limit)
            error = (left[:, :, k] - rounded[:, :, k] * scales) / upper[:, k, k][:, None]
            left[:, :, k + 1 : stop] -= error[:, :, None] * upper[:, None, k, k + 1 : stop]
            errors[:, :, k - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    back = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(rounded, back[:, None, :], axis=2)


def corrected_bias(weights: np.ndarray, rounded: np.ndarray, bias: np.ndarray, inputs: InputStatistics) -> np.ndarray:
    """The bias, float64 [outputs], with which the mean of every output is what the float weights make of wanted inputs.

    `weights` and `rounded` are [groups, outputs, inputs], both in the units of the float weights.
    """
    wanted = weights @ (inputs.wanted / inputs.count)[:, :, None]
    found = rounded @ (inputs.total / inputs.count)[:, :, None]
    return bias + (wanted - found).ravel()
