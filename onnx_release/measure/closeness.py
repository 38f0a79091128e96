"""Say how close a variant's answers are to PyTorch's, in the metrics that a budget bounds."""

import math
from dataclasses import dataclass


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
