"""Continuity: does a small step of the DocRep make a small change of what is recalled?

The paper argues that g is Lipschitz, so that near DocReps select near memories and perplexity
changes smoothly. Measured on straight lines between DocReps: the ratio of change to step for
g(𝒦), the selection k_doc, and every document's cross entropy, of its first segment. For a linear g
the exact constant is known, the largest singular value of W_g, and no ratio may exceed it. For the
cross entropy none is known; but if it has one, halving the step leaves the steepest ratio as it
is, while a jump doubles it.
"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from docmem.evaluation.cached import first_segments
from docmem.evaluation.continuity import selection_bound
from docmem.evaluation.plane import along_line
from docmem.experiments.drawing import dots, shade
from docmem.experiments.pool import Claim, RunPool, all_hold, spread, verdict
from docmem.plots.style import FAINT, INK, document_color, headline, plain_log_ticks, styled
from docmem.training.run import Run

QUESTION = "Does a small step of the DocRep make a small change of what is recalled?"
ACTIVATIONS = ("sigmoid", "relu", "tanh")
HALVINGS = 2
POINTS = 5 * 2**HALVINGS + 1
"""Places along a line: steps of 1/5 of it, halved twice."""
ROUNDING = 1e-3
"""A ratio of float32 numbers may exceed its bound by this share."""


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each activation and seed: the steepest ratios on lines from each DocRep to the next.

    `line` is the first seed's first line: cross entropies of every document (n_docs, points).
    """
    results: dict[str, Any] = {}
    for name in ACTIVATIONS:
        seeds = []
        for run in pool.runs(key_activation=name):
            steepest, ce = steepest_of(pool, run)
            seeds.append(steepest)
            if run.config.seed == 1:
                line = ce
        results[name] = {"seeds": seeds, "line": line}
    return results


@torch.no_grad()
def steepest_of(pool: RunPool, run: Run) -> tuple[dict[str, Any], list[list[float]]]:
    """The steepest ratios of one run, and the cross entropies along its first line.

    `ce` has the steepest at the widest step first, then at half of it, and so on; `seen` is the
    share of its exact constant that g reaches on the lines.
    """
    memory, cache = run.load_memory(), first_segments(run, pool.lm)
    linear = memory.document_key
    assert isinstance(linear, nn.Linear)  # as every preset's
    exact = torch.linalg.matrix_norm(linear.weight, 2).item()
    bound = selection_bound(memory)
    share = torch.linspace(0, 1, POINTS)[:, None]
    g, selection = 0.0, 0.0
    ce = [0.0] * (HALVINGS + 1)
    lines = []
    starts = memory.doc_reps
    for start, end in zip(starts, starts.roll(-1, 0), strict=True):
        doc_reps = torch.lerp(start, end, share)
        g = max(g, steepest(linear(doc_reps), doc_reps))
        selection = max(selection, steepest(memory.select(doc_reps), doc_reps))
        line = along_line(cache, memory, start, end, POINTS).ce  # (n_docs, points)
        for halved in range(HALVINGS + 1):
            step = 2 ** (HALVINGS - halved)
            for one in line[:, ::step]:
                ce[halved] = max(ce[halved], steepest(one[:, None], doc_reps[::step]))
        lines.append(line)
    found = {"exact": exact, "bound": bound, "g": g, "selection": selection, "ce": ce}
    return found, lines[0].tolist()


def steepest(values: Tensor, doc_reps: Tensor) -> float:
    """The largest change of `values` (points, …) from a point to the next, a unit of distance."""
    change = values.diff(dim=0).norm(dim=1)
    return (change / doc_reps.diff(dim=0).norm(dim=1)).max().item()


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """One line read closely; ratios against their bounds; the steepest ratio as steps halve."""
    grid = figure.add_gridspec(2, 6)
    for column, name in enumerate(ACTIVATIONS):
        axes = figure.add_subplot(grid[0, 2 * column : 2 * column + 2])
        for index, values in enumerate(results[name]["line"]):
            ends = index < 2
            axes.plot(
                torch.linspace(0, 1, len(values)), values, ".-", ms=3.5,
                color=document_color(index), lw=2.2 if ends else 0.9, alpha=1 if ends else 0.6,
            )  # fmt: skip
        axes.set_title(name)
        axes.set_ylim(0)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the way from DocRep 1 to 2")
        if column == 0:
            axes.set_ylabel("cross entropy of each\ndocument (nats per token)")
    left, right = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
    reached = {}
    for name in ACTIVATIONS:
        seeds = results[name]["seeds"]
        reached[f"g\n{name}"] = [seed["g"] / seed["exact"] for seed in seeds]
        reached[f"k_doc\n{name}"] = [seed["selection"] / seed["bound"] for seed in seeds]
    dots(left, reached)
    left.axhline(1, color=INK, lw=1.2)
    left.annotate("exact constant, or bound", (0, 1), (-8, 3), textcoords="offset points")
    left.set_ylim(0, 1.2)
    left.set_ylabel("steepest ratio seen,\nas a share of its bound")
    for place, name in enumerate(ACTIVATIONS):
        color = shade(place, len(ACTIVATIONS))
        for number, seed in enumerate(results[name]["seeds"]):
            right.plot(
                range(HALVINGS + 1), seed["ce"], "o-", ms=4, lw=1.3, color=color, alpha=0.7,
                label=name if number == 0 else None,
            )  # fmt: skip
    jump = max(seed["ce"][0] for name in ACTIVATIONS for seed in results[name]["seeds"])
    right.plot(range(HALVINGS + 1), [jump * 2**n for n in range(HALVINGS + 1)], color=FAINT,
               lw=1.2, ls=(0, (4, 3)), label="what a jump would do")  # fmt: skip
    right.set_yscale("log")
    plain_log_ticks(right.yaxis)
    right.set_ylim(top=jump * 2 ** (HALVINGS + 2))  # room for the legend
    right.set_xticks(range(HALVINGS + 1), [f"1/{5 * 2**n}" for n in range(HALVINGS + 1)])
    right.set_xlabel("step, as a share of the line")
    right.set_ylabel("steepest cross entropy seen\n(nats per token, a unit of DocRep)")
    right.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    title = "Change of g, of the selection and of the cross entropy on lines between DocReps"
    if all_hold(*claims(results)):
        title = "Small steps of a DocRep make small changes, and nothing jumps"
    headline(
        figure,
        title,
        "Cross entropies of first segments. Above, the first line of the first seed; below, the "
        f"steepest of all lines. {note}",
    )
    return figure


SIZE = (12, 7.4)
ALT = (
    "Above, cross entropies of ten documents along a line from the first DocRep to the second, "
    "for sigmoid, relu and tanh; below, the steepest changes of g and of the selection as shares "
    "of their bounds, and the steepest change of the cross entropy as steps are halved."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """No ratio exceeds its bound; the cross entropy's does not grow as a jump's would."""
    every = [seed for name in ACTIVATIONS for seed in results[name]["seeds"]]

    def share(name: str, key: str, bound: str) -> str:
        return str(spread(seed[key] / seed[bound] for seed in results[name]["seeds"]))

    def growth(name: str) -> list[float]:
        return [seed["ce"][-1] / seed["ce"][-2] for seed in results[name]["seeds"]]

    return [
        Claim(
            "g is Lipschitz: linear, it never changes by more than the largest singular value of "
            "W_g, a unit of DocRep",
            "argued",
            "steepest seen as a share of that "
            + ", ".join(f"{name} {share(name, 'g', 'exact')}" for name in ACTIVATIONS),
            verdict(all(seed["g"] <= seed["exact"] * (1 + ROUNDING) for seed in every)),
        ),
        Claim(
            "Near DocReps select near memories, within the slope of the activation times that",
            "argued",
            "steepest seen as a share of the bound "
            + ", ".join(f"{name} {share(name, 'selection', 'bound')}" for name in ACTIVATIONS),
            verdict(all(seed["selection"] <= seed["bound"] * (1 + ROUNDING) for seed in every)),
        ),
        Claim(
            "Perplexity changes smoothly: the steepest ratio grows by less than 1.5 when the step "
            "is halved for the last time (a jump: 2)",
            "argued",
            ", ".join(f"{name} × {spread(growth(name))}" for name in ACTIVATIONS),
            verdict(*(max(growth(name)) < 1.5 for name in ACTIVATIONS)),
        ),
    ]
