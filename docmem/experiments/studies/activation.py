"""Selection by activation: which entries a document opens under sigmoid, relu, tanh and swiglu.

The paper shows (its selection heat maps) sigmoid with every entry open, relu sparse, tanh signed.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from docmem.evaluation.recall import recognition
from docmem.experiments.drawing import dots
from docmem.experiments.pool import Claim, RunPool, all_hold, spread, verdict
from docmem.plots.style import SIGNED, document_color, headline, styled

QUESTION = "Which entries does a document open, under which activation?"
ACTIVATIONS = ("sigmoid", "relu", "tanh", "swiglu")
OPEN = 0.01
"""An entry counts as active where |k_doc| is above this."""


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each activation and seed: active entries, L2 norm, distance of selections, losses.

    `selection` is that of the first seed, (n_docs, entries).
    """
    results: dict[str, Any] = {}
    for name in ACTIVATIONS:
        seeds = []
        for run in pool.runs(key_activation=name):
            memory = run.load_memory()
            with torch.no_grad():
                selection = memory.select(memory.doc_reps)  # (n_docs, entries)
            known = recognition(pool.cache_hidden_states(run), memory)
            seeds.append(
                {
                    "active": share_open(selection),
                    "active_untrained": share_open(run.load_snapshots().document[0]),
                    "negative": (selection < -OPEN).float().mean().item(),
                    "l2": selection.norm(dim=1).mean().item(),
                    "distance": torch.pdist(selection).mean().item(),
                    "own": known.own,
                    "other": known.other,
                    "recognised": known.recognised,
                }
            )
            if run.config.seed == 1:
                first = selection.tolist()
        results[name] = {"seeds": seeds, "selection": first}
    return results


def share_open(selection: Float[Tensor, "n_docs entries"]) -> float:
    """Share of the entries that a document opens, mean over documents."""
    return (selection.abs() > OPEN).float().mean().item()


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """The selections of the first seed as heat maps over the numbers of every seed."""
    grid = figure.add_gridspec(2, 4, height_ratios=(1, 1.05))
    largest = max(float(np.abs(results[name]["selection"]).max()) for name in ACTIVATIONS)
    for column, name in enumerate(ACTIVATIONS):
        axes = figure.add_subplot(grid[0, column])
        selection = np.array(results[name]["selection"])
        image = axes.imshow(
            selection, aspect="auto", cmap=SIGNED, vmin=-largest, vmax=largest,
            interpolation="nearest",
        )  # fmt: skip
        axes.set_title(name)
        axes.set_xlabel("memory entry")
        axes.set_yticks(
            range(len(selection)), [str(n + 1) for n in range(len(selection))], fontsize=7
        )
        for index, tick in enumerate(axes.get_yticklabels()):
            tick.set_color(document_color(index))
            tick.set_fontweight("bold")
        if column == 0:
            axes.set_ylabel("document")
    figure.colorbar(image, ax=figure.axes, label="k_doc", aspect=12, pad=0.01)
    for column, (key, label) in enumerate(
        (
            ("active", f"share of entries\nwith |k_doc| > {OPEN}"),
            ("l2", "L2 norm of a selection"),
            ("distance", "mean distance of\ntwo documents' selections"),
            ("own", "cross entropy, own DocRep\n(nats per token)"),
        )
    ):
        axes = figure.add_subplot(grid[1, column])
        dots(axes, {n: [seed[key] for seed in results[n]["seeds"]] for n in ACTIVATIONS})
        axes.set_ylim(0)
        axes.set_ylabel(label)
    sigmoid, _, tanh = claims(results)
    title = "Which entries a document opens, by activation"
    if all_hold(sigmoid, tanh):
        title = "Sigmoid opens every entry, relu fewer, tanh with both signs"
    headline(figure, title, note)
    return figure


SIZE = (13, 6.4)
ALT = (
    "Four heat maps of ten documents by memory entries, one an activation: all red for sigmoid, "
    "sparse red for relu, red and blue for tanh and swiglu; below, share of active entries, norm, "
    "distance and cross entropy, one dot per seed."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """Sigmoid opens all entries; relu is sparse; tanh is signed."""

    def of(name: str, key: str) -> Any:
        return spread(seed[key] for seed in results[name]["seeds"])

    sigmoid, relu = of("sigmoid", "active"), of("relu", "active")
    negative = of("tanh", "negative")
    return [
        Claim(
            "Sigmoid opens every entry for every document",
            "all on",
            f"share of active entries {sigmoid}",
            verdict(sigmoid.mean > 0.95),
        ),
        Claim(
            "Relu opens a sparse set of entries",
            "sparse",
            f"share of active entries {relu}",
            verdict(relu.mean < 0.6),
            f"Of a linear g about half are positive before anything is trained: "
            f"{of('relu', 'active_untrained')}"
            if relu.mean >= 0.6
            else "",
        ),
        Claim(
            "Tanh selects with both signs",
            "signed",
            f"share of negative entries {negative}",
            verdict(0.25 < negative.mean < 0.75),
        ),
    ]
