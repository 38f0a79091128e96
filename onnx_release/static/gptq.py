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
# Beyond them, where partners bound each other: at twice the scale no pair of weights passes PAIR_SUM.
PAIR_SHARES = (2.0, 1.75, 1.5, 1.35, 1.2, 1.1)
# What two weights of one sign may sum up to where their products with uint8 are added in 16 bits: 255 * 128 < 2^15.
PAIR_SUM = 128
# Weights rounded one by one before the others hear of it, all at once.
COLUMN_BLOCK = 64


@dataclass
class InputStatistics:
    """Of the inputs of a layer, float64: their `mean` [groups, inputs], and `product` [groups, inputs, inputs], the sum
    of (x - mean) (x - mean)^T over `count` positions.
    """

    mean: np.ndarray
    product: np.ndarray
    count: int

    @classmethod
    def of(cls, inputs: np.ndarray) -> "InputStatistics":
        """Of float32 [groups, inputs, positions]."""
        mean = inputs.mean(axis=2, dtype=np.float64)
        # Without the mean, float32 is enough: what hardly varies would be lost in the rounding of its square.
        centered = (inputs - mean[:, :, None]).astype(np.float32)
        return cls(mean, (centered @ centered.transpose(0, 2, 1)).astype(np.float64), inputs.shape[2])

    def merge(self, other: "InputStatistics") -> "InputStatistics":
        """Count what the other has counted, too. Source: Chan, Golub and LeVeque, Updating Formulae, 1979."""
        step, count = other.mean - self.mean, self.count + other.count
        self.product += other.product
        self.product += step[:, :, None] * step[:, None, :] * (self.count * other.count / count)
        self.mean = self.mean + step * (other.count / count)
        self.count = count
        return self

    @property
    def covariance(self) -> np.ndarray:
        """H: the bias takes care of the mean."""
        return self.product / self.count


@dataclass(frozen=True)
class Limits:
    """How large quantized weights may be: `most` in magnitude, and, where `partner` names for each of [inputs] another
    one (-1: none), PAIR_SUM for two partners of one sign together.
    """

    most: int
    partner: np.ndarray | None = None

    def bounds(self, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest value of weights whose partners have the values `others`."""
        low = np.maximum(-PAIR_SUM - np.minimum(others, 0), -self.most)
        return low, np.minimum(PAIR_SUM - np.maximum(others, 0), self.most)


def round_layer(weights: np.ndarray, covariance: np.ndarray, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Return integers within `limits`, int8 [groups, outputs, inputs], and scales [groups, outputs] of `weights`."""
    scales = search_scales(weights, covariance, limits)
    return round_weights(weights, covariance, scales, limits).astype(np.int8), scales


def rounding_order(covariance: np.ndarray) -> np.ndarray:
    """For each group its inputs from the strongest to the weakest, int [groups, inputs]."""
    return np.argsort(-np.einsum("gkk->gk", covariance), axis=1, kind="stable")


def search_scales(weights: np.ndarray, covariance: np.ndarray, limits: Limits) -> np.ndarray:
    """For each row the scale, of those that the shares above give, with the least error of plain rounding."""
    largest = np.abs(weights).max(axis=2)
    largest[largest == 0] = 1.0  # a row of zeros has any scale
    best = np.full(largest.shape, np.inf)
    scales = np.zeros(largest.shape)
    rank = np.argsort(rounding_order(covariance), axis=1)
    for share in SCALE_SHARES if limits.partner is None else PAIR_SHARES + SCALE_SHARES:
        tried = largest * share / limits.most
        rounded = np.clip(np.rint(weights / tried[..., None]), -limits.most, limits.most)
        if limits.partner is not None:
            second = (limits.partner >= 0) & (rank > rank[:, limits.partner])
            rounded = np.where(
                second[:, None, :], np.clip(rounded, *limits.bounds(rounded[..., limits.partner])), rounded
            )
        difference = weights - rounded * tried[..., None]
        error = ((difference @ covariance) * difference).sum(axis=2)
        better = error < best
        best[better], scales[better] = error[better], tried[better]
    return scales


def round_weights(weights: np.ndarray, covariance: np.ndarray, scales: np.ndarray, limits: Limits) -> np.ndarray:
    """Return integers in float32, [groups, outputs, inputs], each rounded knowing what those before it left over."""
    groups, outputs, inputs = weights.shape
    order = rounding_order(covariance)
    back = np.argsort(order, axis=1)
    damping = DAMPING * np.einsum("gkk->gk", covariance).mean(axis=1) + 1e-10
    damped = covariance + np.eye(inputs) * damping[:, None, None]
    sorted_covariance = damped[np.arange(groups)[:, None, None], order[:, :, None], order[:, None, :]]
    # The upper factor U of the inverse, inverse = U^T U, holds how an error is best made good by later weights.
    upper = np.linalg.cholesky(np.linalg.inv(sorted_covariance)).transpose(0, 2, 1).astype(np.float32)
    left = np.take_along_axis(weights, order[:, None, :], axis=2).astype(np.float32)
    scales = scales.astype(np.float32)
    # One column more, of zeros: the partner of a weight without one. One that is not rounded yet is 0, too.
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
    """Return where in the order of rounding the partner of each weight in that order is, int [groups, inputs]; -1 for none."""
    if limits.partner is None:
        return np.full_like(order, -1)
    partner = limits.partner[order]
    return np.where(partner < 0, -1, np.take_along_axis(back, np.maximum(partner, 0), axis=1))


def corrected_bias(
    weights: np.ndarray, rounded: np.ndarray, bias: np.ndarray, wanted: np.ndarray, found: np.ndarray
) -> np.ndarray:
    """Return the bias, float64 [outputs], with which the mean of every output is what the float weights make of wanted inputs.

    `weights` and `rounded` are [groups, outputs, inputs], both in the units of the float weights; `wanted` and `found`
    are the means of the inputs as they should be and as they are, [groups, inputs].
    """
    return bias + (weights @ wanted[:, :, None] - rounded @ found[:, :, None]).ravel()
