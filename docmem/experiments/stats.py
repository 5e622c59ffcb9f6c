"""Numbers over seeds: their spread, and whether a difference is larger than chance."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

Verdict = Literal["holds", "partly", "not"]


class Spread(NamedTuple):
    """A number measured with several seeds."""

    mean: float
    sd: float
    """Sample standard deviation over seeds; not a number for a single one."""
    n: int
    """Seeds."""

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.mean:.2f} (one seed)"
        return f"{self.mean:.2f} ± {self.sd:.2f} (n = {self.n})"


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation of one number per seed."""
    numbers = [float(value) for value in values]
    sd = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
    return Spread(statistics.fmean(numbers), sd, len(numbers))


def spreads(groups: Mapping[str, Sequence[float]], between: str = ": ") -> str:
    """The spread of each group as text: `tanh: 0.50 ± 0.10 (n = 5), relu: …`."""
    return ", ".join(f"{name}{between}{spread(values)}" for name, values in groups.items())


def values_of(group: Mapping[str, Any], key: str, scale: float = 1) -> dict[str, list[float]]:
    """One measure of each setting of a group: a number per seed, by setting."""
    return {name: [scale * value for value in getattr(one, key)] for name, one in group.items()}


def clearly_above(left: Sequence[float], right: Sequence[float] | None = None) -> bool:
    """Whether `left` exceeds `right`, or 0: Student's paired test, one-sided, at 5 %.

    Both hold one number per seed, the same seeds in the same order, so that what a seed does to
    both cancels. Where one has more seeds than the other, the seeds they share count. A single
    seed proves nothing: False.
    """
    right = [0.0] * len(left) if right is None else right
    differences = [one - other for one, other in zip(left, right, strict=False)]
    n = len(differences)
    if n < 2:
        return False
    # scipy's own ttest_rel warns, and may give nan, where all differences are the same.
    least = stats.t.ppf(0.95, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return bool(statistics.fmean(differences) > least)


def verdict(*held: bool) -> Verdict:
    """Holds if all parts of a claim do, not if none does, else partly."""
    return "holds" if all(held) else "partly" if any(held) else "not"


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's, over all pairs, of two symmetric measures of pairs, (n, n)."""
    upper = np.triu_indices(len(left), 1)
    return float(stats.spearmanr(left[upper], right[upper]).statistic)


def mantel_test(left: np.ndarray, right: np.ndarray, deals: int) -> tuple[float, float]:
    """Their rank correlation, and the share of random deals of the items that reach it.

    The pairs of one item hang together, so items are dealt anew, not pairs.
    """
    found = stats.permutation_test(
        (np.arange(len(left)),),
        lambda deal: rank_correlation(left[np.ix_(deal, deal)], right),
        permutation_type="pairings",
        vectorized=False,
        n_resamples=deals,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    return float(found.statistic), float(found.pvalue)
