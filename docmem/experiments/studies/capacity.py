"""Capacity: how many documents fit into how many entries.

The paper leaves it open. Every cell is trained anew, for equally many epochs: what is measured is
what a memory of that size has learned by then, so the last tenth of the way is measured beside it.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from docmem.evaluation.recall import recognition
from docmem.experiments.drawing import band, shade
from docmem.experiments.pool import Claim, RunPool, all_hold, spread, verdict
from docmem.plots.style import headline, styled

QUESTION = "How many documents fit into how many memory entries?"
DOCUMENTS = (5, 10, 20)
ENTRIES = (16, 32, 64, 128, 256)
"""Each twice the one before it."""
MOST_SEEDS = 2
EPOCHS = 40
LEARNED = 2.0
"""Own cross entropy below which a document counts as learned, nats per token."""


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each size and seed: own and other cross entropy, and what the last tenth still gained.

    `cells` is [documents][entries][seed]; `gained` is how far the own cross entropy in training
    fell over the last tenth of the epochs.
    """
    seeds = pool.seed_numbers(MOST_SEEDS)
    cells = [
        [[cell(pool, seed, count, entries) for seed in seeds] for entries in ENTRIES]
        for count in DOCUMENTS
    ]
    return {
        "documents": list(DOCUMENTS), "entries": list(ENTRIES), "epochs": EPOCHS, "cells": cells,
    }  # fmt: skip


def cell(pool: RunPool, seed: int, count: int, entries: int) -> dict[str, float]:
    """One size, trained with one seed."""
    sizes = {"max_labels": count, "hook_memory_dim": entries, "num_epochs": EPOCHS}
    run = pool.run(seed, pool.documents(count), **sizes)
    known = recognition(pool.cache_hidden_states(run), run.load_memory())
    losses = [epoch.positive_ce for epoch in run.load_history()]
    gained = losses[-1 - max(1, len(losses) // 10)] - losses[-1]
    return {"own": known.own, "other": known.other, "gained": gained}


def table(results: dict[str, Any], key: str) -> np.ndarray:
    """One number of every cell: (documents, entries, seeds)."""
    return np.array([[[s[key] for s in seeds] for seeds in row] for row in results["cells"]])


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """Own cross entropy as a heat map with its numbers, as curves, and entries a document."""
    entries, counts = results["entries"], results["documents"]
    own = table(results, "own")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    mean = own.mean(2)
    image = left.imshow(mean, cmap="viridis_r", aspect="auto", vmin=0, vmax=mean.max())
    for row, column in np.ndindex(*mean.shape):
        ink = "white" if mean[row, column] > 0.45 * mean.max() else "black"
        left.text(
            column, row, f"{mean[row, column]:.2f}", ha="center", va="center", color=ink,
            fontsize=12,
        )  # fmt: skip
    left.set_xticks(range(len(entries)), [str(n) for n in entries])
    left.set_yticks(range(len(counts)), [str(n) for n in counts])
    left.spines[:].set_visible(False)
    left.set_xlabel("memory entries")
    left.set_ylabel("documents")
    left.set_title("mean over seeds")
    figure.colorbar(image, ax=left, label="cross entropy, own DocRep (nats per token)")
    shapes = ("o", "s", "^")
    for index, count in enumerate(counts):
        color = shade(index, len(counts))
        band(middle, entries, own[index].T.tolist(), color, f"{count} documents")
        per = [n / count for n in entries]
        right.plot(
            np.repeat(per, own.shape[2]), own[index].ravel(), shapes[index], color=color, ms=6,
            alpha=0.7, mew=0, label=f"{count} documents",
        )  # fmt: skip
    for axes, label in ((middle, "memory entries"), (right, "memory entries a document")):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(0)
        axes.set_xlabel(label)
        axes.set_ylabel("cross entropy, own DocRep (nats per token)")
        axes.legend(frameon=False, fontsize=9)
    middle.set_title("by entries")
    right.set_title("by entries a document")
    title = "What a memory of each size knows of its documents"
    if all_hold(*claims(results)[:3]):
        title = "More entries hold more documents"
    headline(
        figure,
        title,
        f"{own.shape[2]} seeds, {results['epochs']} epochs a cell. {note}",
    )
    return figure


SIZE = (13, 4.6)
ALT = (
    "Left: heat map of own cross entropy, documents down, memory entries across; middle: the same "
    "as a curve for each number of documents; right: over entries a document, a point a run."
)


def beside(results: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Changes of own cross entropy where documents and entries both double, and documents alone.

    Of means over seeds, nats per token.
    """
    mean = table(results, "own").mean(2)
    both = (mean[1:, 1:] - mean[:-1, :-1]).ravel()
    alone = (mean[1:] - mean[:-1]).ravel()
    return both.tolist(), alone.tolist()


def claims(results: dict[str, Any]) -> list[Claim]:
    """More entries help every number of documents; more documents cost at every size."""
    own, gained = table(results, "own"), table(results, "gained")
    entries, counts, mean = results["entries"], results["documents"], own.mean(2)
    smallest, largest = spread(own[:, 0].mean(0)), spread(own[:, -1].mean(0))
    few, many = spread(own[0].mean(0)), spread(own[-1].mean(0))
    fits = [
        max((count for count, ce in zip(counts, column, strict=True) if ce < LEARNED), default=0)
        for column in mean.T
    ]
    steps = np.diff(mean, axis=1)
    both, alone = (float(np.abs(differences).mean()) for differences in beside(results))
    still = f"the last tenth of training still gained {gained.mean():.2f} nats on average"
    return [
        Claim(
            "More entries lower the own cross entropy, whatever the number of documents",
            "left open",
            f"{smallest} nats with {entries[0]} entries, {largest} with {entries[-1]}, mean over "
            f"{counts[0]} to {counts[-1]} documents after {results['epochs']} epochs; {still}",
            verdict(bool((mean[:, -1] < mean[:, 0]).all()), bool((steps < 0).all())),
        ),
        Claim(
            "More documents raise it, whatever the number of entries",
            "left open",
            f"{few} nats with {counts[0]} documents, {many} with {counts[-1]}, mean over entries",
            verdict(bool((mean[-1] > mean[0]).all()), bool((np.diff(mean, axis=0) > 0).all())),
        ),
        Claim(
            f"Documents learned (own cross entropy below {LEARNED:g}) grow with the entries",
            "left open",
            "of "
            + "; ".join(f"{n} entries: {count}" for n, count in zip(entries, fits, strict=True)),
            verdict(fits == sorted(fits) and fits[-1] > fits[0]),
        ),
        Claim(
            "What counts is entries a document: twice the documents with twice the entries are "
            "known as well",
            "left open",
            f"mean change {both:.2f} nats where both double, {alone:.2f} where the documents "
            "double alone; means over seeds",
            verdict(both < 0.25, both < alone / 2),
            exploratory=True,
        ),
    ]
