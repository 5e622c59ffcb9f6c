"""Linear against nonlinear g: what layers in the key generator do to the selections.

The paper trains g with 1 to 4 layers (relu, random negatives, α 1, 5 seeds) and reports that the
linear one opens most entries and keeps documents furthest apart for their norm, while deeper
ones leave entries dead for every document.
"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from docmem.experiments.drawing import band, shade
from docmem.experiments.pool import Claim, RunPool, all_hold, spread, verdict
from docmem.experiments.stats import clearly_above
from docmem.experiments.studies.activation import OPEN
from docmem.plots.style import headline, styled

QUESTION = "What does depth in the key generator do to the selections?"
LAYERS = ("1", "2", "3", "4")
"""Hidden layers of g; 1 is the linear g."""
SETTINGS: dict[str, Any] = {
    "key_activation": "relu",
    "negative_key_type": "random",
    "guidance": 1.0,
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


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each depth and seed: every measure at every snapshot, and the own cross entropy."""
    config = pool.config()
    results: dict[str, Any] = {"epochs": [], "entries": config.hook_memory_dim}
    for layers in LAYERS:
        seeds = []
        for run in pool.runs(
            **SETTINGS,
            document_key_module_type="nonlinear",
            key_internal_layers=int(layers),
            save_freq=max(1, config.num_epochs // SNAPSHOTS),
        ):
            taken = run.load_snapshots()
            results["epochs"] = taken.epochs
            seeds.append({**through(taken.document), "own": run.load_history()[-1].positive_ce})
        results[layers] = seeds
    return results


def through(selections: Tensor) -> dict[str, list[float]]:
    """Every measure at every snapshot of the document selections (snapshots, n_docs, entries)."""
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


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """Every measure through training, a colour a depth."""
    panels = figure.subplots(2, 3).flatten()
    for axes, (key, label) in zip(panels, MEASURES.items(), strict=False):
        for place, layers in enumerate(LAYERS):
            color = shade(place, len(LAYERS))
            name = "1 layer (linear)" if layers == "1" else f"{layers} layers"
            curves = [seed[key] for seed in results[layers]]
            band(axes, results["epochs"], curves, color, name)
        axes.set_ylim(0)
        axes.set_xlim(results["epochs"][0], results["epochs"][-1])
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
    panels[-1].axis("off")
    panels[-1].legend(
        *panels[0].get_legend_handles_labels(), frameon=False, title="key generator",
        alignment="left", loc="center", fontsize=12, title_fontsize=12,
    )  # fmt: skip
    more_open, _, more_dead = claims(results)
    title = "What depth in the key generator does to the selections of relu"
    if all_hold(more_open, more_dead):
        title = "A deeper key generator opens fewer entries and leaves more of them dead"
    headline(
        figure,
        title,
        f"Mean over seeds in a band of one standard deviation; of {results['entries']} entries; "
        f"random negatives. {note}",
    )
    return figure


SIZE = (11, 6.4)
ALT = (
    "Five panels over epochs, a curve with a band for a key generator of 1, 2, 3 and 4 layers: "
    "active entries, entries dead for every document, L2 norm of the selections, their pairwise "
    "distance, and distance over norm."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """Linear opens most entries, keeps documents furthest apart, and has fewest dead entries."""

    def last(layers: str, key: str) -> list[float]:
        return [seed[key][-1] for seed in results[layers]]

    def of(key: str) -> str:
        return ", ".join(f"{layers}: {spread(last(layers, key))}" for layers in LAYERS)

    def linear_above(key: str) -> list[bool]:
        return [clearly_above(last("1", key), last(layers, key)) for layers in LAYERS[1:]]

    early = len(results["epochs"]) // 6
    first = [
        clearly_above(
            *([seed["ratio"][early] for seed in results[depth]] for depth in ("1", layers))
        )
        for layers in LAYERS[1:]
    ]
    further = linear_above("ratio")
    why = (
        f"After epoch {results['epochs'][early]} it does against each depth; later deeper ones "
        "catch up"
        if all(first) and not all(further)
        else ""
    )
    more_dead = [clearly_above(last(layers, "dead"), last("1", "dead")) for layers in LAYERS[1:]]
    return [
        Claim(
            "A linear g opens more entries than one of 2, 3 or 4 layers",
            "L0 94 / 83 / 80 / 80",
            f"active of {results['entries']} entries, by layers {of('active')}",
            verdict(*linear_above("active")),
        ),
        Claim(
            "A linear g keeps documents further apart for their norm",
            "distance / L2 0.76 / 0.56 / 0.53 / 0.51",
            f"distance / L2, by layers {of('ratio')}",
            verdict(*further),
            why,
        ),
        Claim(
            "A deeper g leaves more entries dead for every document",
            "more dead entries",
            f"dead of {results['entries']} entries, by layers {of('dead')}",
            verdict(*more_dead),
        ),
    ]
