"""Linear against nonlinear g: what layers in the key generator do to the selections.

The paper trains g with 1 to 4 layers (relu, random negatives, α 1, 5 seeds) and reports that the
linear one opens most entries and keeps documents furthest apart for their norm, while deeper
ones leave entries dead for every document.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from docmem.experiments.drawing import band, shade
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import clearly_above, spreads, verdict
from docmem.experiments.studies.activation import OPEN
from docmem.experiments.study import Claim, Study, all_hold, columns

DEPTHS = ("1", "2", "3", "4")
"""Hidden layers of g; 1 is the linear g."""
SETTINGS: dict[str, Any] = {
    "key_activation": "relu",
    "negative_key_type": "random",
    "guidance": 1.0,
    "document_key_module_type": "nonlinear",
}
SNAPSHOTS = 50
"""Through training, about as many."""
MEASURES = {
    "active": f"entries with k_doc > {OPEN}",
    "dead": "entries dead\nfor every document",
    "l2": "L2 norm of a selection",
    "distance": "mean distance of\ntwo documents' selections",
    "ratio": "distance / L2 norm",
}


@dataclass(frozen=True)
class Depth:
    """Selections of one depth: each measure at every snapshot, one curve per seed."""

    active: list[list[float]]
    dead: list[list[float]]
    l2: list[list[float]]
    distance: list[list[float]]
    ratio: list[list[float]]
    own: list[float]
    """Own cross entropy in the last epoch, nats per token."""


@dataclass(frozen=True)
class Results:
    """By number of layers."""

    epochs: list[int]
    """Of the snapshots."""
    entries: int
    """That the memory has."""
    depths: dict[str, Depth]


class Nonlinear(Study[Results]):
    """Four depths of g, looked at all through training."""

    question = "What does depth in the key generator do to the selections?"
    results = Results
    size = (11, 6.4)
    alt = (
        "Five panels over epochs, a curve with a band for a key generator of 1, 2, 3 and 4 layers: "
        "active entries, entries dead for every document, L2 norm of the selections, their "
        "pairwise distance, and distance over norm."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every depth with every seed; measure the selections of every snapshot."""
        config, depths = pool.config(), {}
        often = max(1, config.num_epochs // SNAPSHOTS)
        for layers in DEPTHS:
            rows = []
            for run in pool.runs(**SETTINGS, key_internal_layers=int(layers), save_freq=often):
                taken, own = run.load_snapshots(), run.load_history()[-1].positive_ce
                rows.append({**through(taken.document), "own": own})
            depths[layers] = Depth(**columns(rows))
        return Results(taken.epochs, config.hook_memory_dim, depths)

    def draw(self, figure: Figure, results: Results) -> None:
        """Every measure through training, one colour per depth."""
        *panels, legend = figure.subplots(2, 3).flatten()
        for axes, (key, label) in zip(panels, MEASURES.items(), strict=True):
            for place, (layers, depth) in enumerate(results.depths.items()):
                name = "1 layer (linear)" if layers == "1" else f"{layers} layers"
                color = shade(place, len(DEPTHS))
                band(axes, results.epochs, getattr(depth, key), color, name)
            axes.set_ylim(0)
            axes.set_xlim(results.epochs[0], results.epochs[-1])
            axes.set(xlabel="epoch", ylabel=label)
        legend.axis("off")
        legend.legend(
            *panels[0].get_legend_handles_labels(), frameon=False, title="key generator",
            alignment="left", loc="center", fontsize=12, title_fontsize=12,
        )  # fmt: skip

    def title(self, results: Results) -> str:
        """Says what the claims say where they hold."""
        more_open, _, more_dead = self.claims(results)
        if all_hold(more_open, more_dead):
            return "A deeper key generator opens fewer entries and leaves more of them dead"
        return "What depth in the key generator does to the selections of relu"

    def caption(self, results: Results) -> str:
        """How to read the bands."""
        return (
            f"Mean over seeds in a band of one standard deviation; of {results.entries} entries; "
            "random negatives."
        )

    def claims(self, results: Results) -> list[Claim]:
        """Linear opens most entries, keeps documents furthest apart, has fewest dead entries."""
        linear, *deeper = results.depths.values()

        def text(key: str) -> str:
            return spreads({name: ends(getattr(d, key)) for name, d in results.depths.items()})

        early = len(results.epochs) // 6
        first = [
            clearly_above(ends(linear.ratio, early), ends(depth.ratio, early)) for depth in deeper
        ]
        further = [clearly_above(ends(linear.ratio), ends(depth.ratio)) for depth in deeper]
        return [
            Claim(
                "A linear g opens more entries than one of 2, 3 or 4 layers",
                f"active of {results.entries} entries, by layers {text('active')}",
                verdict(*(clearly_above(ends(linear.active), ends(d.active)) for d in deeper)),
                published="L0 94 / 83 / 80 / 80",
            ),
            Claim(
                "A linear g keeps documents further apart for their norm",
                f"distance / L2, by layers {text('ratio')}",
                verdict(*further),
                published="distance / L2 0.76 / 0.56 / 0.53 / 0.51",
                why=f"After epoch {results.epochs[early]} it does against each depth; later deeper "
                "ones catch up"
                if all(first) and not all(further)
                else "",
            ),
            Claim(
                "A deeper g leaves more entries dead for every document",
                f"dead of {results.entries} entries, by layers {text('dead')}",
                verdict(*(clearly_above(ends(d.dead), ends(linear.dead)) for d in deeper)),
                published="more dead entries",
            ),
        ]


def through(selections: Float[Tensor, "snapshots n_docs entries"]) -> dict[str, list[float]]:
    """Every measure at every snapshot."""
    is_open = selections > OPEN
    l2 = selections.norm(dim=-1).mean(-1)  # (snapshots,)
    distance = torch.stack([torch.pdist(one).mean() for one in selections])
    return {
        "active": is_open.sum(-1).float().mean(-1).tolist(),
        "dead": (~is_open.any(1)).sum(-1).float().tolist(),
        "l2": l2.tolist(),
        "distance": distance.tolist(),
        "ratio": (distance / l2).tolist(),
    }


def ends(curves: list[list[float]], snapshot: int = -1) -> list[float]:
    """The value of each seed's curve at a snapshot, the last if none is named."""
    return [curve[snapshot] for curve in curves]
