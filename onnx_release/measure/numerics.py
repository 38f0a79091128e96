"""Measure how far a variant's outputs are from the reference, in float64 and over any number of cases."""

import math
from dataclasses import dataclass, field

import numpy as np

from onnx_release.core.spec import Tolerance

# Relative errors count only for elements of at least this share of their case's largest: near zero they mean nothing.
RELATIVE_FLOOR = 1e-3
# Beyond this many times PyTorch's own rounding, an answer is wrong and not merely less precise.
WRONG_MULTIPLE = 1000
# The rounding of one operation in float32, relative to the largest value: less than this no network has.
FLOAT32_ROUNDING = 2.0**-24


@dataclass
class OutputError:
    """The error of one output compared with its reference, summed up case by case.

    SQNR is 10 log10(sum reference^2 / sum difference^2) in dB; cosine is the mean over cases of the cosine of the
    angle between reference and output, each flattened. An element that is the same infinity in both, as a masked score
    is, counts in neither.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    cosines: list[float] = field(default_factory=list)

    def add(self, reference: np.ndarray, output: np.ndarray) -> None:
        """Count one case.

        NaN or infinity in only one of both makes every metric NaN or infinite; so does another shape.
        """
        if output.shape != reference.shape:  # of a size that depends on values
            self.max_abs = self.max_rel = self.noise = math.nan
            self.cosines.append(math.nan)
            return
        reference, output = without_same_infinities(reference, output)
        difference = np.abs(output - reference)
        self.max_abs = maximum(self.max_abs, difference)
        large = np.abs(reference) >= RELATIVE_FLOOR * np.abs(reference).max(initial=0)
        # An element that is not finite always counts.
        counted = (large & (reference != 0)) | ~np.isfinite(difference)
        with np.errstate(divide="ignore", invalid="ignore"):  # for NaN and infinity where the reference is zero
            self.max_rel = maximum(self.max_rel, difference[counted] / np.abs(reference[counted]))
        self.signal += float((reference**2).sum())
        self.noise += float((difference**2).sum())
        self.cosines.append(cosine(reference, output))

    @property
    def sqnr_db(self) -> float:
        """Return the SQNR in dB: infinite if nothing differs, NaN if NaN or infinity is in only one of both."""
        if not math.isfinite(self.noise):
            return math.nan
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def mean_cosine(self) -> float:
        """Return the mean cosine over the cases."""
        return float(np.mean(self.cosines))


def without_same_infinities(reference: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both in float64, and flat and without the elements that are the same infinity in both, if there are any.

    They have no difference to measure: infinity minus infinity is NaN.
    """
    same = np.isinf(reference) & (output == reference)
    if same.any():
        reference, output = reference[~same], output[~same]
    return reference.astype(np.float64), output.astype(np.float64)


def other_infinities(reference: np.ndarray, output: np.ndarray) -> str:
    """Describe the elements that are infinite in the reference and not the same infinity in the output.

    Return nothing if there are none, or if the shapes differ. A large finite number is no infinity: only after a
    softmax are both the same, and nobody knows what takes the output.
    """
    if output.shape != reference.shape:
        return ""
    other = np.isinf(reference) & (output != reference)
    if not other.any():
        return ""
    found, wanted = output[other].flat[0], reference[other].flat[0]
    counted = f"{other.sum()} of the {other.size} values are not infinite as PyTorch's are"
    return f"{counted}: {found:g} in place of {wanted:g}"


def maximum(so_far: float, values: np.ndarray) -> float:
    """Return the largest of all values, NaN if any is NaN (Python's max would lose it)."""
    return float(np.maximum(so_far, values.max(initial=0.0)))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two flattened arrays; 1 if both are zero, 0 if one is, NaN for NaN."""
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if not math.isfinite(norms):
        return math.nan
    if norms == 0:
        return float(not a.any() and not b.any())
    return float(np.vdot(a, b) / norms)


def tolerance_needed(reference: np.ndarray, output: np.ndarray, rtol: float) -> float:
    """Return the smallest atol with |output - reference| <= atol + rtol * |reference| for every element.

    It is NaN for an output of another shape, and NaN or infinite if NaN or infinity is in only one of both.
    """
    if output.shape != reference.shape:
        return math.nan
    reference, output = without_same_infinities(reference, output)
    difference = np.abs(output - reference)
    with np.errstate(invalid="ignore"):  # for infinity in only one of both
        return maximum(0.0, difference - rtol * np.abs(reference))


def rounding_multiple(error: float, rounding: float) -> float:
    """Return an error divided by PyTorch's own in float32, infinite if only PyTorch's is zero."""
    if rounding:
        return error / rounding
    return math.inf if error else 0.0


def within_tolerance(error: float, rounding: float, needed: float, allowed: Tolerance) -> bool:
    """Return whether an output of a float32 variant passes: by PyTorch's rounding, or by `needed`, the atol to pass.

    NaN does not pass.
    """
    return rounding_multiple(error, rounding) <= allowed.torch_rounding_multiple or needed <= allowed.atol


def is_wrong(error: float, rounding: float, largest: float) -> bool:
    """Return whether an error is too large for rounding: that of PyTorch in float32, or of one operation if larger.

    `largest` is the largest magnitude of the reference. An error that is NaN is wrong.
    """
    return not error <= WRONG_MULTIPLE * max(rounding, FLOAT32_ROUNDING * largest)


def largest_error(reference: np.ndarray, output: np.ndarray) -> float:
    """Return the largest absolute difference; NaN for an output of another shape, 0 for empty ones.

    The same infinity in both is no difference.
    """
    if output.shape != reference.shape:
        return math.nan
    reference, output = without_same_infinities(reference, output)
    return maximum(0.0, np.abs(output - reference))


def equal_share(reference: np.ndarray, output: np.ndarray) -> float:
    """Return the share of equal elements: 1 for empty arrays, 0 for an output of another shape."""
    if output.shape != reference.shape:
        return 0.0
    return float((output == reference).mean()) if reference.size else 1.0


def finite_or_none(value: float) -> float | None:
    """Return None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
