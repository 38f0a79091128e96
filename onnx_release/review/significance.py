"""Whether two sides differ by more than chance, when many pairs are looked at together."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

# Up to so many groups that differ, every assignment of signs is counted; beyond it so many are drawn.
COUNTED_GROUPS, DRAWN_FLIPS = 14, 20_000


def sign_flip_p(differences: Sequence[float], groups: Sequence[str], seed: int = 0) -> float | None:
    """The two-sided p-value of paired differences, head less base of each sample; None where no group differs.

    Were both sides alike, each group's sum would be as likely with the other sign (the paired permutation test of
    Fisher, "The Design of Experiments", 1935, section 21). Groups and not samples, since crops of one photograph go
    right or wrong together. The p-value is the share of assignments of signs with a sum as far from 0 as the one found.
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(differences, np.float64))
    sums = sums[np.abs(sums) > 1e-12]
    if not len(sums):
        return None
    if len(sums) <= COUNTED_GROUPS:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(sums))), np.float64)
        return float(np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9))
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(DRAWN_FLIPS, len(sums)))
    return float((1 + np.sum(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9)) / (1 + DRAWN_FLIPS))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for their number: where nothing differs, one of them is below 0.05 in 5 % of cases at most.

    However they depend on each other (Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979).
    """
    adjusted, worst = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        worst = max(worst, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = worst
    return adjusted
