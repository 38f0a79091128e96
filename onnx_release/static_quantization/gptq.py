"""Round the weights of one layer together, so that its outputs change least.

The error of a row of weights w rounded to v, on inputs X without their mean, is (w - v) H (w - v)^T with
H = X X^T / n. Weights are rounded in turn, the one with the strongest input first, and the later ones compensate for
the error of each. Source: Frantar et al., GPTQ, 2022, arXiv 2210.17323.
"""

from dataclasses import dataclass

import numpy as np

# Added to the diagonal of H, as a share of its mean; the value of the paper.
DAMPING = 0.01
# The scale is tried at these shares of the largest weight of a row; larger weights are clipped.
SCALE_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
# Tried too where partners bound each other: at twice the scale no pair of weights exceeds PAIR_SUM.
PAIR_SHARES = (2.0, 1.75, 1.5, 1.35, 1.2, 1.1)
# The largest sum of two weights of one sign if their products with uint8 are added in 16 bits: 255 * 128 < 2^15.
PAIR_SUM = 128
# How many weights are rounded before the error is passed on to all later ones.
COLUMN_BLOCK = 64


@dataclass
class InputStatistics:
    """Statistics of the inputs of a layer, in float64.

    `mean` is [groups, inputs], and `product` [groups, inputs, inputs] is the sum of (x - mean) (x - mean)^T over
    `count` positions; or only its diagonal, [groups, inputs].
    """

    mean: np.ndarray
    product: np.ndarray
    count: int

    @classmethod
    def of(cls, inputs: np.ndarray, diagonal: bool = False) -> "InputStatistics":
        """Compute the statistics of float32 [groups, inputs, positions]; with `diagonal`, only the variances."""
        mean = inputs.mean(axis=2, dtype=np.float64)
        # Without the mean, float32 is enough; with it, small variations would be lost in the rounding of the square.
        centered = (inputs - mean[:, :, None]).astype(np.float32)
        if diagonal:
            return cls(mean, (centered**2).sum(axis=2, dtype=np.float64), inputs.shape[2])
        return cls(mean, (centered @ centered.transpose(0, 2, 1)).astype(np.float64), inputs.shape[2])

    def merge(self, other: "InputStatistics") -> "InputStatistics":
        """Add the other's statistics. Source: Chan, Golub and LeVeque, Updating Formulae, 1979."""
        step, count = other.mean - self.mean, self.count + other.count
        self.product += other.product
        square = step**2 if self.product.ndim == 2 else step[:, :, None] * step[:, None, :]
        self.product += square * (self.count * other.count / count)
        self.mean = self.mean + step * (other.count / count)
        self.count = count
        return self

    @property
    def covariance(self) -> np.ndarray:
        """Return H. It is without the mean, which the bias corrects."""
        return self.product / self.count


@dataclass(frozen=True)
class Limits:
    """The limits of quantized weights: `most` in magnitude, and PAIR_SUM for the sum of two partners of one sign.

    `partner` [inputs] has the index of each input's partner, -1 for none.
    """

    most: int
    partner: np.ndarray | None = None

    def bounds(self, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest value of weights whose partners have the values `others`."""
        low = np.maximum(-PAIR_SUM - np.minimum(others, 0), -self.most)
        return low, np.minimum(PAIR_SUM - np.maximum(others, 0), self.most)


def round_layer(weights: np.ndarray, covariance: np.ndarray, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Round `weights` within `limits`; return int8 [groups, outputs, inputs] and scales [groups, outputs].

    With the variances [groups, inputs] in place of the covariance, each weight is rounded by itself.
    """
    scales = search_scales(weights, covariance, limits)
    if covariance.ndim == 2:
        return round_plainly(weights, scales, limits, rounding_rank(covariance)).astype(np.int8), scales
    return round_weights(weights, covariance, scales, limits).astype(np.int8), scales


def rounding_order(covariance: np.ndarray) -> np.ndarray:
    """Return the inputs of each group from the strongest to the weakest, int [groups, inputs]."""
    variances = covariance if covariance.ndim == 2 else np.einsum("gkk->gk", covariance)
    return np.argsort(-variances, axis=1, kind="stable")


def rounding_rank(covariance: np.ndarray) -> np.ndarray:
    """Return the place of each input in that order, int [groups, inputs]."""
    return np.argsort(rounding_order(covariance), axis=1)


def round_plainly(weights: np.ndarray, scales: np.ndarray, limits: Limits, rank: np.ndarray) -> np.ndarray:
    """Round each weight by itself; of two partners, the one of the later `rank` keeps within what the other leaves."""
    rounded = np.clip(np.rint(weights / scales[..., None]), -limits.most, limits.most)
    if limits.partner is None:
        return rounded
    second = (limits.partner >= 0) & (rank > rank[:, limits.partner])
    bounded = np.clip(rounded, *limits.bounds(rounded[..., limits.partner]))
    return np.where(second[:, None, :], bounded, rounded)


def search_scales(weights: np.ndarray, covariance: np.ndarray, limits: Limits) -> np.ndarray:
    """Return the scale of each row with the least error of plain rounding, of those at the shares above."""
    largest = np.abs(weights).max(axis=2)
    largest[largest == 0] = 1.0  # a row of zeros has any scale
    best = np.full(largest.shape, np.inf)
    scales = np.zeros(largest.shape)
    rank = rounding_rank(covariance)
    for share in SCALE_SHARES if limits.partner is None else PAIR_SHARES + SCALE_SHARES:
        tried = largest * share / limits.most
        difference = weights - round_plainly(weights, tried, limits, rank) * tried[..., None]
        weighted = difference * covariance[:, None, :] if covariance.ndim == 2 else difference @ covariance
        error = (weighted * difference).sum(axis=2)
        better = error < best
        best[better], scales[better] = error[better], tried[better]
    return scales


def round_weights(weights: np.ndarray, covariance: np.ndarray, scales: np.ndarray, limits: Limits) -> np.ndarray:
    """Round the weights in turn, each with the error of those before it; integers in float32, shaped as `weights`."""
    groups, outputs, inputs = weights.shape
    order = rounding_order(covariance)
    back = np.argsort(order, axis=1)
    damping = DAMPING * np.einsum("gkk->gk", covariance).mean(axis=1) + 1e-10
    damped = covariance + np.eye(inputs) * damping[:, None, None]
    sorted_covariance = damped[np.arange(groups)[:, None, None], order[:, :, None], order[:, None, :]]
    # The upper factor U of the inverse, inverse = U^T U, says how later weights best compensate for an error.
    upper = np.linalg.cholesky(np.linalg.inv(sorted_covariance)).transpose(0, 2, 1).astype(np.float32)
    left = np.take_along_axis(weights, order[:, None, :], axis=2).astype(np.float32)
    scales = scales.astype(np.float32)
    # One column more, of zeros, for weights without a partner. A partner that is not yet rounded is 0 too.
    rounded = np.zeros((groups, outputs, inputs + 1), np.float32)
    partners = partner_positions(limits, order, back)
    for start in range(0, inputs, COLUMN_BLOCK):
        stop = min(start + COLUMN_BLOCK, inputs)
        errors = np.empty_like(left[:, :, start:stop])
        for k in range(start, stop):
            others = np.take_along_axis(rounded, partners[:, None, k, None], axis=2)[:, :, 0]
            rounded[:, :, k] = np.clip(np.rint(left[:, :, k] / scales), *limits.bounds(others))
            error = (left[:, :, k] - rounded[:, :, k] * scales) / upper[:, k, k][:, None]
            left[:, :, k + 1 : stop] -= error[:, :, None] * upper[:, None, k, k + 1 : stop]
            errors[:, :, k - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return np.take_along_axis(rounded, back[:, None, :], axis=2)


def partner_positions(limits: Limits, order: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return the position in the order of rounding of each weight's partner, int [groups, inputs]; -1 for none."""
    if limits.partner is None:
        return np.full_like(order, -1)
    partner = limits.partner[order]
    return np.where(partner < 0, -1, np.take_along_axis(back, np.maximum(partner, 0), axis=1))


def corrected_bias(
    weights: np.ndarray, rounded: np.ndarray, bias: np.ndarray, wanted: np.ndarray, found: np.ndarray
) -> np.ndarray:
    """Return the bias, float64 [outputs], that gives every output the mean that it has in the float model.

    `weights` and `rounded` are [groups, outputs, inputs], both in the units of the float weights. `wanted` and `found`
    are the means of the inputs in the float model and in the quantized one, [groups, inputs].
    """
    return bias + (weights @ wanted[:, :, None] - rounded @ found[:, :, None]).ravel()
