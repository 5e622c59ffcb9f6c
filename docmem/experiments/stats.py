"""Whether a difference between two settings is larger than chance, seed by seed."""

import math
import statistics
from collections.abc import Sequence

# One-sided 5 % quantiles of Student's t for 1, 2, … degrees of freedom; beyond, the last, which
# asks for a little more than it must.
T = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)


def clearly_above(left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether `left` exceeds `right`: Student's paired test, one-sided, at 5 %.

    Both hold one number a seed, the same seeds in the same order, so that what a seed does to
    both cancels. Where one has more seeds than the other, the seeds they share count. Of a
    single seed nothing is claimed: False.
    """
    differences = [one - other for one, other in zip(left, right, strict=False)]
    if len(differences) < 2:
        return False
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.fmean(differences) > T[min(len(differences) - 1, len(T)) - 1] * error
