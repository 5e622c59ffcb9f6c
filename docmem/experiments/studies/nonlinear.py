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
from docmem.experiments.study import Claim, Claims, Study, columns

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
    """Selections of one depth: MEASURES at every snapshot, one curve per seed."""

    active: list[list[float]]
    dead: list[list[float]]
    l2: list[list[float]]
    distance: list[list[float]]
    ratio: list[list[float]]


@dataclass(frozen=True)
class Results:
    """By number of layers."""

    epochs: list[int]
    """Of the snapshots."""
    entries: int
    """That the memory has."""
    depths: dict[str, Depth]

    def at(self, key: str, snapshot: int = -1) -> dict[str, list[float]]:
        """One measure at a snapshot, the last if none is named, one per seed."""
        return {
            name: [curve[snapshot] for curve in getattr(depth, key)]
            for name, depth in self.depths.items()
        }


class Nonlinear(Study[Results]):
    """What does depth in the key generator do to the selections?"""

    results = Results
    size = (11, 6.4)
    alt = (
        "Five panels over epochs, a curve with a band for a key generator of 1, 2, 3 and 4 layers: "
        "active entries, entries dead for every document, L2 norm of the selections, their "
        "pairwise distance, and distance over norm."
    )
    shown = "What depth in the key generator does to the selections of relu"
    finding = "A deeper key generator opens fewer entries and leaves more of them dead"
    needs = ("holds", None, "holds")
    caption = (
        "Mean over seeds in a band of one standard deviation; of {results.entries} entries; "
        "random negatives."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every depth with every seed; measure the selections of every snapshot."""
        config, depths = pool.config(), {}
        often = max(1, config.num_epochs // SNAPSHOTS)
        for layers in DEPTHS:
            runs = pool.runs(**SETTINGS, key_internal_layers=int(layers), save_freq=often)
            depths[layers] = Depth(**columns(through(r.load_snapshots().document) for r in runs))
        epochs = [round(epoch) for epoch in runs[0].load_snapshots().epochs]
        return Results(epochs, config.hook_memory_dim, depths)

    def _draw(self, figure: Figure, results: Results) -> None:
        *panels, legend = figure.subplots(2, 3).flatten()
        for axes, (key, label) in zip(panels, MEASURES.items(), strict=True):
            for place, (layers, depth) in enumerate(results.depths.items()):
                name = "1 layer (linear)" if layers == "1" else f"{layers} layers"
                color = shade(place, len(DEPTHS))
                band(axes, results.epochs, getattr(depth, key), color, name)
            axes.set(xlabel="epoch", ylabel=label, ylim=(0, None))
            axes.set_xlim(results.epochs[0], results.epochs[-1])
        legend.axis("off")
        legend.legend(
            *panels[0].get_legend_handles_labels(), frameon=False, title="key generator",
            alignment="left", loc="center", fontsize=12, title_fontsize=12,
        )  # fmt: skip

    def _judge(self, results: Results) -> Claims:
        def linear_above(groups: dict[str, list[float]]) -> list[bool]:
            linear, *deeper = groups.values()
            return [clearly_above(linear, other) for other in deeper]

        active, ratio, dead = (results.at(key) for key in ("active", "ratio", "dead"))
        yield Claim(
            "A linear g opens more entries than one of 2, 3 or 4 layers",
            f"active of {results.entries} entries, by layers {spreads(active)}",
            verdict(*linear_above(active)),
            published="L0 94 / 83 / 80 / 80",
        )
        early = len(results.epochs) // 6
        why = f"After epoch {results.epochs[early]} it does against each depth; later deeper ones "
        yield Claim(
            "A linear g keeps documents further apart for their norm",
            f"distance / L2, by layers {spreads(ratio)}",
            verdict(*linear_above(ratio)),
            published="distance / L2 0.76 / 0.56 / 0.53 / 0.51",
            why=f"{why}catch up" if all(linear_above(results.at("ratio", early))) else "",
        )
        linear, *deeper = dead.values()
        yield Claim(
            "A deeper g leaves more entries dead for every document",
            f"dead of {results.entries} entries, by layers {spreads(dead)}",
            verdict(*(clearly_above(other, linear) for other in deeper)),
            published="more dead entries",
        )


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
