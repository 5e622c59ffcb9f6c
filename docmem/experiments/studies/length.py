"""Memory size against document length: does a longer document take more memory?

The paper reports, for ten documents of 5 to 60 segments, correlations of 0.79 (sigmoid), 0.97
(tanh) and 0.86 (relu), and does not say in a formula what the size of a memory is. Seven readings
of it are measured here: SIZES, of which the last grows with length by its very
definition, and two controls that have no part in training. Documents are cut to lengths that the
seed deals, few enough segments to be learned.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from docmem.documents import Document, segments
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dot_rows, stacked
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import above, correlation, highest, spreads
from docmem.experiments.studies.activation import OPEN
from docmem.experiments.study import DOTS, DRAWN, EPOCHS, Study, columns
from docmem.plots.style import GUIDANCE, INK
from docmem.training.run import Run

PUBLISHED = {"sigmoid": 0.79, "tanh": 0.97, "relu": 0.86}
LENGTHS = (1, 1, 2, 2, 2, 3, 3, 4, 5, 7)
"""Segments that documents are cut to."""
SIZES = {
    "k_doc, active": f"k_doc: entries above {OPEN}",
    "k_doc, L1": "k_doc: L1 norm",
    "k_doc, L2": "k_doc: L2 norm",
    "product, active": f"k_doc × k_tok: entries above {OPEN}",
    "product, L1": "k_doc × k_tok: L1 norm",
    "product, L2": "k_doc × k_tok: L2 norm",
    "product × tokens": "k_doc × k_tok: L1 norm × tokens",
}
CONTROLS = {
    "DocRep, L2": "control: norm of the DocRep",
    "untrained k_doc, L2": "control: L2 of k_doc untrained",
}
MAIN = "product, L2"
"""The size that is drawn against length."""
BY_DEFINITION = "product × tokens"
READINGS = [key for key in SIZES if key != BY_DEFINITION]


@dataclass(frozen=True)
class Lengths:
    """Of one activation, one per seed."""

    segments: list[list[int]]
    """Of each document."""
    sizes: list[dict[str, list[float]]]
    """Each size and control of each document."""
    own: list[float]
    """Own cross entropy in the last epoch, nats per token."""

    def correlations(self, key: str) -> list[float]:
        """The correlation of one size with the number of segments, one per seed."""
        seeds = zip(self.segments, self.sizes, strict=True)
        return [correlation(lengths, sizes[key]) for lengths, sizes in seeds]


@dataclass(frozen=True)
class Results:
    """By activation."""

    activations: dict[str, Lengths]

    def mean_correlations(self, key: str) -> list[float]:
        """The correlation of one size, mean over the activations, one per seed."""
        found = [one.correlations(key) for one in self.activations.values()]
        return [statistics.fmean(each) for each in zip(*found, strict=True)]


class Length(Study[Results]):
    """Does a longer document take more memory?"""

    results = Results
    size = (12, 7.4)
    alt = (
        "Above, size of the memory against segments of the document for sigmoid, tanh and relu, "
        "one dot per document; below, for each the correlation with length of seven sizes and two "
        "controls, with the published one as a dashed line."
    )
    shown = "Size of a memory against length of its document, by seven readings of size"
    finding = "The longer a document, the larger its memory"
    needs = ("holds", "holds", "holds")
    caption = (
        f"Ten documents cut to {min(LENGTHS)} to {max(LENGTHS)} segments; above the first seed. "
        "Under the line: by its definition larger for longer texts, or untouched by training."
    )
    trains = f"{EPOCHS}, {DOTS}. {DRAWN}"

    def measure(self, pool: RunPool) -> Results:
        """Train every activation on cut documents; take every size."""

        def one_seed(seed: int, activation: str) -> dict[str, Any]:
            documents = cut(pool.documents(seed), seed, pool.config().segment_length)
            changes = {"key_activation": activation, "max_segments": max(LENGTHS)}
            return one_run(pool, pool.run(seed, documents, **changes))

        seeds = pool.seed_numbers()
        return Results(
            {name: Lengths(**columns(one_seed(seed, name) for seed in seeds)) for name in PUBLISHED}
        )

    def _draw(self, figure: Figure, results: Results) -> None:
        above, below = stacked(figure, 1, 1.15)
        panels = above.subplots(1, len(PUBLISHED))
        for axes, (name, one) in zip(panels, results.activations.items(), strict=True):
            lengths, sizes = one.segments[0], one.sizes[0][MAIN]
            axes.plot(lengths, sizes, "o", ms=7, color=GUIDANCE, mew=0, alpha=0.7)
            r = f"{one.correlations(MAIN)[0]:.2f}".replace("-", "−")
            axes.set_title(f"{name}: r = {r}", fontsize=10)
            axes.set(xlim=(0, 1.08 * max(lengths)), ylim=(0, 1.08 * max(sizes)))
            axes.set_xlabel("segments of the document")
        panels[0].set_ylabel(SIZES[MAIN])
        panels = below.subplots(1, len(PUBLISHED), sharey=True)
        for axes, (name, one) in zip(panels, results.activations.items(), strict=True):
            draw_correlations(axes, one, name)

    def _claims(self, results: Results) -> Claims:
        for name, one in results.activations.items():
            yield Claim(
                f"With {name} a longer document takes more memory ({SIZES[MAIN]}; r above 0.5 over "
                f"{min(LENGTHS)} to {max(LENGTHS)} segments)",
                [above("correlation with segments", one.correlations(MAIN), 0.5)],
                published=f"{PUBLISHED[name]}",
                papers=True,
                own=one.own,
            )
        means = {SIZES[key]: results.mean_correlations(key) for key in SIZES}
        yield Claim(
            "Some reading of memory size, other than one that multiplies by tokens, goes with "
            "length (r above 0.5)",
            [above("correlation of the reading that is best on the other seeds", best(results),
                   0.5)],
            published="the paper gives no formula",
            note=f"mean of the activations, {spreads(means, ' ')}",
            own=highest(one.own for one in results.activations.values()),
        )  # fmt: skip


def draw_correlations(axes: Axes, one: Lengths, activation: str) -> None:
    """Every size's correlation with length, one dot per seed, and the published one."""
    labels = {**SIZES, **CONTROLS}
    dot_rows(axes, [one.correlations(key) for key in labels])
    for place, key in enumerate(labels):
        if all(min(sizes[key]) == max(sizes[key]) for sizes in one.sizes):
            axes.text(-0.97, place, "the same for all", va="center", fontsize=8)
    axes.axhline(len(READINGS) - 0.5, color=INK, lw=0.8)
    axes.axvline(0, color="#CCCCCC", lw=1, zorder=0)
    published = PUBLISHED[activation]
    axes.axvline(published, color=INK, lw=1.4, ls=(0, (4, 3)))
    axes.annotate(
        f"published {published}", (published, -0.5), (-3, 1), textcoords="offset points",
        ha="right", va="bottom", color=INK, annotation_clip=False, fontsize=8.5,
    )  # fmt: skip
    axes.set_yticks(range(len(labels)), list(labels.values()))
    axes.set_ylim(len(labels) - 0.5, -1.2)
    axes.set(xlim=(-1, 1), xlabel=f"correlation with length, {activation}")


def best(results: Results) -> list[float]:
    """Of each seed the correlation of the reading that is best on the others.

    So that choosing among readings does not raise it. A single seed chooses by itself.
    """
    found = [results.mean_correlations(key) for key in READINGS]
    seeds = range(len(found[0]))

    def chosen(seed: int) -> float:
        others = [other for other in seeds if other != seed] or [seed]
        return max(found, key=lambda values: sum(values[other] for other in others))[seed]

    return [chosen(seed) for seed in seeds]


def cut(documents: Sequence[Document], seed: int, segment_length: int) -> list[Document]:
    """Each document's beginning, as long as one of LENGTHS that the seed deals it.

    A document that is shorter stays whole.
    """
    deal = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
    shorter = []
    for document, place in zip(documents, deal.tolist(), strict=True):
        words = segment_length + (LENGTHS[place % len(LENGTHS)] - 1) * (segment_length // 2)
        text = " ".join(document.text.split()[:words])
        shorter.append(Document(document.title, text))
    return shorter


def one_run(pool: RunPool, run: Run) -> dict[str, Any]:
    """Lengths and sizes of one run, and its last own cross entropy."""
    config, lengths, tokens = run.config, [], []
    for document in run.documents:
        texts = segments(document.text, config.segment_length, config.max_segments)
        lengths.append(len(texts))
        tokens.append(pool.lm.tokenize(texts, config.max_length).attention_mask.sum())
    own = run.load_history()[-1].positive_ce
    return {"segments": lengths, "sizes": sizes_of(run, torch.stack(tokens)), "own": own}


def sizes_of(run: Run, tokens: Int[Tensor, " n_docs"]) -> dict[str, list[float]]:
    """Every size and control of every document of a run, at its last snapshot."""
    taken = run.load_snapshots()
    last = taken.at(-1)
    sizes = {
        "product × tokens": last.product.norm(p=1, dim=1) * tokens.to(last.product.device),
        "DocRep, L2": taken.doc_reps[-1].norm(dim=1),
        "untrained k_doc, L2": taken.document[0].norm(dim=1),
    }
    for name, selection in (("k_doc", last.document), ("product", last.product)):
        sizes[f"{name}, active"] = (selection.abs() > OPEN).sum(1).float()
        sizes[f"{name}, L1"] = selection.norm(p=1, dim=1)
        sizes[f"{name}, L2"] = selection.norm(dim=1)
    return {key: sizes[key].tolist() for key in (*SIZES, *CONTROLS)}
