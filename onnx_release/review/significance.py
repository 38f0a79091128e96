"""Test whether two sides differ by more than chance, among many tests at once."""

from collections.abc import Mapping, Sequence

import numpy as np

# Assignments of signs that are drawn if there are more. Up to 14 groups, every one is counted.
MOST_SIGN_FLIPS = 20_000


def sign_flip_p(differences: Sequence[float], groups: Sequence[str], seed: int = 0) -> float | None:
    """Return the two-sided p-value of paired differences, head less base of each sample; None if no group differs.

    If both sides were alike, each group's sum would be as likely with the other sign (the paired permutation test of
    Fisher, "The Design of Experiments", 1935, section 21). Signs belong to groups and not to samples, since crops of
    one photograph are right or wrong together. The p-value is twice the smaller tail, at most 1.
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(differences, np.float64))
    sums = sums[np.abs(sums) > 1e-12]
    if not len(sums):
        return None
    if len(sums) == 1:  # either sign is as far from 0, and scipy wants two observations
        return 1.0
    from scipy.stats import permutation_test  # its import takes a second, which only answers that differ need

    # With one sample of pairs, permutation_type "samples" flips signs.
    found = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=MOST_SIGN_FLIPS, rng=seed)
    return float(found.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for their number: if nothing differs, any of them is below 0.05 in at most 5 % of cases.

    It does not matter how they depend on each other (Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
    1979).
    """
    adjusted, worst = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        worst = max(worst, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = worst
    return adjusted
