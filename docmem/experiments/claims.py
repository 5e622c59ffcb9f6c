"""Claims: what an experiment wants to know, what has to be so, and what its numbers decide.

    Claim("Relu opens a sparse set of entries", [below("share of active entries", shares, 0.5)])

Four verdicts: holds, partly, does not hold, inconclusive. "Not shown" is not "not so": a claim does
not hold only where the opposite, or no difference within a stated margin, is shown.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from docmem.experiments.stats import Decision, Part, decide, spread

Verdict = Literal["holds", "partly", "does not hold", "inconclusive", "as it must be", "violated"]
LEARNED = 1.0
"""Own cross entropy above which a memory has not learned, nats per token: then what it holds cannot
be said."""


@dataclass(frozen=True)
class Claim:
    """What is claimed, and what decides it."""

    claim: str
    """In one sentence."""
    parts: Sequence[Part]
    """What has to be so, all of it."""
    published: str = "left open"
    """What the paper reports of it."""
    note: str = ""
    """Further numbers that help to read it; a sentence without its full stop."""
    papers: bool = False
    """Whether the paper claims it."""
    own: Sequence[float] = ()
    """Own cross entropy of the memories it is about, one per seed: above LEARNED there is no
    verdict. None where the claim is about learning itself."""
    exploratory: bool = False
    """Whether its rule was settled after results had been seen."""
    check: bool = False
    """Whether it must be so, by a theorem or by what a word means: a check of the program, which
    every seed has to pass, and no finding."""

    @property
    def unlearned(self) -> bool:
        """Whether the memories it is about have not learned."""
        return bool(self.own) and not statistics.fmean(self.own) <= LEARNED

    @property
    def brief(self) -> str:
        """The claim; below it what its only effect is, and what else is to be known of it."""
        told = [self.parts[0].name] if len(self.parts) == 1 else []
        if self.published != "left open":
            told.append(f"published: {self.published}")
        told += ["exploratory"] if self.exploratory else []
        return f"{self.claim}<br>*{'; '.join(told)}*" if told else self.claim


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict."""

    claim: Claim
    decisions: list[Decision]
    """One for each part; none of a check, or where the memories have not learned."""

    @property
    def verdict(self) -> Verdict:
        """Holds if every part is shown; partly if some are; else whether one is refuted."""
        claim = self.claim
        if claim.check:
            lie = (part.low <= x <= part.high for part in claim.parts for x in part.effect)
            return "as it must be" if all(lie) else "violated"
        if claim.unlearned:
            return "inconclusive"
        if all(decision == "shown" for decision in self.decisions):
            return "holds"
        if "shown" in self.decisions:
            return "partly"
        return "does not hold" if "refuted" in self.decisions else "inconclusive"

    @property
    def why(self) -> str:
        """Why nothing is decided, in a word or two, where it is not for want of seeds."""
        if self.verdict != "inconclusive":
            return ""
        if self.claim.unlearned:
            return "not learned"
        return "small" if {*self.decisions} == {"small"} else ""

    @property
    def brief(self) -> str:
        """The verdict and each part's effect with its interval, for the cell of a table."""
        verdict = f"**{self.verdict}**" + (f" ({self.why})" if self.why else "")
        parts = self.claim.parts
        if len(parts) == 1:
            return f"{verdict}<br>{effect_text(parts[0])}"
        effects = [f"{part.name} {effect_text(part)}" for part in parts]
        lines = [f"{one}{decision}" for one, decision in zip(effects, self._how(), strict=True)]
        return "<br>".join([verdict, *lines])

    def _how(self) -> list[str]:
        """What is decided of each part, to be added to its effect."""
        return [f": {decision}" for decision in self.decisions] or [""] * len(self.claim.parts)

    @property
    def found(self) -> str:
        """Each part: its effect with the interval, what it had to be, what is decided; and n."""
        parts = self.claim.parts
        wanted = "" if self.claim.check else "wanted "
        told = [
            f"{part.name} {effect_text(part)}, {wanted}{part.rule}{decision}"
            for part, decision in zip(parts, self._how(), strict=True)
        ]
        seeds = {len(part.effect) for part in parts}
        told[-1] += f" (n = {', '.join(map(str, sorted(seeds)))})"
        if self.claim.unlearned:
            told.append(f"not learned: own cross entropy {spread(self.claim.own)}")
        note = self.claim.note
        return "; ".join(told) + (f". {note[0].upper()}{note[1:]}" if note else "")


def judge(claims: Iterable[Claim]) -> list[Judged]:
    """Decide the claims of an experiment together; what must be so, or is unlearned, is no test."""
    listed = list(claims)
    parts = [[] if claim.check or claim.unlearned else claim.parts for claim in listed]
    decided = iter(decide([part for some in parts for part in some]))
    return [
        Judged(claim, [next(decided) for _ in some])
        for claim, some in zip(listed, parts, strict=True)
    ]


def effect_text(part: Part) -> str:
    """Its mean with the interval; of one seed there is none."""
    low, high = part.interval
    interval = f" [{low:z.2f}, {high:z.2f}]" if len(part.effect) > 1 else ""
    return f"{part.mean:z.2f}{interval}".replace("-", "−")


Claims = Iterator[Claim]
