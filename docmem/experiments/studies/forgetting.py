"""Forgetting: is a document gone, at every point of the DocRep plane?

The paper leaves it open. Four memories are asked for the same document: as trained; with its
DocRep dropped, which removes the name and nothing else; after `docmem.editing.forget`; and the
gold standard, trained anew without it. What goes is the first document that the seed draws.
"""

from collections.abc import Mapping
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
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import PlaneMap, dot_series, dots, level, plane_maps
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import above, alike, below, differences, spread, values_of
from docmem.experiments.study import Study, columns
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.plots.style import FAINT, GUIDANCE, INK, NEGATIVE, OWN, SIGNED

POINTS = 21
"""Points a side of the map that is searched."""
ALLOWED = 0.1
"""What editing one document may cost another, nats per token."""
NEAR = 0.25
"""Cross entropies no farther apart are called alike, nats per token."""
WAYS = {
    "trained": "as trained",
    "dropped": "DocRep dropped",
    "forgotten": "forgotten",
    "retrained": "retrained without it",
}


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
    """Of the first seed: the document's cross entropy minus the base LM's."""


@dataclass(frozen=True)
class Results:
    """By way of removing."""

    extent: float
    """The maps of the first seed are [-extent, extent]²."""
    ways: dict[str, Way]

    def costs(self, way: str) -> np.ndarray:
        """Changes of the other documents' own cross entropies, (seeds, documents)."""
        return np.subtract(self.ways[way].kept, self.ways["trained"].kept)


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
    shown = "What three ways of removing a document leave of it"
    finding = "Dropping a DocRep leaves its text in the memory; forgetting takes it out"
    needs = ("as it must be", "holds")

    def measure(self, pool: RunPool) -> Results:
        """Remove one document of each run, in every way; measure what is left, and the cost."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
        maps: dict[str, PlaneMap] = {}
        extents = []
        for seed in pool.seed_numbers():
            gone, *kept = pool.documents(seed)
            run = pool.run(seed)
            memory, anew = run.load_memory(), pool.run(seed, kept).load_memory()
            text = cache_hidden_states(pool.lm, [gone], run.config)
            others = cache_hidden_states(pool.lm, kept, run.config)
            cleaned = forget(pool.cache_hidden_states(run), memory, 0)
            smaller = drop_doc_rep(memory, 0)
            extents.append(plane_extent(torch.cat([memory.doc_reps, anew.doc_reps])))
            for name, asked, rest in (
                ("trained", memory, smaller),
                ("dropped", smaller, smaller),
                ("forgotten", cleaned, drop_doc_rep(cleaned, 0)),
                ("retrained", anew, anew),
            ):
                left, values = what_is_left(text, asked, memory.doc_reps[0], extents[-1])
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
        read = {
            "where its DocRep was": (GUIDANCE, values_of(ways, "there")),
            "lowest anywhere on the map": (NEGATIVE, values_of(ways, "lowest")),
        }
        dot_series(left, read)
        level(left, 0, "base LM", color=INK)
        left.set_ylabel("its cross entropy\n- base LM's (nats per token)")
        left.legend(frameon=False, loc="lower right")
        left.set_title("What is left of the document")
        draw_costs(right, {title: results.costs(name) for name, title in WAYS.items()})

    def _claims(self, results: Results) -> Claims:
        trained, dropped, forgotten, anew = (results.ways[name] for name in WAYS)
        own = np.mean(trained.kept, axis=1).tolist()
        yield Claim(
            "Dropping a DocRep does not forget: where it was, its text is read as before",
            [alike("its cross entropy minus that before", dropped.there, trained.there, 0.01)],
            note=f"{spread(dropped.there)} nats from the base LM's",
            check=True,
        )
        yield Claim(
            "After a few epochs nothing is left of a document: at no point of the map, nor at its "
            "own DocRep, does it cost less than by the base LM",
            [above("its lowest cross entropy anywhere minus the base LM's", forgotten.lowest)],
            note=f"as trained {spread(trained.lowest)}; forgotten, at its own DocRep "
            f"{spread(forgotten.there)}",
            own=own,
        )
        yield Claim(
            f"Forgetting one costs no other document {ALLOWED:g} nats",
            [below("largest rise of another's", worst(results.costs("forgotten")), ALLOWED)],
            note=f"trained without it {spread(worst(results.costs('retrained')))}",
            own=own,
        )
        more = differences(forgotten.lowest, anew.lowest)
        yield Claim(
            f"It leaves no more of the document than training without it does, to {NEAR:g} nats",
            [above("its lowest cross entropy anywhere, forgotten minus without it", more, -NEAR)],
            note=f"trained without it {spread(anew.lowest)} from the base LM's",
            own=own,
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


def worst(costs: np.ndarray) -> list[float]:
    """What an edit cost the document that it cost most, by seed; `costs` is (seeds, documents)."""
    return costs.max(1).tolist()


def draw_costs(axes: Axes, groups: Mapping[str, np.ndarray]) -> None:
    """What each way costs the other documents, (seeds, documents), one dot for each of them."""
    dots(
        axes, {name: costs.ravel().tolist() for name, costs in groups.items()}, OWN,
        ylabel="change of the others' own\ncross entropy (nats per token)",
        title=f"What it cost: one dot per other document, ± {ALLOWED:g} shaded",
    )  # fmt: skip
    axes.axhspan(-ALLOWED, ALLOWED, color=FAINT, alpha=0.2, lw=0)
