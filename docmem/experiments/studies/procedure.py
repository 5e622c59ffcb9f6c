"""Procedure: what each part of the presets' training contributes, and what is left of guidance.

The presets train with Muon, DocReps spread evenly and negatives of their own for some rows, where
the paper has AdamW, orthogonal DocReps and one negative for all rows. Every combination is trained
for as many epochs. (On two segments per document the preset's two rows are all, so its cost is the
same here; on more it also saves time.) Then the same without any negative: what keeps documents
apart may be the places of their DocReps alone.
"""

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docmem.experiments.claims import LEARNED, Claim, Claims
from docmem.experiments.drawing import dot_series, shade, stacked
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import above, below, highest, more, spread, values_of
from docmem.experiments.studies.capacity import Known, crowd, one_run
from docmem.experiments.study import Study, columns
from docmem.plots.style import GUIDANCE, NEGATIVE
from docmem.training.run import Run

ADAMW_LR = {"preset": 8e-3, "paper": 4e-3}
"""AdamW's rate, by procedure. For the preset's epochs it is the best of 0.002, 0.004, 0.008 and
0.016 on a tuning seed; for the paper's it is their own."""
OPTIMIZERS = ("AdamW", "Muon")
PLACES = ("orthogonal", "spread")
NEGATIVES = {"one negative": None, "one per row": 2}
"""One negative DocRep for all rows of a step, or one for each of two."""
ACTIVATIONS = ("tanh", "relu", "sigmoid")
CROWDS = {"tiny": (20, 50)}
"""Documents among which there are near neighbours, by label of the pool."""
FEW = (20,)
"""The same where a training takes longer."""
APART = 2.0
"""Documents are kept apart if another's DocRep costs so much more than the own, nats per token."""
MEASURES = {
    "own": "cross entropy, own DocRep\n(nats per token)",
    "lowest_pair": "another's DocRep, lowest pair\n(nats per token)",
    "margin": "another's - own, worst document\n(nats per token)",
    "completed": "share of tokens completed",
}


@dataclass(frozen=True)
class Results:
    """By combination of the parts; and without and with guidance, where DocReps are spread."""

    combinations: dict[str, Known]
    """By optimizer, places and negatives, as `Muon, spread, one per row`; of the embedded
    LM only."""
    plain: dict[str, Known]
    """Without any negative: by activation, and by a number of documents, as `20 documents`."""
    guided: dict[str, Known]
    """With the procedure's α, by the same names."""

    @property
    def crowds(self) -> list[str]:
        """The names that are numbers of documents."""
        return [name for name in self.plain if name not in ACTIVATIONS]

    def mean(self, key: str, part: str) -> list[float]:
        """One measure, the mean of the combinations that have a part, one per seed."""
        found = [getattr(one, key) for name, one in self.combinations.items()
                 if part in name.split(", ")]  # fmt: skip
        return [statistics.fmean(each) for each in zip(*found, strict=True)]


class Procedure(Study[Results]):
    """What does each part of the training contribute, and what does guidance still do?"""

    results = Results
    size = (14, 7.8)
    alt = (
        "Where the parts were trained, above: own cross entropy, lowest under another's, worst "
        "margin, share completed, a column for each choice of places and negatives, a colour for "
        "each optimizer. Without and with guidance: own cross entropy, gap and worst margin by "
        "activation; own cross entropy and worst margin among more documents. One dot per seed."
    )
    shown = "What the parts of the training contribute, and what guidance adds"
    finding = (
        "Muon learns more in as many epochs; spread DocReps and guidance bring the nearest "
        "documents further apart"
    )
    needs = (None, None, "holds", None, None, None, None, "holds", "holds")
    caption = (
        "With no negative and guided, DocReps are spread; 20 documents or more have a segment each."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every combination, and without and with guidance."""
        alpha = pool.config().guidance

        def known(runs: Iterable[Run]) -> Known:
            return Known(**columns(one_run(pool, run) for run in runs))

        def guided(alpha: float) -> dict[str, Known]:
            change: dict[str, Any] = {"guidance": alpha, "doc_rep_init": "spread"}
            found = {name: known(pool.runs(key_activation=name, **change)) for name in ACTIVATIONS}
            for count in CROWDS.get(pool.label, FEW):
                runs = (crowd(pool, seed, count, **change) for seed in pool.seed_numbers())
                found[f"{count} documents"] = known(runs)
            return found

        found = {}
        for parts in itertools.product(OPTIMIZERS, PLACES, NEGATIVES):
            if pool.preset == "tiny":  # it takes too long with other LMs
                found[", ".join(parts)] = known(pool.runs(**settings(pool, *parts)))
        return Results(found, guided(0.0), guided(alpha))

    def title(self, results: Results) -> str:
        """Without the combinations only what guidance adds is shown."""
        return super().title(results) if results.combinations else "What guidance adds to a memory"

    def _draw(self, figure: Figure, results: Results) -> None:
        names: Sequence[str] = ACTIVATIONS
        if results.combinations:
            upper, lower = stacked(figure, 1, 1)
            upper.suptitle(
                "Each part of the training, with guidance", fontweight="bold", x=0.01, ha="left"
            )
            lower.suptitle("Without and with guidance", fontweight="bold", x=0.01, ha="left")
            draw_combinations(upper.subplots(1, len(MEASURES)), results)
            panels = lower.subplots(1, 5)
        else:
            panels, names = figure.subplots(1, 3), (*ACTIVATIONS, *results.crowds)
        shown = (
            (names, "own", MEASURES["own"]),
            (names, "gap", "another's - own cross entropy\n(nats per token)"),
            (names, "margin", MEASURES["margin"]),
            (results.crowds, "own", MEASURES["own"]),
            (results.crowds, "margin", MEASURES["margin"]),
        )
        groups = ("no negative", NEGATIVE, results.plain), ("guided", GUIDANCE, results.guided)
        for axes, (names, key, label) in zip(panels, shown, strict=False):
            series = {
                text: (color, values_of({n.replace(" ", "\n"): group[n] for n in names}, key))
                for text, color, group in groups
            }
            dot_series(axes, series)
            axes.set(ylabel=label, ylim=(min(0, axes.get_ylim()[0]), None))
        panels[0].legend(frameon=False)

    def _claims(self, results: Results) -> Claims:
        plain, guided, selecting = results.plain, results.guided, ("tanh", "relu")

        def told(name: str, *keys: str) -> str:
            """The measures of one setting, without and with guidance."""
            return f"{name}: " + "; ".join(
                f"{key.replace('_', ' ')} without {spread(getattr(plain[name], key))}, guided "
                f"{spread(getattr(guided[name], key))}"
                for key in keys
            )

        yield Claim(
            "Without any negative, spread DocReps keep documents apart where tanh or relu selects: "
            f"on average another's costs {APART:g} nats more than the own",
            [above(f"other − own, {name}", plain[name].gap, APART) for name in selecting],
            own=highest(plain[name].own for name in selecting),
        )
        yield Claim(
            "And so they keep the nearest: no document is read below "
            f"{LEARNED:g} nat under another's DocRep",
            [above(f"lowest pair, {name}", plain[name].lowest_pair, LEARNED)
             for name in selecting],
            own=highest(plain[name].own for name in selecting),
            exploratory=True,
        )  # fmt: skip
        yield Claim(
            "Guidance widens the worst margin of the preset's documents: another's lowest cross "
            "entropy minus the own one",
            [
                more(f"margin, guided minus not, {name}", guided[name].margin,
                     plain[name].margin, 0.25)
                for name in selecting
            ],
            note="; ".join(told(name, "own", "lowest_pair", "margin") for name in selecting),
            own=highest(group[n].own for group in (plain, guided) for n in selecting),
            exploratory=True,
        )  # fmt: skip
        yield Claim(
            "Where sigmoid selects they do not, and with guidance they do",
            [
                below("other − own, without", plain["sigmoid"].gap, APART),
                above("other − own, with guidance", guided["sigmoid"].gap, APART),
            ],
            own=highest([plain["sigmoid"].own, guided["sigmoid"].own]),
        )
        for name in results.crowds:
            yield Claim(
                f"Guidance widens the worst margin of {name}, which have nearer neighbours",
                [more("margin, guided minus not", guided[name].margin, plain[name].margin, 0.25)],
                note=told(name, "own", "lowest_pair", "margin"),
                own=highest([plain[name].own, guided[name].own]),
                exploratory=True,
            )
        yield Claim(
            "With relu guidance widens the gap between another document's DocRep and the own one",
            [more("other − own, guided minus not, nats", guided["relu"].gap, plain["relu"].gap,
                  0.25)],
            note=told("relu", "own", "gap"),
            own=highest([plain["relu"].own, guided["relu"].own]),
            exploratory=True,
        )  # fmt: skip
        if not results.combinations:
            return
        own = [statistics.fmean(each) for each in zip(
            results.mean("own", "AdamW"), results.mean("own", "Muon"), strict=True)]  # fmt: skip
        # Own cross entropies end near 0, where a tenth of a nat is much.
        yield Claim(
            "In as many epochs Muon learns more than AdamW",
            [more("own cross entropy, AdamW − Muon, nats", results.mean("own", "AdamW"),
                  results.mean("own", "Muon"), 0.1)],
            published="AdamW only",
            note="each the mean of its four combinations",
        )  # fmt: skip
        for better, worse, what in (
            ("spread", "orthogonal", "Spread DocReps raise the lowest pair"),
            ("one per row", "one negative", "A negative for each row raises the lowest pair"),
        ):
            left, right = (results.mean("lowest_pair", part) for part in (better, worse))
            yield Claim(
                what,
                [more(f"lowest pair, {better} − {worse}, nats", left, right, 0.25)],
                note=f"{better} {spread(left)}, {worse} {spread(right)}, each the mean of its "
                "four combinations",
                own=own,
            )


def settings(pool: RunPool, optimizer: str, places: str, negatives: str) -> dict[str, Any]:
    """What a combination of the parts changes."""
    found: dict[str, Any] = {"optimizer": optimizer.lower(), "doc_rep_init": places}
    if optimizer == "AdamW":
        found["lr"] = ADAMW_LR[pool.procedure]
    return {**found, "negative_rows": NEGATIVES[negatives]}


def draw_combinations(panels: Iterable[Axes], results: Results) -> None:
    """A panel for each of MEASURES, a column for places and negatives, a colour for optimizers."""
    for axes, (key, label) in zip(panels, MEASURES.items(), strict=True):
        values, series = values_of(results.combinations, key), {}
        for optimizer, color in zip(OPTIMIZERS, (shade(0, 2), shade(1, 2)), strict=True):
            named = (parts for parts in values if parts.startswith(optimizer))
            # `Muon, spread, one per row` stands in three lines under its column.
            lines = {
                parts: "\n".join(parts.split(", ")[1:]).replace(" ", "\n", 1) for parts in named
            }
            series[optimizer] = color, {text: values[parts] for parts, text in lines.items()}
        dot_series(axes, series)
        axes.set(ylabel=label, ylim=(min(0, axes.get_ylim()[0]), None))
        axes.tick_params(axis="x", labelsize=7.5)
        if key == "own":
            axes.legend(frameon=False)
