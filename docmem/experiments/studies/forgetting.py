"""Forgetting: is a document gone, at every point of the DocRep plane?

The paper leaves it open. Four memories are asked for the same document: as trained; with its
DocRep dropped, which removes the name and nothing else; after `docmem.editing.forget`; and the
gold standard, trained anew without it. Another document is forgotten with each seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.editing.doc_reps import drop_doc_rep, plane_extent
from docmem.editing.forget import forget
from docmem.evaluation.plane import key_plane
from docmem.evaluation.recall import recognition
from docmem.experiments.drawing import PlaneMap, dots, plane_maps
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import clearly_above, spread, verdict
from docmem.experiments.study import Claim, Study, all_hold, columns
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.plots.style import FAINT, GUIDANCE, INK, NEGATIVE, OWN, SIGNED

POINTS = 21
"""Points a side of the map that is searched."""
ALLOWED = 0.1
"""What editing one document may cost another, nats per token."""
WAYS = {
    "trained": "as trained",
    "dropped": "DocRep dropped",
    "forgotten": "forgotten",
    "retrained": "retrained without it",
}
SETTINGS: dict[str, Any] = {"weight_decay": 0, "extent": 1.0}
"""Of `forget`, as the stored results were measured; its defaults are others."""


@dataclass(frozen=True)
class Way:
    """One way of removing a document; one entry per seed, nats per token."""

    there: list[float]
    """The document's cross entropy minus the base LM's, under the DocRep it had in training."""
    lowest: list[float]
    """The lowest of the map, of that DocRep, and of every DocRep that the memory has."""
    kept: list[list[float]]
    """Own cross entropy of each other document, (seeds, documents)."""
    other: list[float]
    """Mean cross entropy of the other documents under each other's DocReps."""
    map: PlaneMap
    """The document's cross entropy minus the base LM's, with the first seed."""


@dataclass(frozen=True)
class Results:
    """By way of removing."""

    extent: float
    """The maps of the first seed are [-extent, extent]²."""
    gone: int
    """The document that goes with the first seed."""
    ways: dict[str, Way]

    def costs(self, way: str) -> list[float]:
        """Changes of the other documents' own cross entropies, over all seeds."""
        return changes(self.ways[way].kept, self.ways["trained"].kept)


class Forgetting(Study[Results]):
    """The preset's runs, each without one of its documents."""

    question = "Is a forgotten document gone, at every point of the plane?"
    results = Results
    size = (13, 7)
    alt = (
        "Four maps of one document's cross entropy minus the base LM's: as trained, with its "
        "DocRep dropped, forgotten, and retrained without it; blue where it is still known. "
        "Below, what is left at its DocRep and at the lowest point of the map, and the change of "
        "the others' own cross entropy."
    )

    def measure(self, pool: RunPool) -> Results:
        """Remove one document of each run, in every way; measure what is left, and the cost."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
        maps: dict[str, PlaneMap] = {}
        extents = []
        for seed in pool.seed_numbers():
            run = pool.run(seed)
            gone = (seed - 1) % len(run.documents)
            kept = [document for index, document in enumerate(run.documents) if index != gone]
            memory, anew = run.load_memory(), pool.run(seed, kept).load_memory()
            text = cache_hidden_states(pool.lm, [run.documents[gone]], run.config)
            others = cache_hidden_states(pool.lm, kept, run.config)
            cache = run.cache_hidden_states(pool.lm)
            cleaned = forget(cache, memory, gone, **SETTINGS)
            smaller = drop_doc_rep(memory, gone)
            extents.append(plane_extent(torch.cat([memory.doc_reps, anew.doc_reps])))
            for name, asked, rest in (
                ("trained", memory, smaller),
                ("dropped", smaller, smaller),
                ("forgotten", cleaned, drop_doc_rep(cleaned, gone)),
                ("retrained", anew, anew),
            ):
                left, values = what_is_left(text, asked, memory.doc_reps[gone], extents[-1])
                maps.setdefault(name, PlaneMap(values.tolist(), asked.doc_reps.tolist()))
                known = recognition(others, rest)
                own = known.ce.diagonal().tolist()
                rows[name].append({**left, "kept": own, "other": known.other})
        ways = {name: Way(**columns(rows[name]), map=maps[name]) for name in WAYS}
        return Results(extents[0], 0, ways)

    def draw(self, figure: Figure, results: Results) -> None:
        """The document's map after each way of removing it; what is left, and what it cost."""
        ways = results.ways
        grid = figure.add_gridspec(2, 4, height_ratios=(1.15, 1))
        largest = max(float(np.abs(way.map.values).max()) for way in ways.values())
        plane_maps(
            figure, [grid[0, column] for column in range(4)],
            {title: ways[name].map for name, title in WAYS.items()},
            results.extent, SIGNED, (-largest, largest),
            {WAYS[name]: results.gone for name in ("trained", "forgotten")},
            f"cross entropy of document {results.gone + 1}\n- base LM's (nats per token)",
        )  # fmt: skip
        left, right = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2:])
        there = {title: ways[name].there for name, title in WAYS.items()}
        lowest = {title: ways[name].lowest for name, title in WAYS.items()}
        dots(left, there, GUIDANCE, "where its DocRep was")
        dots(left, lowest, NEGATIVE, "lowest anywhere on the map")
        left.axhline(0, color=INK, lw=1)
        left.annotate("base LM", (-0.55, 0), (0, 3), textcoords="offset points")
        left.set_ylabel("its cross entropy\n- base LM's (nats per token)")
        left.legend(frameon=False, loc="upper left")
        left.set_title("What is left of the document")
        draw_costs(right, {title: results.costs(name) for name, title in WAYS.items()})

    def title(self, results: Results) -> str:
        """Says what dropping and forgetting do where the claims hold."""
        if all_hold(*self.claims(results)[:2]):
            return "Dropping a DocRep leaves its text in the memory; forgetting takes it out"
        return "What four ways of removing a document leave of it"

    def claims(self, results: Results) -> list[Claim]:
        """Dropping is not forgetting; forgetting reaches the base LM at little cost."""
        forgotten, retrained = results.ways["forgotten"], results.ways["retrained"]
        dropped, cost = spread(results.ways["dropped"].there), results.costs("forgotten")
        lowest = spread(forgotten.lowest)
        above, gold_above = (
            [min(pair) >= 0 for pair in zip(way.there, way.lowest, strict=True)]
            for way in (forgotten, retrained)
        )
        where = "nats from the base LM's"
        return [
            Claim(
                "Dropping a DocRep does not forget: its text can still be read where it was",
                f"{dropped} {where}",
                verdict(dropped.mean < -1),
                exploratory=True,
            ),
            Claim(
                "A few epochs of training bring a document back to the base LM, at its own DocRep "
                "and everywhere on the map",
                f"{spread(forgotten.there)} {where} at its DocRep, {lowest} at the lowest point of "
                f"the map; at or above it everywhere in {sum(above)} of {len(above)} seeds",
                verdict(all(above), any(above)),
                exploratory=True,
            ),
            Claim(
                f"Forgetting one costs no other document {ALLOWED:g} nats",
                f"change of the others' own cross entropy {np.mean(cost):+.2f}, at most "
                f"{max(cost):+.2f}, at least {min(cost):+.2f}",
                verdict(max(cost) <= ALLOWED),
                exploratory=True,
            ),
            Claim(
                "It does not clearly leave more of the document than training without it does",
                f"lowest on the map {lowest} {where}; trained without it "
                f"{spread(retrained.lowest)}, at or above it in {sum(gold_above)} of "
                f"{len(gold_above)} seeds; the others' change then "
                f"{np.mean(results.costs('retrained')):+.2f}",
                verdict(not clearly_above(retrained.lowest, forgotten.lowest)),
                exploratory=True,
            ),
        ]


def what_is_left(
    text: HiddenStateCache,
    memory: DocumentMemory,
    doc_rep: Float[Tensor, " key_dim"],
    extent: float,
) -> tuple[dict[str, float], Float[Tensor, "points points"]]:
    """Of one document: its cross entropy minus the base LM's (`there`, `lowest`), and the map.

    `doc_rep` is the one that it had in training.
    """
    base = base_cross_entropies(text)[0]
    over_plane = key_plane(text, memory, points=POINTS, extent=extent).ce[0] - base
    known = torch.cat([doc_rep[None], memory.doc_reps])
    there = cross_entropies_at(text, memory, known)[0] - base
    lowest = min(over_plane.min().item(), there.min().item())
    return {"there": there[0].item(), "lowest": lowest}, over_plane


def changes(after: Sequence[Sequence[float]], before: Sequence[Sequence[float]]) -> list[float]:
    """Differences of two (seeds, documents), all in one list."""
    return (np.array(after) - np.array(before)).ravel().tolist()


def draw_costs(axes: Axes, groups: Mapping[str, Sequence[float]]) -> None:
    """What each way costs the other documents, one dot for each of them."""
    dots(axes, groups, OWN)
    axes.axhspan(-ALLOWED, ALLOWED, color=FAINT, alpha=0.2, lw=0)
    axes.set_ylabel("change of the others' own\ncross entropy (nats per token)")
    axes.set_title(f"What it cost: one dot per other document, ± {ALLOWED:g} shaded")
