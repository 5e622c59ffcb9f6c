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
from docmem.experiments.drawing import PlaneMap, dots, level, plane_maps
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import clearly_above, spread, values_of, verdict
from docmem.experiments.study import Claim, Claims, Study, columns
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
    map: PlaneMap
    """Of the first seed, whose first document goes: its cross entropy minus the base LM's."""

    @property
    def above(self) -> list[bool]:
        """Whether the base LM's cross entropy is the lowest anywhere, by seed."""
        return [min(pair) >= 0 for pair in zip(self.there, self.lowest, strict=True)]


@dataclass(frozen=True)
class Results:
    """By way of removing."""

    extent: float
    """The maps of the first seed are [-extent, extent]²."""
    ways: dict[str, Way]

    def costs(self, way: str) -> list[float]:
        """Changes of the other documents' own cross entropies, over all seeds."""
        return changes(self.ways[way].kept, self.ways["trained"].kept)


class Forgetting(Study[Results]):
    """Is a forgotten document gone, at every point of the plane?"""

    results = Results
    size = (13, 7)
    alt = (
        "Four maps of one document's cross entropy minus the base LM's: as trained, with its "
        "DocRep dropped, forgotten, and retrained without it; blue where it is still known. "
        "Below, what is left at its DocRep and at the lowest point of the map, and the change of "
        "the others' own cross entropy."
    )
    shown = "What four ways of removing a document leave of it"
    finding = "Dropping a DocRep leaves its text in the memory; forgetting takes it out"
    needs = ("holds", "holds")

    def measure(self, pool: RunPool) -> Results:
        """Remove one document of each run, in every way; measure what is left, and the cost."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
        maps: dict[str, PlaneMap] = {}
        extents = []
        for seed in pool.seed_numbers():
            run = pool.run(seed)
            documents = pool.documents()
            gone = (seed - 1) % len(documents)
            kept = [document for index, document in enumerate(documents) if index != gone]
            memory, anew = run.load_memory(), pool.run(seed, kept).load_memory()
            text = cache_hidden_states(pool.lm, [documents[gone]], run.config)
            others = cache_hidden_states(pool.lm, kept, run.config)
            cleaned = forget(run.cache_hidden_states(pool.lm), memory, gone, **SETTINGS)
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
                own = recognition(others, rest).ce.diagonal()
                rows[name].append({**left, "kept": own.tolist()})
        ways = {name: Way(**columns(rows[name]), map=maps[name]) for name in WAYS}
        return Results(extents[0], ways)

    def _draw(self, figure: Figure, results: Results) -> None:
        ways = {title: results.ways[name] for name, title in WAYS.items()}
        grid = figure.add_gridspec(2, 4, height_ratios=(1.15, 1))
        largest = max(float(np.abs(way.map.values).max()) for way in ways.values())
        plane_maps(
            figure, [grid[0, column] for column in range(4)],
            {title: way.map for title, way in ways.items()},
            results.extent, SIGNED, (-largest, largest),
            {WAYS[name]: 0 for name in ("trained", "forgotten")},
            "cross entropy of document 1\n- base LM's (nats per token)",
        )  # fmt: skip
        left, right = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2:])
        dots(left, values_of(ways, "there"), GUIDANCE, "where its DocRep was")
        dots(left, values_of(ways, "lowest"), NEGATIVE, "lowest anywhere on the map")
        level(left, 0, "base LM", color=INK)
        left.set_ylabel("its cross entropy\n- base LM's (nats per token)")
        left.legend(frameon=False, loc="upper left")
        left.set_title("What is left of the document")
        draw_costs(right, {title: results.costs(name) for name, title in WAYS.items()})

    def _judge(self, results: Results) -> Claims:
        dropped, forgotten, anew = (results.ways[n] for n in ("dropped", "forgotten", "retrained"))
        there, lowest = spread(dropped.there), spread(forgotten.lowest)
        yield Claim(
            "Dropping a DocRep does not forget: its text can still be read where it was",
            f"{there} nats from the base LM's",
            verdict(there.mean < -1),
            exploratory=True,
        )
        yield Claim(
            "A few epochs of training bring a document back to the base LM, at its own DocRep "
            "and everywhere on the map",
            f"{spread(forgotten.there)} nats from the base LM's at its DocRep, {lowest} at the "
            f"lowest point of the map; at or above it everywhere in {sum(forgotten.above)} of "
            f"{len(forgotten.above)} seeds",
            verdict(all(forgotten.above), any(forgotten.above)),
            exploratory=True,
        )
        cost = results.costs("forgotten")
        yield Claim(
            f"Forgetting one costs no other document {ALLOWED:g} nats",
            f"{cost_text(cost)}, at least {min(cost):+.2f}",
            verdict(max(cost) <= ALLOWED),
            exploratory=True,
        )
        # The means were compared at first, which three seeds do not bear.
        yield Claim(
            "It does not clearly leave more of the document than training without it does",
            f"lowest on the map {lowest} nats from the base LM's; trained without it "
            f"{spread(anew.lowest)}, at or above it in {sum(anew.above)} of {len(anew.above)} "
            f"seeds; the others' change then {np.mean(results.costs('retrained')):+.2f}",
            verdict(not clearly_above(anew.lowest, forgotten.lowest)),
            exploratory=True,
        )


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


def cost_text(cost: Sequence[float]) -> str:
    """What an edit cost the other documents, as text."""
    return f"change of the others' own cross entropy {np.mean(cost):+.2f}, at most {max(cost):+.2f}"


def draw_costs(axes: Axes, groups: Mapping[str, Sequence[float]]) -> None:
    """What each way costs the other documents, one dot for each of them."""
    dots(
        axes, groups, OWN, ylabel="change of the others' own\ncross entropy (nats per token)",
        title=f"What it cost: one dot per other document, ± {ALLOWED:g} shaded",
    )  # fmt: skip
    axes.axhspan(-ALLOWED, ALLOWED, color=FAINT, alpha=0.2, lw=0)
