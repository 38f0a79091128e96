"""Say how close a variant's answers are to PyTorch's, in the metrics that a budget bounds."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from onnx_release.measure.numerics import OutputError, finite_or_none


@dataclass(frozen=True)
class Closeness:
    """The metrics that a budget bounds.

    `sqnr_db`, `max_abs_error` and `cosine` are of the worst output, and None if not finite.
    `agreement` and `accuracy_drop` are None for a task without answers. Without labels `accuracy_drop` is None, and
    `changed_answers` is an upper bound of the lost accuracy.
    """

    sqnr_db: float | None
    max_abs_error: float | None
    cosine: float | None
    agreement: float | None = None
    accuracy_drop: float | None = None
    changed_answers: float | None = None

    @property
    def signal(self) -> float:
        """Return the SQNR in dB: infinite without any error, -infinite with NaN or if all should be zero."""
        if self.sqnr_db is None:
            return math.inf if self.max_abs_error == 0 else -math.inf
        return self.sqnr_db


def worst_output(errors: Collection[OutputError]) -> Closeness:
    """Return the closeness of the worst of these outputs, for each metric by itself and without the answers."""
    # numpy's minimum and maximum keep NaN, which Python's lose.
    return Closeness(
        sqnr_db=finite_or_none(float(np.min([error.sqnr_db for error in errors]))),
        max_abs_error=finite_or_none(float(np.max([error.max_abs for error in errors]))),
        cosine=finite_or_none(float(np.min([error.mean_cosine for error in errors]))),
    )
