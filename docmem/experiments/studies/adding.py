"""Adding: can an eleventh document be learned without harming the ten?

The paper leaves it open. Four memories read the same eleven documents: the ten's as trained, with
an untrained DocRep for the new one; that one trained on the new text alone; after
`docmem.editing.add`; and the gold standard, trained on all eleven anew.

Rehearsal trains the ten further too: what they gain is part of what adding changes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from docmem.core.memory import DocumentMemory
from docmem.editing.add import add
from docmem.editing.doc_reps import append_doc_rep, plane_extent
from docmem.evaluation.plane import key_plane
from docmem.evaluation.recall import recognition
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import PlaneMap, dot_series, plane_maps
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import OWN_MARGIN, above, below, differences, spread, values_of
from docmem.experiments.studies.forgetting import ALLOWED, draw_costs, worst
from docmem.experiments.study import Study, columns
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.plots.style import GUIDANCE, OWN

DOCUMENTS = 11
"""With the new one, which is the last."""
EPOCHS = 20
"""Passes over the kept documents, with and without reading them."""
POINTS = 15
"""Points a side of the map."""
HARM = 0.5
"""What another document must lose on average to be called harmed, nats per token."""
WAYS = {
    "trained": "as trained",
    "naive": "new text alone",
    "added": "added",
    "anew": "all eleven anew",
}
MAPS = {"trained": "as trained: nothing learned at its DocRep", "naive": WAYS["naive"],
        "added": WAYS["added"]}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One way to a memory of all documents; one entry per seed."""

    own: list[list[float]]
    """Cross entropy of each document under its own DocRep, the new one last, nats per token."""
    recognised: list[int]
    """Documents recognised."""
    readings: list[int]
    """Batches read with gradients since the ten were trained, or ever if trained anew."""

    @property
    def of_new(self) -> list[float]:
        """The new document's own cross entropy."""
        return [own[-1] for own in self.own]

    @property
    def others(self) -> np.ndarray:
        """The others' own cross entropies, (seeds, documents)."""
        return np.array(self.own)[:, :-1]

    @property
    def of_others(self) -> list[float]:
        """Their mean."""
        return self.others.mean(1).tolist()


@dataclass(frozen=True)
class Results:
    """By way."""

    extent: float
    """The maps are [-extent, extent]²."""
    ways: dict[str, Way]
    maps: dict[str, PlaneMap]
    """The lowest of all documents' cross entropies minus the base LM's, with the first seed."""

    def costs(self, way: str) -> np.ndarray:
        """Changes of the other documents' own cross entropies, (seeds, documents)."""
        return self.ways[way].others - self.ways["trained"].others


class Adding(Study[Results]):
    """Can an eleventh document be learned without harming the ten?"""

    results = Results
    size = (13, 8)
    alt = (
        "Three maps of the DocRep plane, dark where some document is well known: as trained, after "
        "training on the new text alone, and after adding. Below, the own cross entropy of the new "
        "document and of the others, and the change of each of the others', one dot per seed or "
        "document."
    )
    shown = "A new document among those a memory knows"
    finding = (
        "Read in turn with the others' texts, a new document is learned and the old ones stay known"
    )
    needs = ("holds", "holds", "holds")
    caption = (
        "A number: where the new document has its DocRep; as trained, nothing of it is learned. "
        f"Changes of more than {2 * ALLOWED:g} nats are on a logarithmic scale."
    )

    def measure(self, pool: RunPool) -> Results:
        """Make every memory; measure how well it knows each document, and what it took."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
        maps: dict[str, PlaneMap] = {}
        for seed in pool.seed_numbers():
            *known, new = documents = pool.documents(seed, DOCUMENTS)
            run, anew = pool.run(seed, known), pool.run(seed, documents)
            cache = cache_hidden_states(pool.lm, documents, run.config)
            kept = sum(doc_id < len(known) for doc_id in cache.doc_ids)
            placed = append_doc_rep(run.load_memory(), new.title)
            every = len(anew.load_history()) * len(cache.doc_ids)
            naive, added = (
                add(cache, run.load_memory(), new.title, epochs=EPOCHS, rehearse=rehearse)
                for rehearse in (False, True)
            )
            for name, memory, readings in (
                ("trained", placed, 0),
                ("naive", naive, EPOCHS * kept),
                ("added", added, 2 * EPOCHS * kept),
                ("anew", anew.load_memory(), every),
            ):
                read = recognition(cache, memory)
                row = {"own": read.ce.diagonal().tolist(), "recognised": read.recognised}
                rows[name].append({**row, "readings": readings})
                if seed == 1 and name in MAPS:
                    extent = plane_extent(placed.doc_reps)
                    maps[name] = best_known(cache, memory, extent)
        return Results(extent, {name: Way(**columns(rows[name])) for name in WAYS}, maps)

    def _draw(self, figure: Figure, results: Results) -> None:
        ways = {title: results.ways[name] for name, title in WAYS.items()}
        grid = figure.add_gridspec(2, 6, height_ratios=(1.3, 1))
        lowest = min(float(np.min(one.values)) for one in results.maps.values())
        new = len(results.maps["trained"].doc_reps) - 1
        plane_maps(
            figure, [grid[0, 2 * column : 2 * column + 2] for column in range(3)],
            {WAYS[name]: results.maps[name] for name in MAPS},
            results.extent, "Blues_r", (lowest, 0), dict.fromkeys(WAYS.values(), new),
            "lowest cross entropy of any document\nminus base LM's (nats per token)",
        )  # fmt: skip
        left, right = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
        known = {
            "the new document": (GUIDANCE, values_of(ways, "of_new")),
            "mean of the others": (OWN, values_of(ways, "of_others")),
        }
        dot_series(left, known)
        left.set(title="How well each is known", ylabel="own cross entropy\n(nats per token)")
        left.set_yscale("log")
        left.yaxis.set_major_formatter("{x:g}")
        left.legend(frameon=False, loc="upper right")
        draw_costs(
            right,
            {
                f"{WAYS[name]}\n({results.ways[name].readings[0]:,} batches read)":
                results.costs(name) for name in ("naive", "added", "anew")
            },
        )  # fmt: skip
        right.set_yscale("symlog", linthresh=2 * ALLOWED, linscale=1)
        right.set_yticks((-0.1, 0, 0.1, 1, 10), ("−0.1", "0", "0.1", "1", "10"))

    def _claims(self, results: Results) -> Claims:
        trained, added, anew = (results.ways[name] for name in ("trained", "added", "anew"))
        before, eleven = trained.of_others, len(added.own[0])
        gap = differences(added.of_new, before)
        yield Claim(
            f"A document added to a trained memory is as well known as those it held, to "
            f"{OWN_MARGIN:g} nats",
            [below("own cross entropy, its minus theirs", gap, OWN_MARGIN)],
            note=f"its {spread(added.of_new)}, its text read as often as all others' together; "
            f"{spread(added.recognised)} of {eleven} recognised",
            own=before,
            exploratory=True,
        )
        cost, harm = results.costs("added"), results.costs("naive").mean(1).tolist()
        yield Claim(
            f"Adding it, while the others are read again, costs none of them {ALLOWED:g} nats",
            [below("largest rise of another's own cross entropy", worst(cost), ALLOWED)],
            note=f"mean change {spread(cost.mean(1))}",
            own=before,
        )
        yield Claim(
            "Training on the new text alone harms the others",
            [above("mean change of the others' own cross entropy", harm, HARM)],
            own=before,
        )
        every, gold = (np.mean(way.own, axis=1).tolist() for way in (added, anew))
        more = differences(every, gold)
        yield Claim(
            "Adding, which reads more batches, is no worse than training on all of them anew, to "
            f"{OWN_MARGIN:g} nats",
            [below("mean own cross entropy, added minus anew", more, OWN_MARGIN)],
            note=f"anew {spread(gold)}; {added.readings[0]:,} batches read after those of the "
            f"first training, anew {anew.readings[0]:,}",
            own=before,
            exploratory=True,
        )


def best_known(cache: HiddenStateCache, memory: DocumentMemory, extent: float) -> PlaneMap:
    """The lowest of all documents' cross entropies minus the base LM's, over the plane."""
    over_plane = key_plane(cache, memory, points=POINTS, extent=extent).ce
    lowest = (over_plane - base_cross_entropies(cache)[:, None, None]).amin(0)
    return PlaneMap(lowest.tolist(), memory.doc_reps.tolist())
