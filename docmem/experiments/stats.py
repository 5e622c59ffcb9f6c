"""Numbers over seeds: their spread, and what a claim's tests decide.

    parts = [above("relu", shares, limit=0.5), alike("own", here, there, margin=0.25)]
    decide(parts)                       # shown, refuted or open, one for each

A part is an effect with one number per seed, and a range in which its mean has to lie. It is shown
by Student's t-test against the ends of that range, refuted by one for the opposite or for
equivalence, and undecided where neither is. Small is a difference that is surely there but, by its
mean, less than matters. All parts of an experiment are one family (Holm).
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

Decision = Literal["shown", "refuted", "small", "undecided"]
LEVEL = 0.05
"""Of the tests of an experiment together, both ways; intervals are of 1 - LEVEL."""
ROUNDING = 1e-9
"""What differs by no more is the same, and no more above 0 than that is 0."""
OWN_MARGIN = 0.05
"""Nats per token that matter between own cross entropies, which end near 0."""


class Spread(NamedTuple):
    """A number measured with several seeds."""

    mean: float
    sd: float
    """Sample standard deviation over seeds; not a number for a single one."""
    n: int
    """Seeds."""

    def __str__(self) -> str:
        sd = "(one seed)" if self.n == 1 else f"± {self.sd:.2f}"
        return f"{self.mean:.2f} {sd}".replace("-", "−")


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation of one number per seed."""
    numbers = [float(value) for value in values]
    sd = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
    return Spread(statistics.fmean(numbers), sd, len(numbers))


def spreads(groups: Mapping[str, Sequence[float]], between: str = ": ") -> str:
    """The spread of each group as text: `tanh: 0.50 ± 0.10, relu: …`."""
    return ", ".join(f"{name}{between}{spread(values)}" for name, values in groups.items())


def values_of(group: Mapping[str, Any], key: str, scale: float = 1) -> dict[str, list[float]]:
    """One measure of each setting of a group: a number per seed, by setting."""
    return {name: [scale * value for value in getattr(one, key)] for name, one in group.items()}


@dataclass(frozen=True)
class Part:
    """One part of a claim: an effect, and where its mean has to lie. Made by `above` and the like.

    Raises:
        ValueError: if it has no effect, one that is no finite number, an empty range, or a margin
            that is not above 0.
    """

    name: str
    effect: tuple[float, ...]
    """One number per seed."""
    low: float
    high: float
    """The mean has to lie between these; one may be infinite."""
    margin: float | None = None
    """Of a difference from `low` or `high` that would matter: within it is no difference."""

    def __post_init__(self) -> None:
        if not self.effect:
            raise ValueError(f"{self.name} has no numbers.")
        if not np.isfinite(self.effect).all():
            raise ValueError(f"{self.name} is not a finite number for each seed: {self.effect}.")
        if not self.low < self.high or (self.margin is not None and not self.margin > 0):
            raise ValueError(f"{self.name} has an empty range, or a margin that is not above 0.")

    @property
    def mean(self) -> float:
        """Mean effect over seeds."""
        return statistics.fmean(self.effect)

    @property
    def interval(self) -> tuple[float, float]:
        """Student's interval of the mean; as wide as can be for one seed."""
        if len(self.effect) < 2:
            return -math.inf, math.inf
        reach = stats.t.ppf(1 - LEVEL / 2, len(self.effect) - 1) * stats.sem(self.effect)
        return self.mean - float(reach), self.mean + float(reach)

    @property
    def rule(self) -> str:
        """Where the mean has to lie, in words."""
        if math.isinf(self.high):
            text, end = f"above {self.low:g}", self.low
        elif math.isinf(self.low):
            text, end = f"below {self.high:g}", self.high
        else:
            text, end = f"from {self.low:g} to {self.high:g}", math.nan
        if self.margin is not None:
            text += f"; no difference: {end - self.margin:g} to {end + self.margin:g}"
        return text.replace("-", "−")

    @property
    def _ends(self) -> list[float]:
        """The finite ends of the range."""
        return [end for end in (self.low, self.high) if math.isfinite(end)]

    def p_shown(self) -> float:
        """The p-value of its mean lying in the range: above the low end and below the high one."""
        return max(self._p(end, 1 if end == self.low else -1) for end in self._ends)

    def p_refuted(self) -> float:
        """The p-value of the opposite: beyond an end of the range, or no difference from it."""
        beyond = min(self._p(end, -1 if end == self.low else 1) for end in self._ends)
        return min(1.0, len(self._ends) * beyond, self.p_same())

    def p_same(self) -> float:
        """The p-value of no difference from the end of its range; 1 without a margin."""
        if self.margin is None:
            return 1.0
        (end,) = self._ends
        return max(self._p(end - self.margin, 1), self._p(end + self.margin, -1))

    @property
    def small(self) -> bool:
        """Whether its mean lies nearer the end of its range than the margin."""
        return self.margin is not None and abs(self.mean - self._ends[0]) < self.margin

    def _p(self, limit: float, side: int) -> float:
        """Student's, one-sided, of the mean being above a limit (side 1) or below it (-1).

        1 for a single number, which proves nothing. Numbers that are all the same have no spread
        to test by: they count as they are.
        """
        values = [side * (x - limit) for x in self.effect]
        if len(values) < 2:
            return 1.0
        if np.ptp(values) <= ROUNDING:  # scipy's would be 0 / 0
            return 0.0 if values[0] > ROUNDING else 1.0
        return float(stats.ttest_1samp(values, 0, alternative="greater").pvalue)


def above(
    name: str, effect: Sequence[float], limit: float = 0.0, margin: float | None = None
) -> Part:
    """A part that wants the effect above a limit."""
    return Part(name, tuple(effect), limit, math.inf, margin)


def below(
    name: str, effect: Sequence[float], limit: float = 0.0, margin: float | None = None
) -> Part:
    """A part that wants the effect below a limit."""
    return Part(name, tuple(effect), -math.inf, limit, margin)


def between(name: str, effect: Sequence[float], low: float, high: float) -> Part:
    """A part that wants the effect between two limits."""
    return Part(name, tuple(effect), low, high)


def more(name: str, left: Sequence[float], right: Sequence[float], margin: float) -> Part:
    """A part that wants `left` above `right`, seed by seed; alike within the margin refutes it.

    Where one has more seeds than the other, the seeds they share count.
    """
    return above(name, differences(left, right), 0.0, margin)


def alike(name: str, left: Sequence[float], right: Sequence[float], margin: float) -> Part:
    """A part that wants `left` and `right` no further apart than a margin, seed by seed."""
    return Part(name, differences(left, right), -margin, margin)


def highest(measures: Iterable[Sequence[float]]) -> list[float]:
    """The highest of several measures of the same seeds: a number per seed."""
    return [max(each) for each in zip(*measures, strict=True)]


def differences(left: Sequence[float], right: Sequence[float]) -> tuple[float, ...]:
    """`left` minus `right`, of the seeds they share."""
    return tuple(one - other for one, other in zip(left, right, strict=False))


def decide(parts: Sequence[Part]) -> list[Decision]:
    """What is decided of each part, all together at LEVEL: Holm, each part two-sided."""
    p_values = [min(1.0, 2 * min(part.p_shown(), part.p_refuted())) for part in parts]
    decided: list[Decision] = []
    for part, p in zip(parts, holm(p_values), strict=True):
        if p > LEVEL:
            decided.append("undecided")
        elif 2 * part.p_shown() <= LEVEL and part.small:
            decided.append("small")
        else:
            decided.append("refuted" if part.p_refuted() < part.p_shown() else "shown")
    return decided


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values."""
    order = np.argsort(p_values)
    rest = len(p_values) - np.arange(len(p_values))
    adjusted = np.maximum.accumulate(np.array(p_values)[order] * rest).clip(max=1.0)
    return adjusted[np.argsort(order)].tolist()


def correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Pearson's; 0 where either is the same for all, which goes with nothing."""
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    return float(stats.pearsonr(left, right).statistic)
