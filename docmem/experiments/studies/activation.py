"""Selection by activation: which entries a document opens under sigmoid, relu, tanh and swiglu.

The paper shows (its selection heat maps) sigmoid with every entry open, relu sparse, tanh signed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from docmem.evaluation.recall import recognition
from docmem.experiments.drawing import document_ticks, dot_panels
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import spread, verdict
from docmem.experiments.study import Claim, Study, all_hold, columns
from docmem.plots.style import SIGNED
from docmem.training.run import Run

ACTIVATIONS = ("sigmoid", "relu", "tanh", "swiglu")
OPEN = 0.01
"""An entry counts as active where |k_doc| is above this."""
MEASURES = {
    "active": f"share of entries\nwith |k_doc| > {OPEN}",
    "l2": "L2 norm of a selection",
    "distance": "mean distance of\ntwo documents' selections",
    "own": "cross entropy, own DocRep\n(nats per token)",
}


@dataclass(frozen=True)
class Selections:
    """What one activation selects; means over documents, one per seed."""

    active: list[float]
    """Share of active entries."""
    active_untrained: list[float]
    negative: list[float]
    """Share of entries below -OPEN."""
    l2: list[float]
    """L2 norm of a selection."""
    distance: list[float]
    """Between two documents' selections."""
    own: list[float]
    """Cross entropy under the own DocRep, nats per token; `other`: under another document's."""
    other: list[float]
    recognised: list[int]
    """Documents recognised."""
    selection: list[list[float]]
    """k_doc of the first seed, (n_docs, entries)."""


@dataclass(frozen=True)
class Results:
    """By activation."""

    activations: dict[str, Selections]


class Activation(Study[Results]):
    """Four activations, each at the preset's other settings."""

    question = "Which entries does a document open, under which activation?"
    results = Results
    size = (13, 6.4)
    alt = (
        "Four heat maps of ten documents by memory entries, one per activation: all red for "
        "sigmoid, sparse red for relu, red and blue for tanh and swiglu; below, share of active "
        "entries, norm, distance and cross entropy, one dot per seed."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every activation with every seed; measure its selections and its recall."""
        found = {}
        for name in ACTIVATIONS:
            runs = pool.runs(key_activation=name)
            found[name] = Selections(
                **columns(self.one_run(pool, run) for run in runs),
                selection=selection_of(runs[0]).tolist(),
            )
        return Results(found)

    def one_run(self, pool: RunPool, run: Run) -> dict[str, float]:
        """The numbers of one seed."""
        selection = selection_of(run)
        known = recognition(pool.cache_hidden_states(run), run.load_memory())
        return {
            "active": share_open(selection),
            "active_untrained": share_open(run.load_snapshots().document[0]),
            "negative": (selection < -OPEN).float().mean().item(),
            "l2": selection.norm(dim=1).mean().item(),
            "distance": torch.pdist(selection).mean().item(),
            "own": known.own,
            "other": known.other,
            "recognised": known.recognised,
        }

    def draw(self, figure: Figure, results: Results) -> None:
        """The selections of the first seed as heat maps over the numbers of every seed."""
        above, below = figure.subplots(2, 4, height_ratios=(1, 1.05))
        selections = {name: np.array(one.selection) for name, one in results.activations.items()}
        largest = max(np.abs(selection).max() for selection in selections.values())
        for axes, (name, selection) in zip(above, selections.items(), strict=True):
            image = axes.imshow(
                selection, aspect="auto", cmap=SIGNED, vmin=-largest, vmax=largest,
                interpolation="nearest",
            )  # fmt: skip
            axes.set(title=name, xlabel="memory entry")
            document_ticks(axes, len(selection))
        above[0].set_ylabel("document")
        figure.colorbar(image, ax=above, label="k_doc", aspect=12, pad=0.01)
        dot_panels(below, MEASURES, results.activations)

    def title(self, results: Results) -> str:
        """Says what the claims say where they hold."""
        sigmoid, _, tanh = self.claims(results)
        if all_hold(sigmoid, tanh):
            return "Sigmoid opens every entry, relu fewer, tanh with both signs"
        return "Which entries a document opens, by activation"

    def claims(self, results: Results) -> list[Claim]:
        """Sigmoid opens all entries; relu is sparse; tanh is signed."""
        found = results.activations
        sigmoid, relu = spread(found["sigmoid"].active), spread(found["relu"].active)
        negative = spread(found["tanh"].negative)
        return [
            Claim(
                "Sigmoid opens every entry for every document",
                f"share of active entries {sigmoid}",
                verdict(sigmoid.mean > 0.95),
                published="all on",
            ),
            Claim(
                "Relu opens a sparse set of entries",
                f"share of active entries {relu}",
                verdict(relu.mean < 0.6),
                published="sparse",
                why=""
                if relu.mean < 0.6
                else "Of a linear g about half are positive before anything is trained: "
                f"{spread(found['relu'].active_untrained)}",
            ),
            Claim(
                "Tanh selects with both signs",
                f"share of negative entries {negative}",
                verdict(0.25 < negative.mean < 0.75),
                published="signed",
            ),
        ]


@torch.no_grad()
def selection_of(run: Run) -> Float[Tensor, "n_docs entries"]:
    """The document selections of a run's memory."""
    memory = run.load_memory()
    return memory.select(memory.doc_reps)


def share_open(selection: Float[Tensor, "n_docs entries"]) -> float:
    """Share of the entries that a document opens, mean over documents."""
    return (selection.abs() > OPEN).float().mean().item()
