"""What guidance does: its weight α, the negatives it reads under, and the form of its term.

The paper trains with α 0.1 and 0.5 and names four kinds of negatives; it writes the term as
|τ - L⁻| where its program computes a clamped square. What is lost without guidance it leaves open.
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from docmem.evaluation.cached import measure as recall_of
from docmem.experiments.drawing import dots
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import clearly_above, spread, spreads, values_of, verdict
from docmem.experiments.study import Claim, Claims, Study, columns
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.plots.style import FAINT, GUIDANCE, NEGATIVE, OWN
from docmem.training.run import Run

ALPHAS = ("0", "0.1", "0.5", "1")
NEGATIVES = ("other", "random", "zero", "perturb")
FORMS = ("squared", "absolute")
START = {"guidance": 1.0, "negative_key_type": "other", "loss_form": "squared"}
"""Each group changes one of these settings."""
MOST_SEEDS = 3
"""Of the negatives and forms; the weights, which most claims compare, have every seed."""
ALIKE = 0.25
"""Nats per token: closer than this counts as alike."""
RANDOM_DOC_REPS = 16
"""Drawn from the standard normal distribution; every document is read under them too."""
DOC_REPS = {
    "own": ("its own", OWN),
    "other": ("another document's", NEGATIVE),
    "random": ("a random one", GUIDANCE),
    "origin": ("the origin", FAINT),
}


@dataclass(frozen=True)
class Known:
    """Of one setting, one per seed: cross entropies (nats per token) by DocRep, and shares."""

    own: list[float]
    other: list[float]
    origin: list[float]
    random: list[float]
    recognised: list[int]
    """Documents recognised."""
    continued_own: list[float]
    """Share of tokens continued correctly under the own DocRep, and under another's."""
    continued_other: list[float]

    @property
    def gap(self) -> list[float]:
        """Another's minus own cross entropy, one per seed."""
        return [other - own for other, own in zip(self.other, self.own, strict=True)]


@dataclass(frozen=True)
class Results:
    """By weight α, by kind of negative DocRep, by form of the term."""

    tau: float
    """Target of the negative cross entropy, nats per token."""
    weights: dict[str, Known]
    negatives: dict[str, Known]
    forms: dict[str, Known]


class Guidance(Study[Results]):
    """What does the guidance loss buy, and what does training without it lose?"""

    results = Results
    size = (12, 6.4)
    alt = (
        "Three columns: weights of guidance, kinds of negatives, forms of the term. Above, cross "
        "entropies under the own, another, a random DocRep and the origin, one dot per seed; "
        "below, the share of tokens continued correctly under the own and under another DocRep."
    )
    caption = (
        f"Negatives and forms: at most {MOST_SEEDS} seeds. Where not varied: α 1, another "
        "document's DocRep, squared."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every setting; read its documents under four kinds of DocReps."""

        def known(most_seeds: int | None = None, **change: object) -> Known:
            runs = (pool.run(n, **{**START, **change}) for n in pool.seed_numbers(most_seeds))
            return Known(**columns(one_run(pool, run) for run in runs))

        return Results(
            pool.config().target_negative_ce,
            {alpha: known(guidance=float(alpha)) for alpha in ALPHAS},
            {kind: known(MOST_SEEDS, negative_key_type=kind) for kind in NEGATIVES},
            {form: known(MOST_SEEDS, loss_form=form) for form in FORMS},
        )

    def _draw(self, figure: Figure, results: Results) -> None:
        groups = {
            "weight α": results.weights,
            "negative DocRep": results.negatives,
            "form of the term": results.forms,
        }
        widths = [len(group) for group in groups.values()]
        panels = figure.subplots(2, 3, sharey="row", width_ratios=widths)
        for (top, bottom), (title, group) in zip(panels.T, groups.items(), strict=True):
            top.axhline(results.tau, color=FAINT, lw=1, ls=(0, (4, 3)), label="target τ")
            for key, (label, color) in DOC_REPS.items():
                dots(top, values_of(group, key), color, label, title=title)
            for key, color in (("continued_own", OWN), ("continued_other", NEGATIVE)):
                dots(bottom, values_of(group, key, 100), color)
        # Last, so that the rows, which share their axes, have room for every column.
        panels[0, 0].set(ylabel="cross entropy\n(nats per token)", ylim=(0, None))
        panels[1, 0].set(ylabel="tokens continued\ncorrectly (%)", ylim=(0, 104))
        figure.legend(
            *panels[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False,
            title="read under the DocRep", alignment="left",
        )  # fmt: skip

    def title(self, results: Results) -> str:
        """Says what guidance does to another's DocRep, if α 1 is clearly below α 0."""
        weights = results.weights
        if clearly_above(weights["0"].continued_other, weights["1"].continued_other):
            return "With guidance, another document's DocRep gives away less of a text"
        return "What the weight, the negatives and the form of guidance do"

    def _judge(self, results: Results) -> Claims:
        weights, negatives, forms = results.weights, results.negatives, results.forms
        none, *guided = weights.values()
        yield Claim(
            "Guidance widens the gap between another document's DocRep and the own one",
            f"other - own in nats per token, by α {spreads(values_of(weights, 'gap'))}",
            verdict(*(clearly_above(one.gap, none.gap) for one in guided)),
            published="α 0.1 and 0.5 only",
            why="The own DocRep tells documents apart by itself: without guidance "
            f"{spread(none.recognised)} documents are recognised",
            exploratory=True,
        )
        yield Claim(
            "Without guidance (α 0) a text is read better at the origin, which is no document's",
            f"cross entropy at the origin, by α {spreads(values_of(weights, 'origin'))}",
            verdict(*(clearly_above(one.origin, none.origin) for one in guided)),
            exploratory=True,
        )
        continued = values_of(weights, "continued_other")
        yield Claim(
            "Without guidance (α 0) more of a text is continued under another document's DocRep",
            f"share of tokens continued under another's, by α {spreads(continued)}",
            verdict(*(clearly_above(none.continued_other, one.continued_other) for one in guided)),
            exploratory=True,
        )
        yield Claim(
            "A larger α slows the learning of the own text",
            f"own cross entropy, by α {spreads(values_of(weights, 'own'))}",
            verdict(clearly_above(weights["0.5"].own, weights["0.1"].own)),
            published="epoch 100: 0.51 at α 0.1, 0.74 at 0.5",
        )
        gaps = values_of(negatives, "gap")
        other, *others = gaps.values()
        above = [kind for kind, gap in gaps.items() if clearly_above(gap, other)]
        yield Claim(
            "Of the four negatives, another document's DocRep separates documents most",
            f"other - own in nats per token {spreads(gaps)}",
            verdict(*(clearly_above(other, gap) for gap in others)),
            why=f"Clearly above it: {', '.join(above)}" if above else "",
        )
        own, under_another = values_of(forms, "own"), values_of(forms, "other")
        alike = [
            abs(spread(one["squared"]).mean - spread(one["absolute"]).mean) < ALIKE
            for one in (own, under_another)
        ]
        yield Claim(
            f"The paper's form of the term and its program's do alike (within {ALIKE} nats)",
            f"own {spreads(own)}; other {spreads(under_another)}",
            verdict(*alike),
            published="not compared",
            why="Where the squared term is clamped, its gradient is that of the own cross "
            "entropy; the absolute one pushes the negative all along",
        )


def one_run(pool: RunPool, run: Run) -> dict[str, float]:
    """How well a run's documents are read under each of DOC_REPS, and continued."""
    known, continued, _ = recall_of(run, lambda: pool.lm)
    memory = run.load_memory()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(RANDOM_DOC_REPS, memory.config.key_dim, generator=generator)
    points = torch.cat([torch.zeros(1, memory.config.key_dim), drawn])
    # (n_docs, 1 + RANDOM_DOC_REPS)
    ce = cross_entropies_at(pool.cache_hidden_states(run), memory, points)
    return {
        "own": known.own,
        "other": known.other,
        "origin": ce[:, 0].mean().item(),
        "random": ce[:, 1:].mean().item(),
        "recognised": known.recognised,
        "continued_own": continued.own,
        "continued_other": continued.other,
    }
