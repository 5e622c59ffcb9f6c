"""What guidance does: its weight α, the negatives it reads under, and the form of its term.

The paper trains with α 0.1 and 0.5 and names four kinds of negatives; it writes the term as
|τ - L⁻| where its program computes a clamped square. What is lost without guidance it leaves open:
see also `procedure`.
"""

import statistics
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from docmem.evaluation.cached import measure as recall_of
from docmem.experiments.claims import LEARNED, Claim, Claims
from docmem.experiments.drawing import dot_series, level
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import OWN_MARGIN, alike, highest, more, spreads, values_of
from docmem.experiments.study import Study, columns
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.plots.style import FAINT, GUIDANCE, NEGATIVE, OWN
from docmem.training.run import Run

ALPHAS = ("0", "0.1", "0.2", "0.5", "1")
"""Those of the presets and procedures are among them."""
NEGATIVES = ("other", "random", "zero", "perturb")
FORMS = ("squared", "absolute")
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

    alpha: str
    """The procedure's own weight, one of ALPHAS."""
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
    shown = "What the weight, the negatives and the form of guidance do"
    finding = "With tanh guidance does not widen the gap between another's DocRep and the own one"
    needs = ("does not hold",)
    caption = (
        "Where not varied: α {results.alpha}, another document's DocRep, the form of the term that "
        "the procedure has."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every setting; read its documents under four kinds of DocReps."""

        def known(**change: object) -> Known:
            return Known(**columns(one_run(pool, run) for run in pool.runs(**change)))

        config = pool.config()
        return Results(
            f"{config.guidance:g}",
            config.target_negative_ce,
            {alpha: known(guidance=float(alpha)) for alpha in ALPHAS},
            {kind: known(negative_key_type=kind) for kind in NEGATIVES},
            {form: known(loss_form=form) for form in FORMS},
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
            read = {
                label: (color, values_of(group, key)) for key, (label, color) in DOC_REPS.items()
            }
            dot_series(top, read, title=title)
            text = "target τ" if top is panels[0, 0] else ""
            level(top, results.tau, text, color=FAINT, ls=(0, (4, 3)))
            continued = {
                label: (color, values_of(group, f"continued_{key}", 100))
                for key, (label, color) in DOC_REPS.items()
                if key in ("own", "other")
            }
            dot_series(bottom, continued)
        # Last, so that the rows, which share their axes, have room for every column.
        panels[0, 0].set(ylabel="cross entropy\n(nats per token)", ylim=(0, None))
        panels[1, 0].set(ylabel="tokens continued\ncorrectly (%)", ylim=(-2, 104))
        figure.legend(
            *panels[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False,
            title="read under the DocRep", alignment="left",
        )  # fmt: skip

    def _claims(self, results: Results) -> Claims:
        weights, forms = results.weights, results.forms
        none, usual = weights["0"], weights[results.alpha]
        worse = highest([none.own, usual.own])

        def by_weight(key: str) -> str:
            return f"by α {spreads(values_of(weights, key), ' ')}"

        yield Claim(
            "With tanh guidance widens the gap between another document's DocRep and the own one",
            [more("other − own, guided minus not, nats", usual.gap, none.gap, 0.25)],
            published="α 0.1 and 0.5 only",
            note=f"{by_weight('gap')}; another's alone, which guidance aims at τ = {results.tau:g},"
            f" {by_weight('other')}",
            own=worse,
            exploratory=True,
        )
        yield Claim(
            "Without guidance a text is read better at the origin, which is no document's",
            [more("cross entropy there, guided minus not, nats", usual.origin, none.origin, 0.25)],
            note=by_weight("origin"),
            own=worse,
            exploratory=True,
        )
        yield Claim(
            "Without guidance more of a text is continued under another document's DocRep",
            [more("share of tokens, not guided minus guided", none.continued_other,
                  usual.continued_other, 0.05)],
            note=by_weight("continued_other"),
            own=worse,
            exploratory=True,
        )  # fmt: skip
        yield Claim(
            "After all epochs a larger α has learned less of the own text",
            [more("own cross entropy, α 0.5 − α 0.1, nats", weights["0.5"].own,
                  weights["0.1"].own, OWN_MARGIN)],
            published="epoch 500, α 0.1 and 0.5: 0.08 and 0.08; 20 documents: 0.48 and 0.57",
            note=by_weight("own"),
            exploratory=True,
        )  # fmt: skip
        other, *others = results.negatives.values()
        learned = [one.gap for one in others if statistics.fmean(one.own) <= LEARNED]
        yield Claim(
            "Of the four negatives, another document's DocRep separates documents most",
            [more("other − own, this one minus the best of the rest, nats", other.gap,
                  highest(learned or [one.gap for one in others]), 0.25)],
            note=f"{spreads(values_of(results.negatives, 'gap'), ' ')}; own cross entropy "
            f"{spreads(values_of(results.negatives, 'own'), ' ')}; what has not learned is not "
            "among the rest",
            own=other.own,
            exploratory=True,
        )  # fmt: skip
        yield Claim(
            "The paper's form of the term and its program's do alike, own cross entropy within "
            f"{OWN_MARGIN:g} nats and another's within 0.25",
            [
                alike(f"{key} cross entropy, squared − absolute, nats",
                      getattr(forms["squared"], key), getattr(forms["absolute"], key), margin)
                for key, margin in (("own", OWN_MARGIN), ("other", 0.25))
            ],
            published="not compared",
            note="where the squared term is clamped, its gradient is that of the own cross "
            "entropy; the absolute one pushes the negative all along; own cross entropy "
            f"{spreads(values_of(forms, 'own'), ' ')}",
            own=highest(one.own for one in forms.values()),
            exploratory=True,
        )  # fmt: skip


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
        "continued_own": continued.own,
        "continued_other": continued.other,
    }
