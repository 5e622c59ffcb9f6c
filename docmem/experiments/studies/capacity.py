"""Capacity: how many documents a memory holds, by its entries and the length of its DocReps.

The paper has ten or twenty documents, and leaves open how many more fit. Here every memory is
trained anew, for equally many epochs, on one segment per document: articles first, then invented
texts. With a DocRep longer than two, Muon also moves the key generator's matrix, which AdamW does
in the plane.
"""

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from docmem.documents import Document
from docmem.evaluation.cached import measure
from docmem.experiments.claims import LEARNED, Claim, Claims
from docmem.experiments.drawing import dot_panels, level, stacked
from docmem.experiments.invented import invented
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import alike, below, highest, more, spreads, values_of
from docmem.experiments.study import DOTS, DRAWN, Study, columns
from docmem.plots.style import FAINT
from docmem.training.run import Run

COUNTS: dict[int, int | None] = {10: None, 20: None}
"""Documents, and how many seeds at most; None: all."""
MANY: dict[int, int | None] = {50: None, 100: 1, 200: 1}
"""Further ones, which only the embedded LM by its preset is quick enough for."""
SIZES: dict[str, dict[str, int]] = {
    "usual": {},
    "32 entries": {"hook_memory_dim": 32},
    "512 entries": {"hook_memory_dim": 512},
    "8-D DocReps": {"key_dim": 8},
}
"""Memories that are compared with most documents: what is changed."""
MEASURES = {
    "own": "cross entropy, own DocRep\n(nats per token)",
    "lowest_pair": "another's DocRep, lowest pair\n(nats per token)",
    "completed": "share of tokens\ncompleted",
    "seconds": "training, seconds\nper document",
}


@dataclass(frozen=True)
class Known:
    """What memories of one setting know, one per seed; cross entropies in nats per token."""

    own: list[float]
    other: list[float]
    """Under another's DocRep, mean."""
    lowest_pair: list[float]
    """Under another's DocRep, lowest of all pairs."""
    margin: list[float]
    """Another's minus own, of the worst document."""
    completed: list[float]
    """Share of tokens completed correctly."""
    seconds: list[float]
    """Training, per document."""

    @property
    def gap(self) -> list[float]:
        """Another's minus own cross entropy, one per seed."""
        return [other - own for other, own in zip(self.other, self.own, strict=True)]


@dataclass(frozen=True)
class Results:
    """By number of documents, and for one of these numbers by size of the memory."""

    counts: dict[str, Known]
    crowd: int
    """The most documents that all seeds were trained on: the sizes are compared with these."""
    sizes: dict[str, Known]


class Capacity(Study[Results]):
    """How many documents does a memory hold, and what does it need for more?"""

    results = Results
    size = (13, 6.8)
    alt = (
        "Two rows of five panels: cross entropy under the own DocRep, the lowest under another's, "
        "worst margin, share of tokens completed, seconds per document; above by number of "
        "documents, below by "
        "entries of the memory and dimensions of DocReps, one dot per seed."
    )
    shown = "What a memory knows, by its documents and its size"
    finding = "Many documents are further apart with DocReps of eight dimensions"
    needs = (None, None, "holds")
    caption = (
        "Below: {results.crowd} documents, with the preset's memory or another; 8-D: DocReps of "
        "eight numbers. Margin: from the own cross entropy to the lowest "
        "under another's, of the worst document; below zero another's reads it better. Above the "
        "dashed line little is learned, and then the lowest pair says nothing. Seconds: "
        "epochs times the fastest epoch's. Where a single dot stands, there was one seed."
    )
    trains = (
        "one segment of each document, {hook_memory_dim} entries unless said otherwise, "
        f"{{num_epochs}} epochs of {{method}}, {DOTS}. {DRAWN}"
    )

    def measure(self, pool: RunPool) -> Results:
        """Train memories of more and more documents, then of other sizes."""
        counts = {**COUNTS, **(MANY if pool.label == "tiny" else {})}
        most = max(count for count, seeds in counts.items() if seeds is None)

        def known(count: int, **size: int) -> Known:
            seeds = pool.seed_numbers(counts[count])
            return Known(**columns(one_run(pool, crowd(pool, n, count, **size)) for n in seeds))

        return Results(
            {str(count): known(count) for count in counts},
            most,
            {name: known(most, **size) for name, size in SIZES.items()},
        )

    def _draw(self, figure: Figure, results: Results) -> None:
        upper, lower = stacked(figure, 1, 1)
        (own, pair, *rest), margin = MEASURES.items(), "worst margin\n(nats per token)"
        measures = dict([own, pair, ("margin", margin), *rest])
        panels = upper.subplots(1, len(measures))
        dot_panels(panels, measures, results.counts)
        level(panels[0], LEARNED, "", color=FAINT, ls=(0, (4, 3)))
        for axes in panels:
            axes.set_xlabel("documents")
        labels = ("preset", "32", "512", "8-D")
        sizes = dict(zip(labels, results.sizes.values(), strict=True))
        panels = lower.subplots(1, len(measures))
        dot_panels(panels, measures, sizes)
        level(panels[0], LEARNED, "", color=FAINT, ls=(0, (4, 3)))
        for axes in panels:
            axes.set_xlabel("entries, or 8-D DocReps")

    def _claims(self, results: Results) -> Claims:
        crowd, (least, few) = results.crowd, next(iter(results.counts.items()))
        usual, small, large, long = (results.sizes[name] for name in SIZES)

        yield Claim(
            f"A memory learns {crowd} documents in the preset's epochs: their own cross entropy is "
            f"below {LEARNED:g} nat",
            [below("own cross entropy, nats", usual.own, LEARNED)],
            published="ten and twenty documents",
            note=f"by documents {spreads(values_of(results.counts, 'own'), ' ')}",
        )
        yield Claim(
            f"In the plane {crowd} documents are told apart worse than {least}",
            [more(f"lowest pair, {least} documents − {crowd}, nats", few.lowest_pair,
                  usual.lowest_pair, 0.25)],
            note=f"by documents {spreads(values_of(results.counts, 'lowest_pair'), ' ')}; worst "
            f"margin {spreads(values_of(results.counts, 'margin'), ' ')}",
            own=highest([few.own, usual.own]),
        )  # fmt: skip
        yield Claim(
            f"DocReps of 8 dimensions keep {crowd} documents further apart than the plane does",
            [more("lowest pair, 8 dimensions − 2, nats", long.lowest_pair, usual.lowest_pair,
                  0.25)],
            note=f"own cross entropy {spreads(values_of(results.sizes, 'own'), ' ')}",
            own=highest([long.own, usual.own]),
        )  # fmt: skip
        yield Claim(
            f"In as many epochs 32 entries learn less of {crowd} documents than 128 do",
            [more("own cross entropy, 32 − 128, nats", small.own, usual.own, 0.25)],
        )
        yield Claim(
            f"In as many epochs 512 entries learn as much of {crowd} documents as 128 do, within "
            "0.25 nats",
            [alike("own cross entropy, 512 − 128, nats", large.own, usual.own, 0.25)],
            note=f"lowest pair {spreads(values_of(results.sizes, 'lowest_pair'), ' ')}; worst "
            f"margin {spreads(values_of(results.sizes, 'margin'), ' ')}",
        )


def documents(pool: RunPool, seed: int, count: int) -> list[Document]:
    """Documents that a seed draws, and invented ones where there are no more."""
    known = pool.documents(seed, count)
    return known if pool.fast else known + invented(count - len(known), seed)


def crowd(pool: RunPool, seed: int, count: int, **changes: Any) -> Run:
    """A run on one segment of each of so many documents."""
    settings = {"max_labels": count, "max_segments": 1, **changes}
    return pool.run(seed, documents(pool, seed, count), **settings)


def one_run(pool: RunPool, run: Run) -> dict[str, float]:
    """What one run's memory knows, as Known has it."""
    known, completed, _ = measure(run, lambda: pool.lm)
    history = run.load_history()
    # The fastest epoch is the one that other work on the machine disturbed least.
    seconds = len(history) * min(epoch.seconds for epoch in history)
    return {
        "own": known.own,
        "other": known.other,
        "lowest_pair": known.lowest_pair.ce,
        "margin": known.margin,
        "completed": completed.own,
        "seconds": seconds / len(run.documents),
    }
