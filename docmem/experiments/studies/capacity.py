"""Capacity: how many documents fit into how many entries.

The paper leaves it open. Every cell is trained anew, for equally many epochs: what is measured is
what a memory of that size has learned by then, so the last tenth of the epochs is measured too.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from docmem.evaluation.recall import recognition
from docmem.experiments.drawing import band, cell_texts, shade
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import spread, verdict
from docmem.experiments.study import Claim, Claims, Study

DOCUMENTS = (5, 10, 20)
ENTRIES = (16, 32, 64, 128, 256)
"""Each twice the one before it."""
MOST_SEEDS = 2
EPOCHS = 40
LEARNED = 2.0
"""Own cross entropy below which a document counts as learned, nats per token."""
CE = "cross entropy, own DocRep (nats per token)"

Cells = list[list[list[float]]]
"""One number per cell and seed, [documents][entries][seed]."""


@dataclass(frozen=True)
class Results:
    """Of every size: cross entropies in nats per token."""

    documents: list[int]
    entries: list[int]
    epochs: int
    own: Cells
    """Under the own DocRep."""
    gained: Cells
    """How far the own cross entropy in training fell over the last tenth of the epochs."""

    @property
    def mean(self) -> np.ndarray:
        """Mean own cross entropy over seeds, (documents, entries)."""
        return np.array(self.own).mean(2)

    @property
    def seeds(self) -> int:
        """Seeds of each size."""
        return len(self.own[0][0])

    def doubled(self) -> tuple[np.ndarray, np.ndarray]:
        """Changes of the mean where documents and entries both double, and documents alone."""
        return self.mean[1:, 1:] - self.mean[:-1, :-1], np.diff(self.mean, axis=0)


class Capacity(Study[Results]):
    """How many documents fit into how many memory entries?"""

    results = Results
    size = (13, 4.6)
    alt = (
        "Left: heat map of own cross entropy, documents down, memory entries across; middle: the "
        "same as a curve for each number of documents; right: over entries per document, one "
        "point per run."
    )
    shown = "What a memory of each size knows of its documents"
    finding = "More entries hold more documents"
    needs = ("holds", "holds", "holds")
    caption = "{results.seeds} seeds, {results.epochs} epochs per cell."

    def measure(self, pool: RunPool) -> Results:
        """Train a memory of every size; measure what it knows and what it still gained."""
        seeds = pool.seed_numbers(MOST_SEEDS)
        cells = [
            [[cell(pool, seed, count, entries) for seed in seeds] for entries in ENTRIES]
            for count in DOCUMENTS
        ]
        own, gained = np.moveaxis(np.array(cells), 3, 0).tolist()
        return Results(list(DOCUMENTS), list(ENTRIES), EPOCHS, own, gained)

    def _draw(self, figure: Figure, results: Results) -> None:
        entries, counts, mean = results.entries, results.documents, results.mean
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
        image = left.imshow(mean, cmap="viridis_r", aspect="auto", vmin=0, vmax=mean.max())
        cell_texts(left, image, "{:.2f}".format, 12)
        left.set_xticks(range(len(entries)), [str(n) for n in entries])
        left.set_yticks(range(len(counts)), [str(n) for n in counts])
        left.spines[:].set_visible(False)
        left.set(xlabel="memory entries", ylabel="documents", title="mean over seeds")
        figure.colorbar(image, ax=left, label=CE)
        for index, (count, own) in enumerate(zip(counts, results.own, strict=True)):
            color, label = shade(index, len(counts)), f"{count} documents"
            band(middle, entries, np.transpose(own).tolist(), color, label)
            per_document = np.repeat([n / count for n in entries], results.seeds)
            right.plot(
                per_document, np.ravel(own), "os^"[index % 3], color=color, ms=6, alpha=0.7, mew=0,
                label=label,
            )  # fmt: skip
        for axes, unit in ((middle, "entries"), (right, "entries per document")):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.set(xlabel=f"memory {unit}", ylabel=CE, ylim=(0, None), title=f"by {unit}")
            axes.legend(frameon=False, fontsize=9)

    def _judge(self, results: Results) -> Claims:
        entries, counts, mean = results.entries, results.documents, results.mean
        own = np.array(results.own)
        few, most = (spread(own[:, at].mean(0)) for at in (0, -1))
        yield Claim(
            "More entries lower the own cross entropy, whatever the number of documents",
            f"{few} nats with {entries[0]} entries, {most} with {entries[-1]}, mean over "
            f"{counts[0]} to {counts[-1]} documents after {results.epochs} epochs; the last tenth "
            f"of training still gained {np.mean(results.gained):.2f} nats on average",
            verdict(bool((mean[:, -1] < mean[:, 0]).all()), bool((np.diff(mean) < 0).all())),
        )
        few, most = (spread(own[at].mean(0)) for at in (0, -1))
        yield Claim(
            "More documents raise it, whatever the number of entries",
            f"{few} nats with {counts[0]} documents, {most} with {counts[-1]}, mean over entries",
            verdict(bool((mean[-1] > mean[0]).all()), bool((np.diff(mean, axis=0) > 0).all())),
        )
        fits = {
            size: max((n for n, ce in zip(counts, known, strict=True) if ce < LEARNED), default=0)
            for size, known in zip(entries, mean.T, strict=True)
        }
        smallest, *_, largest = fits.values()
        yield Claim(
            f"Documents learned (own cross entropy below {LEARNED:g}) grow with the entries",
            "of " + "; ".join(f"{size} entries: {fit}" for size, fit in fits.items()),
            verdict(list(fits.values()) == sorted(fits.values()) and largest > smallest),
        )
        both, alone = (float(np.abs(changes).mean()) for changes in results.doubled())
        yield Claim(
            "What counts is entries per document: twice the documents with twice the entries "
            "are known as well",
            f"mean change {both:.2f} nats where both double, {alone:.2f} where the documents "
            "double alone; means over seeds",
            verdict(both < 0.25, both < alone / 2),
            exploratory=True,
        )


def cell(pool: RunPool, seed: int, count: int, entries: int) -> list[float]:
    """Own cross entropy of one run, and what its last tenth gained."""
    sizes = {"max_labels": count, "hook_memory_dim": entries, "num_epochs": EPOCHS}
    run = pool.run(seed, pool.documents(count), **sizes)
    own = recognition(pool.cache_hidden_states(run), run.load_memory()).own
    losses = [epoch.positive_ce for epoch in run.load_history()]
    return [own, losses[-1 - max(1, len(losses) // 10)] - losses[-1]]
