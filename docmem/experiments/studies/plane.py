"""Perplexity over the DocRep plane: a grid with a number in each cell, for three documents.

The paper shows 10 × 10 grids: with tanh narrow wells of low perplexity in a high plain, with
sigmoid a flat one; with a nonlinear g of 2 and 3 layers wide, smeared basins and a spike at the
origin.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from docmem.evaluation.plane import KeyPlane, key_plane, plane_of
from docmem.experiments.drawing import dots
from docmem.experiments.pool import SEEDS_ADDED, Claim, RunPool, spread, verdict
from docmem.experiments.stats import clearly_above
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.plots import draw_wells
from docmem.plots.style import document_color, headline, styled

QUESTION = "Where in the plane is a document recalled?"
SETTINGS: dict[str, dict[str, Any]] = {
    "tanh": {"key_activation": "tanh"},
    "sigmoid": {"key_activation": "sigmoid"},
    **{
        f"tanh, {layers} layers": {
            "key_activation": "tanh",
            "document_key_module_type": "nonlinear",
            "key_internal_layers": layers,
        }
        for layers in (2, 3)
    },
}
FEWER = "tanh, 32 entries"
TESTED: dict[str, dict[str, Any]] = {
    **SETTINGS,
    FEWER: {"key_activation": "tanh", "hook_memory_dim": 32},
}
"""And with as many entries as the paper has: is a well narrow where there is less room?"""
NONLINEAR = tuple(name for name in SETTINGS if "layers" in name)
POINTS = 10
CHOSEN = 3
"""Documents whose grids are drawn, the first."""
FINE = 21
"""Points a side of the map that is drawn as a surface."""
HIGHEST = 99.0
"""Perplexities are drawn up to this."""
MEASURES = {
    "within": "share of the square within\n1 nat of the own DocRep",
    "half": "share of the square below half\nthe way from own to median",
    "contrast": "median of the square - own\n(nats per token)",
    "origin": "origin - median of the square\n(nats per token)",
}


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each setting and seed: how wide and deep the wells are; of the first seed, the grids."""
    results: dict[str, Any] = {"axis": torch.linspace(-1, 1, POINTS).tolist()}
    for name, change in TESTED.items():
        seeds: list[dict[str, float]] = []
        results[name] = {"seeds": seeds}
        for run in pool.runs(**change):
            memory = run.load_memory()
            origin, axes = plane_of(memory.doc_reps)
            axis = torch.tensor(results["axis"])
            square = origin + torch.cartesian_prod(axis, axis).flip(1) @ axes  # up, then across
            points = torch.cat([memory.doc_reps, torch.zeros_like(square[:1]), square])
            cache = pool.cache_hidden_states(run)
            ce = cross_entropies_at(cache, memory, points)  # (n_docs, points)
            seeds.append(wells(ce))
            if run.config.seed == 1 and name in SETTINGS:
                fine = key_plane(cache, memory, points=FINE, extent=1.0)
                n_docs = len(ce)
                grids = ce[:CHOSEN, n_docs + 1 :].unflatten(1, (POINTS, POINTS))
                results[name] |= {
                    "ce": grids.tolist(),
                    "own": ce.diagonal()[:CHOSEN].tolist(),
                    "doc_reps": ((memory.doc_reps[:CHOSEN] - origin) @ axes.T).tolist(),
                    "fine": {
                        "axis": fine.axis.tolist(),
                        "ce": [row.round(decimals=4).tolist() for row in fine.ce[:CHOSEN]],
                    },
                }
    return results


def wells(ce: torch.Tensor) -> dict[str, float]:
    """Width, contrast and height at the origin of the wells, means over documents.

    Args:
        ce: cross entropies (n_docs, n_docs + 1 + cells): under every DocRep, at the origin, and
            over the square.
    """
    n_docs = len(ce)
    own, origin, square = ce.diagonal()[:, None], ce[:, n_docs], ce[:, n_docs + 1 :]
    # The lower median; a flat square has no half-way, and all of it counts.
    median = square.median(dim=1, keepdim=True).values
    return {
        "within": (square <= own + 1).float().mean().item(),
        "half": (square <= (own + median) / 2).float().mean().item(),
        "contrast": (median - own).mean().item(),
        "origin": (origin - median[:, 0]).mean().item(),
        "own": own.mean().item(),
        "median": median.mean().item(),
    }


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """The wells of the first seed, as surfaces and as grids, over the numbers of every seed."""
    rows = len(results["tanh"]["ce"])
    parts: Any = figure.subfigures(3, 1, height_ratios=(1.25, rows * 1.1, 1))
    above, whole, below = parts
    panels = whole.subplots(rows, len(SETTINGS), squeeze=False)
    lowest = min(float(np.exp(results[name]["ce"]).min()) for name in SETTINGS)
    norm = LogNorm(min(lowest, HIGHEST / 2), HIGHEST)
    for column, name in enumerate(SETTINGS):
        width = 1 / len(SETTINGS)
        place = (column * width, 0.03, width, 0.87)
        surface: Any = above.add_axes(place, projection="3d", computed_zorder=False)
        surface.set_in_layout(False)
        fine = KeyPlane(
            torch.tensor(results[name]["fine"]["axis"]),
            torch.tensor(results[name]["fine"]["ce"]),
            torch.tensor(results[name]["doc_reps"]),
        )
        limits = (min(lowest, HIGHEST / 2), HIGHEST)
        draw_wells(surface, fine, fine.perplexity.numpy(), range(rows), limits)
        surface.set(xlabel="", ylabel="", zlabel="")
        surface.set_box_aspect((1.9, 1.9, 1.0), zoom=0.98)
        surface.tick_params(labelsize=8, pad=-2)
        above.text(column * width + 0.03, 0.95, name, fontsize=11, fontweight="bold")
    cells = np.arange(POINTS)
    for column, name in enumerate(SETTINGS):
        for row, axes in enumerate(panels[:, column]):
            perplexity = np.minimum(np.exp(results[name]["ce"][row]), HIGHEST)
            axes.imshow(perplexity, origin="lower", cmap="magma", norm=norm, aspect="auto")
            for up in cells:
                for across in cells:
                    value = perplexity[up, across]
                    axes.text(
                        across, up, f"{value:.1f}" if value < 9.95 else f"{value:.0f}",
                        ha="center", va="center", fontsize=7.5, zorder=4,
                        color="white" if norm(value) < 0.6 else "black",
                    )  # fmt: skip
            x, y = ((place + 1) / 2 * (POINTS - 1) for place in results[name]["doc_reps"][row])
            axes.plot(x, y, "o", ms=17, mfc="none", mec="white", mew=3.4, clip_on=False)
            axes.plot(x, y, "o", ms=17, mfc="none", mec=document_color(row), mew=1.8,
                      clip_on=False)  # fmt: skip
            axes.set_xlim(-0.5, POINTS - 0.5)
            axes.set_ylim(-0.5, POINTS - 0.5)
            axes.set_xticks((0, (POINTS - 1) / 2, POINTS - 1), ("-1", "0", "1"))
            axes.set_yticks((0, (POINTS - 1) / 2, POINTS - 1), ("-1", "0", "1"))
            own = np.exp(results[name]["own"][row])
            axes.set_title(f"{name}: {own:.1f} at its DocRep", fontsize=9.5)
            if column == 0:
                axes.set_ylabel(f"document {row + 1}", color=document_color(row), weight="bold")
    for axes, (key, label) in zip(below.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        dots(axes, {
            name.replace("tanh, ", "").replace(" ", "\n"): [
                seed[key] for seed in results[name]["seeds"]
            ]
            for name in TESTED
        })  # fmt: skip
        axes.tick_params(axis="x", labelsize=8)
        axes.axhline(0, color="#CCCCCC", lw=1, zorder=0)
        axes.set_ylabel(label)
    contrast = {
        name: [seed["contrast"] for seed in results[name]["seeds"]] for name in ("tanh", "sigmoid")
    }
    title = "Perplexity of three documents over the DocRep plane, by activation and depth"
    if clearly_above(contrast["tanh"], contrast["sigmoid"]):
        title = "Deep wells with tanh, at each document's DocRep; shallow ones with sigmoid"
    headline(
        figure,
        title,
        "Surfaces: the lowest of the three, a pole at each DocRep. Cells: perplexities. Both are "
        f"cut at {HIGHEST:.0f}; rings are DocReps; the first seed. {note}",
    )
    return figure


SIZE = (13, 16.5)
ALT = (
    "Above, surfaces of the perplexity of three documents over the plane, for tanh, sigmoid and "
    "key generators of 2 and 3 layers; then twelve grids of ten by ten perplexities, the same "
    "three documents down, each with a ring at the document's own DocRep; below, "
    "width and contrast of the wells and the height at the origin, one dot per seed."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """Tanh: narrow wells; sigmoid: flat; nonlinear: wider, with a spike at the origin."""

    def of(name: str, key: str) -> list[float]:
        return [seed[key] for seed in results[name]["seeds"]]

    def text(key: str, names: tuple[str, ...]) -> str:
        return ", ".join(f"{name}: {spread(of(name, key))}" for name in names)

    def spikes(name: str) -> bool:
        heights = of(name, "origin")
        return clearly_above(heights, [0.0] * len(heights))

    within = of("tanh", "within")
    narrow = verdict(spread(within).mean < 0.15, spread(of("tanh", "contrast")).mean > 1)
    fewer_is_narrower = clearly_above(within, of(FEWER, "within"))
    spike = verdict(*map(spikes, NONLINEAR))
    return [
        Claim(
            "With tanh a document has a narrow well in a high plain",
            "2.5–3.6 in the well, 9.0 nearly everywhere else",
            f"share of the square within 1 nat of own {spread(of('tanh', 'within'))}, "
            f"median - own {spread(of('tanh', 'contrast'))} nats",
            narrow,
            ""
            if narrow == "holds"
            else f"Fewer entries {'' if fewer_is_narrower else 'do not '}narrow it: with 32, as "
            f"many as the paper has, the share is {spread(of(FEWER, 'within'))}",
        ),
        Claim(
            "With sigmoid the plane is flat",
            "5.1–5.8 everywhere",
            f"median - own in nats {text('contrast', ('sigmoid', 'tanh'))}",
            verdict(
                spread(of("sigmoid", "contrast")).mean < 0.5,
                clearly_above(of("tanh", "contrast"), of("sigmoid", "contrast")),
            ),
            exploratory=True,
        ),
        Claim(
            "A nonlinear g makes wider basins than a linear one",
            "wide, smeared",
            f"share within 1 nat of own {text('within', ('tanh', *NONLINEAR))}; "
            f"share below half-way {text('half', ('tanh', *NONLINEAR))}",
            verdict(
                *(
                    clearly_above(of(name, key), of("tanh", key))
                    for key in ("within", "half")
                    for name in NONLINEAR
                )
            ),
            exploratory=True,
        ),
        Claim(
            "With a nonlinear g the perplexity has a spike at the origin",
            "9.0 at the origin",
            f"origin - median in nats {text('origin', ('tanh', *NONLINEAR))}",
            spike,
            ""
            if spike == "holds"
            else "The origin lies between the DocReps, where wells run into each other; "
            "`guidance` shows what the negative `zero` does there",
            SEEDS_ADDED,
        ),
    ]
