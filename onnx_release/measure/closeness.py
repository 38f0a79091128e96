"""How close a variant's answers come to PyTorch's, in the figures that a budget bounds."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Closeness:
    """`sqnr_db`, `max_abs_error` and `cosine` are of the worst output, None where they are not finite.

    `agreement` and `accuracy_drop` are None for a task without answers, and the second without a label as well: then
    `changed_answers` says what the accuracy lost cannot be more than.
    """

    sqnr_db: float | None
    max_abs_error: float | None
    cosine: float | None
    agreement: float | None = None
    accuracy_drop: float | None = None
    changed_answers: float | None = None

    @property
    def signal(self) -> float:
        """Return the SQNR in dB: infinite without any error, and worse than any with NaN or where zeros should be."""
        if self.sqnr_db is None:
            return math.inf if self.max_abs_error == 0 else -math.inf
        return self.sqnr_db
