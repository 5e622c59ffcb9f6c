"""Continuity: does a small step of the DocRep make a small change of what is recalled?

The paper argues that g is Lipschitz, so that near DocReps select near memories and perplexity
changes smoothly. Measured on straight lines between DocReps: the ratio of change to step for
g(𝒦), the selection k_doc, and every document's cross entropy, of its first tokens. For a linear g
the exact constant is known, the largest singular value of W_g, and no ratio may exceed it. For the
cross entropy none is known; but if it has one, halving the step leaves the steepest ratio as it
is, while a jump doubles it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from docmem.evaluation.cached import first_segments
from docmem.evaluation.continuity import selection_bound
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dots, level, stacked
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import below, values_of
from docmem.experiments.study import Study, columns
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.plots.style import FAINT, INK, activation_color, document_color, plain_log_ticks
from docmem.training.run import Run

ACTIVATIONS = ("sigmoid", "relu", "tanh")
HALVINGS = 2
TOKENS = 32
"""Of each document are read, the first."""
ROUNDING = 1e-3
"""A ratio of float32 numbers may exceed its bound by this share."""


@dataclass(frozen=True)
class Steepest:
    """Of one activation: the steepest ratios on all lines, one per seed."""

    exact: list[float]
    """The largest singular value of W_g, which g cannot exceed."""
    bound: list[float]
    """What the selection cannot exceed."""
    g: list[float]
    selection: list[float]
    ce: list[list[float]]
    """Of the cross entropies, at the widest step first, then at half of it, and so on."""
    own: list[float]
    """Cross entropy under the own DocRep, nats per token."""
    line: list[list[float]]
    """The first seed's first line: cross entropies of every document, (n_docs, points)."""

    @property
    def g_share(self) -> list[float]:
        """The steepest ratio of g as a share of its exact constant, one per seed."""
        return np.divide(self.g, self.exact).tolist()

    @property
    def selection_share(self) -> list[float]:
        """The steepest ratio of the selection as a share of its bound, one per seed."""
        return np.divide(self.selection, self.bound).tolist()

    @property
    def growth(self) -> list[float]:
        """By what the cross entropy's steepest ratio grows at the last halving, one per seed."""
        return [ratios[-1] / ratios[-2] for ratios in self.ce]


@dataclass(frozen=True)
class Results:
    """By activation."""

    activations: dict[str, Steepest]


class Continuity(Study[Results]):
    """Does a small step of the DocRep make a small change of what is recalled?"""

    results = Results
    points = 5 * 2**HALVINGS + 1
    """Places along a line: steps of 1/5 of it, halved twice."""
    size = (12, 7.4)
    alt = (
        "Above, cross entropies of ten documents along a line from the first DocRep to the second, "
        "for sigmoid, relu and tanh; below, the steepest changes of g and of the selection as "
        "shares of their bounds, and the steepest change of the cross entropy as steps are halved."
    )
    shown = "Change of g, of the selection and of the cross entropy on lines between DocReps"
    finding = "A smaller step of a DocRep makes a smaller change: nothing jumps"
    needs = ("as it must be", "as it must be", "as it must be")
    caption = (
        f"Cross entropies of the first {TOKENS} tokens. Above, the first line of the first seed, "
        "each on a scale of its own, bold: the two documents that it joins, thin: the others; "
        "below, the steepest of all lines."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every activation with every seed; take the steepest ratios of each run."""
        found = {}
        for name in ACTIVATIONS:
            seeds = [self.one_run(pool, run) for run in pool.runs(key_activation=name)]
            found[name] = Steepest(**columns(row for row, _ in seeds), line=seeds[0][1].tolist())
        return Results(found)

    @torch.no_grad()
    def one_run(
        self, pool: RunPool, run: Run
    ) -> tuple[dict[str, Any], Float[Tensor, "n_docs points"]]:
        """The steepest ratios of one run, and the cross entropies along its first line."""
        memory, cache = run.load_memory(), first_segments(run, pool.lm, TOKENS)
        linear = memory.document_key
        assert isinstance(linear, nn.Linear)  # as every preset's
        starts, share = memory.doc_reps[:, None], torch.linspace(0, 1, self.points)[:, None]
        lines = torch.lerp(starts, starts.roll(-1, 0), share)  # (n_docs, points, key_dim)
        ce = cross_entropies_at(cache, memory, lines.flatten(0, 1)).unflatten(1, lines.shape[:2])
        row = {
            "exact": torch.linalg.matrix_norm(linear.weight, 2).item(),
            "bound": selection_bound(memory),
            "g": steepest(linear(lines), lines),
            "selection": steepest(memory.select(lines), lines),
            "ce": [
                steepest(ce[:, :, :: 2**n, None], lines[:, :: 2**n])
                for n in reversed(range(HALVINGS + 1))
            ],
            "own": ce[:, :, 0].diagonal().mean().item(),  # a line begins at its document's DocRep
        }
        return row, ce[:, 0]

    def _draw(self, figure: Figure, results: Results) -> None:
        found = results.activations
        above, below = stacked(figure, 1, 1)
        panels = above.subplots(1, len(found))
        for axes, (name, one) in zip(panels, found.items(), strict=True):
            for index, values in enumerate(one.line):
                ends = index < 2
                axes.plot(
                    torch.linspace(0, 1, len(values)), values, ".-", ms=3.5,
                    color=document_color(index), lw=2.2 if ends else 0.9, alpha=1 if ends else 0.6,
                )  # fmt: skip
                if ends:  # named where its own DocRep is
                    axes.annotate(
                        str(index + 1), (index, values[-index]), (4 - 8 * index, 5),
                        textcoords="offset points", color=document_color(index), fontweight="bold",
                        ha="right" if index else "left",
                    )  # fmt: skip
            axes.set(xlabel="share of the way from DocRep 1 to 2", xlim=(0, 1))
            axes.set_title(name)
            axes.set_ylim(0)
        panels[0].set_ylabel("cross entropy of each\ndocument (nats per token)")
        left, right = below.subplots(1, 2)
        shares: dict[str, list[float]] = {}
        for name, one in found.items():
            shares |= {f"g\n{name}": one.g_share, f"k_doc\n{name}": one.selection_share}
        dots(left, shares, ylabel="steepest ratio seen,\nas a share of its bound", ylim=(0, 1.2))
        level(left, 1, "exact constant, or bound", color=INK)
        draw_halvings(right, results)

    def _claims(self, results: Results) -> Claims:
        for claim, key, what, limit in (
            ("g is Lipschitz: linear, it never changes by more than the largest singular value "
             "of W_g, per unit of DocRep", "g_share", "steepest as a share of that", 1 + ROUNDING),
            ("Near DocReps select near memories, within the slope of the activation times that",
             "selection_share", "steepest as a share of the bound", 1 + ROUNDING),
            ("Perplexity changes smoothly, and the steps here resolve it: the steepest ratio grows "
             "by less than 1.5 when the step is halved for the last time (a jump: 2)",
             "growth", "growth", 1.5),
        ):  # fmt: skip
            seen = values_of(results.activations, key)
            parts = [below(f"{name}, {what}", each, limit) for name, each in seen.items()]
            yield Claim(claim, parts, published="argued", papers=True, check=True)


def draw_halvings(axes: Axes, results: Results) -> None:
    """The cross entropy's steepest ratio as steps are halved, and what a jump would do."""
    found, steps = results.activations, range(HALVINGS + 1)
    for place, (name, one) in enumerate(found.items()):
        color = activation_color(name, place)
        for ratios in one.ce:
            axes.plot(steps, ratios, "o-", ms=4, lw=1.3, color=color, alpha=0.7)
        axes.plot([], [], "o-", ms=4, color=color, label=name)
    jump = max(ratios[0] for one in found.values() for ratios in one.ce)
    axes.plot(steps, [jump * 2**n for n in steps], color=FAINT, lw=1.2, ls=(0, (4, 3)),
              label="what a jump would do")  # fmt: skip
    axes.set_yscale("log")
    plain_log_ticks(axes.yaxis)
    axes.set_ylim(top=jump * 2 ** (HALVINGS + 2))  # room for the legend
    axes.set_xticks(steps, [f"1/{5 * 2**n}" for n in steps])
    axes.set_xlabel("step, as a share of the line")
    axes.set_ylabel("steepest slope of the cross entropy\n(nats per token per unit of DocRep)")
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)


def steepest(
    values: Float[Tensor, "... points d"], doc_reps: Float[Tensor, "... points k"]
) -> float:
    """The largest change of `values` from a point to the next, per unit of distance."""
    change = values.diff(dim=-2).norm(dim=-1)
    return (change / doc_reps.diff(dim=-2).norm(dim=-1)).max().item()
