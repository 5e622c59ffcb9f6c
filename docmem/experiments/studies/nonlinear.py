"""Linear against nonlinear g: what layers in the key generator do to the selections.

The paper trains g with 1 to 4 layers (relu, random negatives) and reports that the linear one
opens most entries and keeps documents furthest apart for their norm, while deeper ones leave
entries dead for every document. Its α of 1 is used with its own procedure only: the presets'
absolute loss does not learn under it.
"""

import statistics
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import band, shade
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import highest, more, spreads, values_of
from docmem.experiments.studies.activation import OPEN
from docmem.experiments.study import DRAWN, USUAL, Study, columns
from docmem.plots.style import plain_log_ticks
from docmem.training.run import Run

DEPTHS = ("1", "2", "3", "4")
"""Hidden layers of g; 1 is the linear g."""
SETTINGS: dict[str, Any] = {
    "key_activation": "relu",
    "negative_key_type": "random",
    "document_key_module_type": "nonlinear",
    "save_freq": 5,  # epochs; where a procedure takes no snapshots between, these are drawn
}
MEASURES = {
    "active": f"share of entries\nwith k_doc > {OPEN}",
    "dead": "share of entries dead\nfor every document",
    "l2": "L2 norm of a selection",
    "distance": "mean distance of\ntwo documents' selections",
    "ratio": "distance / L2 norm",
}


@dataclass(frozen=True)
class Depth:
    """Selections of one depth: MEASURES at every snapshot, one curve per seed."""

    active: list[list[float]]
    dead: list[list[float]]
    l2: list[list[float]]
    distance: list[list[float]]
    ratio: list[list[float]]
    own: list[float]
    """Own cross entropy in the last epoch, nats per token, one per seed."""


@dataclass(frozen=True)
class Results:
    """By number of layers."""

    epochs: list[int]
    """Of the snapshots."""
    depths: dict[str, Depth]

    def last(self, key: str) -> dict[str, list[float]]:
        """One measure at the last snapshot, by depth, one per seed."""
        return {
            name: [curve[-1] for curve in getattr(depth, key)]
            for name, depth in self.depths.items()
        }


class Nonlinear(Study[Results]):
    """What does depth in the key generator do to the selections?"""

    results = Results
    size = (11, 6.4)
    alt = (
        "Five panels over epochs, a curve with a band for a key generator of 1, 2, 3 and 4 layers: "
        "share of active entries, share of entries dead for every document, L2 norm of the "
        "selections, their pairwise distance, and distance over norm."
    )
    shown = "What depth in the key generator does to the selections of relu"
    finding = "A deeper key generator opens fewer entries and leaves more of them dead"
    needs = ("holds", None, "holds")
    caption = "Mean of all seeds in a band of one standard deviation; random negatives."
    trains = f"{USUAL}, {{seeds}} seeds. {DRAWN}"

    def measure(self, pool: RunPool) -> Results:
        """Train every depth with every seed; measure the selections after whole epochs."""
        depths = {}
        for layers in DEPTHS:
            runs = pool.runs(**SETTINGS, key_internal_layers=int(layers))
            depths[layers] = Depth(**columns(one_run(run) for run in runs))
        return Results([round(runs[0].load_snapshots().epochs[n]) for n in whole(runs[0])], depths)

    def _draw(self, figure: Figure, results: Results) -> None:
        *panels, legend = figure.subplots(2, 3).flatten()
        for axes, (key, label) in zip(panels, MEASURES.items(), strict=True):
            for place, (layers, depth) in enumerate(results.depths.items()):
                name = "linear" if layers == "1" else f"{layers} hidden layers"
                color = shade(place, len(DEPTHS))
                band(axes, results.epochs, getattr(depth, key), color, name)
            axes.set(xlabel="epoch", ylabel=label)
            if key in ("l2", "distance"):  # one depth may be a hundred times another
                axes.set_yscale("log")
                plain_log_ticks(axes.yaxis)
            else:
                axes.set_ylim(0)
            axes.set_xlim(results.epochs[0], results.epochs[-1])
        legend.axis("off")
        legend.legend(
            *panels[0].get_legend_handles_labels(), frameon=False, title="key generator",
            alignment="left", loc="center", fontsize=12, title_fontsize=12,
        )  # fmt: skip

    def _claims(self, results: Results) -> Claims:
        own = values_of(results.depths, "own")
        untrained = {
            name: [curve[0] for curve in depth.dead] for name, depth in results.depths.items()
        }
        for key, claim, part, published, note in (
            ("active", "A linear g opens more entries than one of 2 to 4 layers",
             "share of active entries, linear − mean of deeper", "L0 94 / 83 / 80 / 80",
             f"; own cross entropy {spreads(own)}"),
            ("ratio", "A linear g keeps documents further apart for their norm",
             "distance / L2, linear − mean of deeper", "distance / L2 0.76 / 0.56 / 0.53 / 0.51",
             ""),
            ("dead", "A deeper g leaves more entries dead for every document",
             "share of dead entries, mean of deeper − linear", "more dead entries",
             f"; untrained {spreads(untrained)}"),
        ):  # fmt: skip
            linear, *others = (found := results.last(key)).values()
            deeper = [statistics.fmean(each) for each in zip(*others, strict=True)]
            larger, smaller = (deeper, linear) if key == "dead" else (linear, deeper)
            yield Claim(
                claim,
                [more(part, larger, smaller, 0.05)],
                published=published,
                papers=True,
                note=f"by layers {spreads(found)}{note}",
                own=highest(own.values()),
            )


def whole(run: Run) -> list[int]:
    """Which snapshots were taken after whole epochs."""
    return [place for place, epoch in enumerate(run.load_snapshots().epochs) if epoch % 1 == 0]


def one_run(run: Run) -> dict[str, Any]:
    """MEASURES of a run after whole epochs, and its own cross entropy."""
    selections = run.load_snapshots().document[whole(run)]
    return {**through(selections), "own": run.load_history()[-1].positive_ce}


def through(selections: Float[Tensor, "snapshots n_docs entries"]) -> dict[str, list[float]]:
    """Every measure at every snapshot."""
    is_open = selections > OPEN
    l2 = selections.norm(dim=-1).mean(-1)  # (snapshots,)
    distance = torch.stack([torch.pdist(one).mean() for one in selections])
    return {
        "active": is_open.float().mean((1, 2)).tolist(),
        "dead": (~is_open.any(1)).float().mean(-1).tolist(),
        "l2": l2.tolist(),
        "distance": distance.tolist(),
        "ratio": (distance / l2).tolist(),
    }
