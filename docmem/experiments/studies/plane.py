"""Perplexity over the DocRep plane: a grid with a number in each cell, for three documents.

The paper shows 10 × 10 grids: with tanh narrow wells of low perplexity in a high plain, with
sigmoid a flat one; with a nonlinear g of 2 and 3 layers wide, smeared basins and a spike at the
origin.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from docmem.evaluation.plane import KeyPlane, key_plane, plane_of
from docmem.experiments.drawing import cell_texts, dot_panels, stacked
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import clearly_above, spread, spreads, values_of, verdict
from docmem.experiments.study import Claim, Claims, Study, columns
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.plots.plane import draw_wells
from docmem.plots.style import document_color
from docmem.training.run import Run

NONLINEAR = ("tanh, 2 layers", "tanh, 3 layers")
FEWER = "tanh, 32 entries"
"""With as many entries as the paper has: is a well narrow where there is less room? Not drawn."""
DEEP = {"key_activation": "tanh", "document_key_module_type": "nonlinear"}
SETTINGS: dict[str, dict[str, Any]] = {
    "tanh": {"key_activation": "tanh"},
    "sigmoid": {"key_activation": "sigmoid"},
    NONLINEAR[0]: {**DEEP, "key_internal_layers": 2},
    NONLINEAR[1]: {**DEEP, "key_internal_layers": 3},
    FEWER: {"key_activation": "tanh", "hook_memory_dim": 32},
}
CHOSEN = 3
"""Documents whose grids are drawn, the first."""
HIGHEST = 99.0
"""Perplexities are drawn up to this."""
MEASURES = {
    "within": "share of the square within\n1 nat of the own DocRep",
    "half": "share of the square below half\nthe way from own to median",
    "contrast": "median of the square - own\n(nats per token)",
    "origin": "origin - median of the square\n(nats per token)",
}
Maps = list[list[list[float]]]
"""Cross entropies over the square [-1, 1]² in nats per token: [document, up, across]."""


@dataclass(frozen=True)
class Grids:
    """What is drawn of a first seed: CHOSEN documents."""

    ce: Maps
    """Of the grid that is drawn with its numbers."""
    fine: Maps
    """Of the grid that is drawn as a surface."""
    own: list[float]
    """Cross entropy under the own DocRep, nats per token."""
    doc_reps: list[list[float]]
    """Their places in the plane, (documents, 2)."""


@dataclass(frozen=True)
class Wells:
    """Of one setting: MEASURES, means over documents, one per seed."""

    within: list[float]
    half: list[float]
    contrast: list[float]
    origin: list[float]
    grids: Grids | None
    """None where the setting is not drawn."""


@dataclass(frozen=True)
class Results:
    """By setting."""

    settings: dict[str, Wells]


class Plane(Study[Results]):
    """Where in the plane is a document recalled, under four kinds of g and with fewer entries?"""

    results = Results
    points, fine = 10, 21
    """Points a side of the grid, and of the map that is drawn as a surface."""
    size = (13, 16.5)
    alt = (
        "Above, surfaces of the perplexity of three documents over the plane, for tanh, sigmoid "
        "and key generators of 2 and 3 layers; then twelve grids of ten by ten perplexities, the "
        "same three documents down, each with a ring at the document's own DocRep; below, width "
        "and contrast of the wells and the height at the origin, one dot per seed."
    )
    caption = (
        "Surfaces: the lowest of the three, a pole at each DocRep. Cells: perplexities. Both are "
        f"cut at {HIGHEST:.0f}; rings are DocReps; the first seed."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every setting; read the square with every seed, and finer with the first."""
        found = {}
        for name, change in SETTINGS.items():
            runs = pool.runs(**change)
            read = [self.read(pool, run) for run in runs]
            grids = None if name == FEWER else self.grids(pool, runs[0], read[0])
            found[name] = Wells(**columns(map(wells, read)), grids=grids)
        return Results(found)

    def read(self, pool: RunPool, run: Run) -> Float[Tensor, "n_docs n_points"]:
        """Cross entropies under every DocRep, at the origin, and over the square."""
        memory = run.load_memory()
        origin, axes = plane_of(memory.doc_reps)
        axis = torch.linspace(-1, 1, self.points)
        square = origin + torch.cartesian_prod(axis, axis).flip(1) @ axes  # up, then across
        points = torch.cat([memory.doc_reps, torch.zeros_like(square[:1]), square])
        return cross_entropies_at(pool.cache_hidden_states(run), memory, points)

    def grids(self, pool: RunPool, run: Run, ce: Float[Tensor, "n_docs n_points"]) -> Grids:
        """What is drawn of a run that was read."""
        coarse = ce[:CHOSEN, len(ce) + 1 :].unflatten(1, (self.points, self.points))
        fine = key_plane(pool.cache_hidden_states(run), run.load_memory(), points=self.fine)
        return Grids(
            coarse.tolist(),
            [document.round(decimals=4).tolist() for document in fine.ce[:CHOSEN]],
            ce.diagonal()[:CHOSEN].tolist(),
            fine.doc_reps[:CHOSEN].tolist(),
        )

    def _draw(self, figure: Figure, results: Results) -> None:
        drawn = {name: one.grids for name, one in results.settings.items() if one.grids}
        rows = len(drawn["tanh"].ce)
        above, whole, below = stacked(figure, 1.25, rows * 1.1, 1)
        lowest = min(float(np.exp(grids.ce).min()) for grids in drawn.values())
        limits = (min(lowest, HIGHEST / 2), HIGHEST)
        panels = whole.subplots(rows, len(drawn), squeeze=False)
        for column, (name, grids) in enumerate(drawn.items()):
            left, width = column / len(drawn), 1 / len(drawn)
            surface = above.add_axes((left, 0.03, width, 0.87), projection="3d",
                                     computed_zorder=False)  # fmt: skip
            draw_surface(surface, grids, limits)
            above.text(left + 0.03, 0.95, name, fontsize=11, fontweight="bold")
            for row, axes in enumerate(panels[:, column]):
                draw_grid(axes, grids, row, limits)
                axes.set_title(f"{name}: {np.exp(grids.own[row]):.1f} at its DocRep", fontsize=9.5)
        for row, axes in enumerate(panels[:, 0]):
            axes.set_ylabel(f"document {row + 1}", color=document_color(row), weight="bold")
        measured = below.subplots(1, 4)
        labelled = {
            name.replace("tanh, ", "").replace(" ", "\n"): one
            for name, one in results.settings.items()
        }
        dot_panels(measured, MEASURES, labelled)
        for axes in measured:
            axes.tick_params(axis="x", labelsize=8)
            axes.axhline(0, color="#CCCCCC", lw=1, zorder=0)

    def title(self, results: Results) -> str:
        """Compares tanh with sigmoid, if their contrasts differ clearly."""
        found = results.settings
        if clearly_above(found["tanh"].contrast, found["sigmoid"].contrast):
            return "Deep wells with tanh, at each document's DocRep; shallow ones with sigmoid"
        return "Perplexity of three documents over the DocRep plane, by activation and depth"

    def _judge(self, results: Results) -> Claims:
        tanh, sigmoid, *nonlinear, fewer = results.settings.values()
        linear_first = {name: results.settings[name] for name in ("tanh", *NONLINEAR)}

        def text(key: str) -> str:
            return spreads(values_of(linear_first, key))

        does = "" if clearly_above(tanh.within, fewer.within) else "do not "
        yield Claim(
            "With tanh a document has a narrow well in a high plain",
            f"share of the square within 1 nat of own {spread(tanh.within)}, "
            f"median - own {spread(tanh.contrast)} nats",
            verdict(spread(tanh.within).mean < 0.15, spread(tanh.contrast).mean > 1),
            published="2.5–3.6 in the well, 9.0 nearly everywhere else",
            why=f"Fewer entries {does}narrow it: with 32, as many as the paper has, the share is "
            f"{spread(fewer.within)}",
        )
        contrast = {"sigmoid": sigmoid.contrast, "tanh": tanh.contrast}
        yield Claim(
            "With sigmoid the plane is flat",
            f"median - own in nats {spreads(contrast)}",
            verdict(
                spread(sigmoid.contrast).mean < 0.5, clearly_above(tanh.contrast, sigmoid.contrast)
            ),
            published="5.1–5.8 everywhere",
            exploratory=True,
        )
        yield Claim(
            "A nonlinear g makes wider basins than a linear one",
            f"share within 1 nat of own {text('within')}; share below half-way {text('half')}",
            verdict(
                *(clearly_above(one.within, tanh.within) for one in nonlinear),
                *(clearly_above(one.half, tanh.half) for one in nonlinear),
            ),
            published="wide, smeared",
            exploratory=True,
        )
        yield Claim(
            "With a nonlinear g the perplexity has a spike at the origin",
            f"origin - median in nats {text('origin')}",
            verdict(*(clearly_above(one.origin) for one in nonlinear)),
            published="9.0 at the origin",
            why="The origin lies between the DocReps, where wells run into each other; "
            "`guidance` shows what the negative `zero` does there",
            exploratory=True,
        )


def wells(ce: Float[Tensor, "n_docs n_points"]) -> dict[str, float]:
    """Width, contrast and height at the origin of the wells of `Plane.read`, over documents."""
    n_docs = len(ce)
    own, origin, square = ce.diagonal()[:, None], ce[:, n_docs], ce[:, n_docs + 1 :]
    # The lower median; a flat square has no half-way, and all of it counts.
    median = square.median(dim=1, keepdim=True).values
    return {
        "within": (square <= own + 1).float().mean().item(),
        "half": (square <= (own + median) / 2).float().mean().item(),
        "contrast": (median - own).mean().item(),
        "origin": (origin - median[:, 0]).mean().item(),
    }


def draw_surface(surface: Any, grids: Grids, limits: tuple[float, float]) -> None:
    """The lowest of the documents' perplexities, within limits, on 3-d Axes."""
    ce, doc_reps = torch.tensor(grids.fine), torch.tensor(grids.doc_reps)
    fine = KeyPlane(torch.linspace(-1, 1, ce.shape[1]), ce, doc_reps)
    draw_wells(surface, fine, fine.perplexity.numpy(), range(len(ce)), limits)
    surface.set_in_layout(False)
    surface.set(xlabel="", ylabel="", zlabel="")
    surface.set_box_aspect((1.9, 1.9, 1.0), zoom=0.98)
    surface.tick_params(labelsize=8, pad=-2)


def draw_grid(axes: Axes, grids: Grids, document: int, limits: tuple[float, float]) -> None:
    """A document's perplexities, within limits, with their numbers and a ring at its DocRep."""
    perplexity = np.minimum(np.exp(grids.ce[document]), HIGHEST)
    image = axes.imshow(
        perplexity, origin="lower", cmap="magma", norm=LogNorm(*limits), aspect="auto"
    )
    cell_texts(axes, image, lambda value: f"{value:.{int(value < 9.95)}f}", 7.5)
    last = len(perplexity) - 1
    x, y = ((place + 1) / 2 * last for place in grids.doc_reps[document])
    for color, width in (("white", 3.4), (document_color(document), 1.8)):
        axes.plot(x, y, "o", ms=17, mfc="none", mec=color, mew=width, clip_on=False)
    axes.set(xlim=(-0.5, last + 0.5), ylim=(-0.5, last + 0.5))
    axes.set_xticks((0, last / 2, last), ("-1", "0", "1"))
    axes.set_yticks((0, last / 2, last), ("-1", "0", "1"))
