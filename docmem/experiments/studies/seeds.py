"""What a seed changes: documents, the places of their DocReps, and the initial weights.

Every other experiment varies all of them from seed to seed. Here the settings are the same, and
only one of them is the seed's while the others are those of seed 1. With the initial weights go
the order of the documents and the draws of the negatives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dots
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import OWN_MARGIN, below, more, spread, spreads, values_of
from docmem.experiments.studies.capacity import Known, one_run
from docmem.experiments.study import DOTS, USUAL, Study, columns
from docmem.training.run import Run

VARIED = ("documents", "places", "weights", "all")
"""What is the seed's, in the order of the figure."""
MEASURES = {
    "own": "cross entropy, own DocRep\n(nats per token)",
    "other": "cross entropy, another's DocRep\n(nats per token)",
    "lowest_pair": "the same, lowest of all pairs\n(nats per token)",
    "completed": "share of tokens completed",
}


@dataclass(frozen=True)
class Results:
    """By what is the seed's."""

    varied: dict[str, Known]


class Seeds(Study[Results]):
    """How much does a seed change, and what in it?"""

    results = Results
    size = (12, 4)
    alt = (
        "Four panels: cross entropy under the own DocRep, under another's, the lowest of these, "
        "and share of tokens completed; columns of one dot per seed where only documents, only "
        "places, only weights or all of them vary."
    )
    shown = "What changes with the seed, by what is drawn anew"
    finding = "From seed to seed, documents are known about equally well"
    needs = ("holds", "holds")
    caption = (
        "In each column only the thing named varies, and all else is as in seed 1; sd is the "
        "standard deviation."
    )
    trains = f"{USUAL}, {DOTS}."

    def measure(self, pool: RunPool) -> Results:
        """Train with one thing varied at a time; measure what each memory knows."""
        runs = {name: [varied(pool, name, seed) for seed in pool.seed_numbers()] for name in VARIED}
        return Results(
            {name: Known(**columns(one_run(pool, run) for run in seeds))
             for name, seeds in runs.items()}
        )  # fmt: skip

    def _draw(self, figure: Figure, results: Results) -> None:
        panels = figure.subplots(1, len(MEASURES))
        for axes, (key, label) in zip(panels, MEASURES.items(), strict=True):
            groups = {
                f"{name}\nsd {spread(values).sd:.2f}": values
                for name, values in values_of(results.varied, key).items()
            }
            dots(axes, groups, ylabel=label)
            axes.tick_params(axis="x", labelsize=8)
            axes.set_ylim(0)

    def _claims(self, results: Results) -> Claims:
        every, found = results.varied["all"], results.varied

        def spread_of(key: str) -> str:
            return spreads(values_of(found, key), " ")

        yield Claim(
            "From seed to seed the own cross entropy differs from its mean by less than "
            f"{OWN_MARGIN:g} nats, on average",
            [below("distance from the mean, nats", strayed(every.own), OWN_MARGIN)],
            published="not measured",
            note=spread_of("own"),
            exploratory=True,
        )
        yield Claim(
            "So does the share of tokens completed, by less than 0.05",
            [below("distance from the mean", strayed(every.completed), 0.05)],
            published="not measured",
            note=spread_of("completed"),
        )
        yield Claim(
            "Other documents spread the own cross entropy more than other initial weights do",
            [
                more("distance from the mean, documents − weights, nats",
                     strayed(found["documents"].own), strayed(found["weights"].own), 0.01)
            ],
            published="not measured",
            note=f"{spread_of('own')}; lowest pair {spread_of('lowest_pair')}",
            exploratory=True,
        )  # fmt: skip


def varied(pool: RunPool, name: str, seed: int) -> Run:
    """A run of which only the named thing is the seed's, the rest that of seed 1."""
    if name == "all" or seed == 1:
        return pool.run(seed)
    if name == "documents":
        return pool.run(1, pool.documents(seed))
    placed, weights = (seed, 1) if name == "places" else (1, seed)
    # The places of a seed do not depend on its documents.
    doc_reps = pool.run(placed).load_memory().doc_reps
    return pool.run(weights, pool.documents(1), doc_reps)


def strayed(values: Sequence[float]) -> list[float]:
    """How far each seed's measure lies from their mean; of two seeds that is one number."""
    far = [abs(value - spread(values).mean) for value in values]
    return far if len(far) > 2 else far[:1]
