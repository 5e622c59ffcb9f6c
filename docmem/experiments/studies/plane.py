"""Perplexity over the DocRep plane: where three documents are recalled, and how well.

The paper shows 10 × 10 grids of numbers: with tanh narrow wells of low perplexity in a high
plain, with sigmoid a flat one; with a nonlinear g of 2 and 3 layers wide, smeared basins and a
spike at the origin. A well's share of the square is taken at the document's own cross entropy
plus 1 nat, and 32 entries, as many as the paper has, are compared with all entries at equal own
cross entropy.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from docmem.evaluation.cached import first_segments
from docmem.evaluation.plane import KeyPlane
from docmem.experiments.claims import LEARNED, Claim, Claims
from docmem.experiments.drawing import dot_rows, stacked
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import above, alike, below, highest, more, spreads, values_of
from docmem.experiments.study import Study, columns
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.plots.plane import perplexity_bar, plane_map
from docmem.plots.style import INK, document_color
from docmem.plots.wells import draw_wells
from docmem.training.run import Run

NONLINEAR = ("tanh, 2 layers", "tanh, 3 layers")
FEW, MANY = "tanh, 32 entries", "tanh, all entries, as young"
"""Two memories of one segment a document, equally learned."""
DEEP = {"document_key_module_type": "nonlinear"}
SETTINGS: dict[str, dict[str, Any]] = {
    "tanh": {},
    "relu": {"key_activation": "relu"},
    "sigmoid": {"key_activation": "sigmoid"},
    NONLINEAR[0]: {**DEEP, "key_internal_layers": 2},
    NONLINEAR[1]: {**DEEP, "key_internal_layers": 3},
}
DRAWN = ("tanh", "sigmoid", *NONLINEAR)
LONGER = 3
"""Times the epochs: what 32 entries take to learn one segment of each document."""
CHOSEN = 3
"""Documents whose grids are drawn, the first."""
TOKENS = 32
"""Of each document are read, the first."""
HIGHEST = 99.0
"""Perplexities are drawn up to this."""
MEASURES = {
    "within": "share of the square within\n1 nat of the own DocRep",
    "twice": "share of the square below\ntwice the lowest perplexity",
    "contrast": "median of the square - own\n(nats per token)",
    "origin": "origin - median of the square\n(nats per token)",
    "own": "cross entropy, own DocRep\n(nats per token)",
}
Maps = list[list[list[float]]]
"""Cross entropies over the square [-1, 1]² in nats per token: [document, up, across]."""


@dataclass(frozen=True)
class Grids:
    """What is drawn of a first seed: CHOSEN documents."""

    ce: Maps
    """Of the grid whose cells are drawn."""
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
    twice: list[float]
    contrast: list[float]
    origin: list[float]
    own: list[float]
    grids: Grids | None
    """None where the setting is not drawn."""


@dataclass(frozen=True)
class Results:
    """By setting."""

    settings: dict[str, Wells]


class Plane(Study[Results]):
    """Where in the plane is a document recalled: how wide and how deep are the wells?"""

    results = Results
    points, fine = 10, 21
    """Points a side of the grid, and of the map that is drawn as a surface."""
    size = (11, 14)
    alt = (
        "Above, surfaces of the perplexity of three documents over the plane, for tanh, sigmoid "
        "and key generators of 2 and 3 layers; then twelve maps of ten by ten perplexities, the "
        "same three documents down, each with a ring at the document's own DocRep and a line "
        "around its well; below, width and contrast of the wells and the height at the origin, one "
        "dot per seed."
    )
    shown = "Perplexity of three documents over the DocRep plane, by activation and depth"
    finding = "Narrow wells with tanh, at each document's DocRep; a flat plane with sigmoid"
    needs = ("holds", None, None, "holds")
    caption = (
        f"Surfaces: the lowest of the three, interpolated between {fine} × {fine} points; a pole "
        "at each DocRep, dotted where hidden. Maps: "
        f"perplexity of the first {TOKENS} tokens, a ring at the own DocRep, a line around the "
        f"well, which is within 1 nat per token of it. Both are cut at {HIGHEST:.0f}; the first "
        f"seed. The last two rows: one segment of each document, by 32 entries in {LONGER} "
        "times as many epochs, and by 128, stopped where they have learned about as much."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every setting; read the square with every seed, and finer with the first."""
        runs = {name: pool.runs(**change) for name, change in SETTINGS.items()}
        longer = LONGER * pool.config().num_epochs
        runs[FEW] = pool.runs(hook_memory_dim=32, max_segments=1, num_epochs=longer)
        runs[MANY] = [as_learned(pool, run) for run in runs[FEW]]
        found = {}
        for name, seeds in runs.items():
            read = [read_square(pool, run, self.points) for run in seeds]
            grids = self.grids(pool, seeds[0], read[0]) if name in DRAWN else None
            found[name] = Wells(**columns(map(wells, read)), grids=grids)
        return Results(found)

    def grids(self, pool: RunPool, run: Run, ce: Float[Tensor, "n_docs n_points"]) -> Grids:
        """What is drawn of a run that was read."""
        chosen, memory = torch.arange(CHOSEN), run.load_memory()
        cache = first_segments(run, pool.lm, TOKENS, chosen)
        fine = cross_entropies_at(cache, memory, square(self.fine)).round(decimals=4)
        coarse = ce[:CHOSEN, len(ce) + 1 :]
        return Grids(
            coarse.unflatten(1, (self.points, self.points)).tolist(),
            fine.unflatten(1, (self.fine, self.fine)).tolist(),
            ce.diagonal()[:CHOSEN].tolist(),
            memory.doc_reps[:CHOSEN].tolist(),
        )

    def _draw(self, figure: Figure, results: Results) -> None:
        drawn = {name: one.grids for name, one in results.settings.items() if one.grids}
        rows = len(drawn["tanh"].ce)
        above, whole, below = stacked(figure, 1.2, rows, 1.3)
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
                image = draw_grid(axes, grids, row, limits)
        for axes in panels.ravel():
            axes.label_outer()
        for row, axes in enumerate(panels[:, 0]):
            axes.set_ylabel(f"document {row + 1}", color=INK, weight="bold")
        perplexity_bar(whole, image, panels.ravel().tolist(), pad=0.01)
        measured = below.subplots(1, len(MEASURES), sharey=True)
        for axes, (key, label) in zip(measured, MEASURES.items(), strict=True):
            dot_rows(axes, [getattr(one, key) for one in results.settings.values()])
            axes.set_xlabel(label, fontsize=9)
            axes.axvline(0, color="#CCCCCC", lw=1, zorder=0)
        named = ["tanh, stopped early" if name == MANY else name for name in results.settings]
        measured[0].set(yticks=range(len(named)), yticklabels=named, ylim=(len(named) - 0.5, -0.5))

    def _claims(self, results: Results) -> Claims:
        tanh, relu, sigmoid, *nonlinear, few, many = results.settings.values()
        unlearned = highest(one.own for one in nonlinear)

        def told(key: str, *names: str) -> str:
            return spreads(values_of({name: results.settings[name] for name in names}, key))

        yield Claim(
            "With tanh a document has a narrow well in a high plain",
            [
                below("share of the square within 1 nat of own", tanh.within, 0.1),
                above("median of the square − own, nats", tanh.contrast, 1.0),
            ],
            published="2.5–3.6 in the well; nearly everywhere else 9.0, where its tables are cut",
            papers=True,
            note="a tenth of the square is what each of ten documents could have; below twice the "
            f"lowest perplexity lies {told('twice', 'tanh')}",
            own=tanh.own,
            exploratory=True,
        )
        yield Claim(
            "With relu wells are as wide as with tanh",
            [alike("relu − tanh, share within 1 nat", relu.within, tanh.within, 0.05)],
            published="not compared",
            note=told("within", "tanh", "relu"),
            own=relu.own,
        )
        yield Claim(
            "32 entries make narrower wells than 128 that are stopped when they have learned about "
            "as much",
            [more("all − 32 entries, share within 1 nat", many.within, few.within, 0.05)],
            published="narrow, with 32",
            note=f"{told('within', FEW, MANY, 'tanh')}; own cross entropy "
            f"{told('own', FEW, MANY)}; the 32 have {LONGER} times as many epochs, and wells grow "
            "narrower in training, so this is not the effect of entries alone",
            own=few.own,
            exploratory=True,
        )
        yield Claim(
            "With sigmoid the plane is flat",
            [below("median of the square − own, nats", sigmoid.contrast, 0.5)],
            published="5.1–5.8 everywhere",
            papers=True,
            own=sigmoid.own,
        )
        yield Claim(
            "A nonlinear g makes wider basins than a linear one",
            [
                more(f"{name} − tanh, share within 1 nat", one.within, tanh.within, 0.05)
                for name, one in zip(NONLINEAR, nonlinear, strict=True)
            ],
            published="wide, smeared",
            papers=True,
            note=f"{told('within', 'tanh', *NONLINEAR)}; own cross entropy "
            f"{told('own', 'tanh', *NONLINEAR)}",
            own=unlearned,
        )
        yield Claim(
            "With a nonlinear g the perplexity has a spike at the origin",
            [
                above(f"{name}, origin − median, nats", one.origin, 0.0, margin=0.25)
                for name, one in zip(NONLINEAR, nonlinear, strict=True)
            ],
            published="9.0, where its tables are cut",
            papers=True,
            own=unlearned,
        )
        yield Claim(
            "With tanh and 32 entries, as in the paper, a document has a narrow well",
            [below("share of the square within 1 nat of own", few.within, 0.1)],
            published="narrow, with 32",
            papers=True,
            note=f"one segment of each document, in {LONGER} times as many epochs",
            own=few.own,
            exploratory=True,
        )


def as_learned(pool: RunPool, run: Run) -> Run:
    """A memory of all entries on the same text, stopped where it had learned as much as `run`."""
    seed, wanted = run.config.seed, run.load_history()[-1].positive_ce
    history = pool.run(seed, max_segments=1).load_history()
    nearest = min(history, key=lambda epoch: abs(epoch.positive_ce - wanted))
    return pool.run(seed, max_segments=1, num_epochs=nearest.epoch)


def square(points: int) -> Float[Tensor, "n_points 2"]:
    """A grid over [-1, 1]² with so many points a side: row by row up, in each across."""
    axis = torch.linspace(-1, 1, points)
    return torch.cartesian_prod(axis, axis).flip(1)


def read_square(pool: RunPool, run: Run, points: int) -> Float[Tensor, "n_docs n_points"]:
    """Cross entropy of each document under every DocRep, at the origin, and over the square."""
    memory = run.load_memory()
    places = torch.cat([memory.doc_reps, torch.zeros(1, 2), square(points)])
    return cross_entropies_at(first_segments(run, pool.lm, TOKENS), memory, places)


def wells(ce: Float[Tensor, "n_docs n_points"]) -> dict[str, float]:
    """MEASURES of what `read_square` read, means over documents."""
    n_docs = len(ce)
    own, origin, plain = ce.diagonal()[:, None], ce[:, n_docs], ce[:, n_docs + 1 :]
    lowest = torch.minimum(own, plain.min(dim=1, keepdim=True).values)
    median = plain.median(dim=1, keepdim=True).values  # the lower one
    return {
        "within": (plain <= own + 1).float().mean().item(),
        "twice": (plain <= lowest + math.log(2)).float().mean().item(),
        "contrast": (median - own).mean().item(),
        "origin": (origin - median[:, 0]).mean().item(),
        "own": own.mean().item(),
    }


def draw_surface(surface: Any, grids: Grids, limits: tuple[float, float]) -> None:
    """The lowest of the documents' perplexities, within limits, on 3-d Axes."""
    ce, doc_reps = torch.tensor(grids.fine), torch.tensor(grids.doc_reps)
    fine = KeyPlane(torch.linspace(-1, 1, ce.shape[1]), ce, doc_reps)
    draw_wells(surface, fine, range(len(ce)), limits)
    surface.set_in_layout(False)
    surface.set(xlabel="", ylabel="", zlabel="")
    surface.set_box_aspect((1.9, 1.9, 1.0), zoom=1.15)
    surface.tick_params(labelsize=8, pad=-2)


def draw_grid(axes: Axes, grids: Grids, document: int, limits: tuple[float, float]) -> AxesImage:
    """A document's perplexities, within limits; white: its well, if it was learned."""
    ce, own = np.array(grids.ce[document]), grids.own[document]
    image = plane_map(axes, np.exp(ce), 1.0, cmap="magma", norm=LogNorm(*limits))
    within, learned = ce <= own + 1, own <= LEARNED
    if learned and within.any() and not within.all():
        left, right, bottom, top = image.get_extent()
        fine = np.kron(within, np.ones((20, 20)))  # so that the line goes around cells
        centres = (np.arange(len(fine)) + 0.5) / len(fine)
        axes.contour(
            left + (right - left) * centres, bottom + (top - bottom) * centres, fine, [0.5],
            colors="white", linewidths=1.6,
        )  # fmt: skip
    x, y = grids.doc_reps[document]
    for color, width in (("white", 3.4), (document_color(document), 1.8)):
        axes.plot(x, y, "o", ms=11, mfc="none", mec=color, mew=width, clip_on=False)
    axes.set(xlabel="", ylabel="")
    well = f"well {100 * within.mean():.0f} %" if learned else "not learned"
    axes.set_title(f"at the ring {np.exp(own):.1f}, {well}", fontsize=9, fontweight="normal")
    return image
