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
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dot_panels
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import above, below, between, more, spread
from docmem.experiments.study import Study, columns
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
    """What one activation selects; means over documents, one per seed, as MEASURES has them."""

    active: list[float]
    active_untrained: list[float]
    negative: list[float]
    """Share of entries below -OPEN."""
    l2: list[float]
    distance: list[float]
    own: list[float]
    selection: list[list[float]]
    """k_doc of the first seed, (n_docs, entries)."""


@dataclass(frozen=True)
class Results:
    """By activation."""

    activations: dict[str, Selections]


class Activation(Study[Results]):
    """Which entries does a document open, under which activation?"""

    results = Results
    size = (13, 6.4)
    alt = (
        "Four heat maps of ten documents by memory entries, one per activation, red where an entry "
        "is positive, blue where it is negative; below, share of active entries, norm, distance "
        "and cross entropy, one dot per seed."
    )
    caption = "Above, the first seed; each activation on a scale of its own, to ± the number above."
    shown = "Which entries a document opens, by activation"
    finding = "Sigmoid opens every entry and relu some of them; tanh gives each a sign"
    needs = ("as it must be", None, None, "holds")

    def measure(self, pool: RunPool) -> Results:
        """Train every activation with every seed; measure its selections and its recall."""
        found = {}
        for name in ACTIVATIONS:
            rows = [one_run(pool, run) for run in pool.runs(key_activation=name)]
            first = selection_of(pool.run(1, key_activation=name)).tolist()
            found[name] = Selections(**columns(rows), selection=first)
        return Results(found)

    def _draw(self, figure: Figure, results: Results) -> None:
        above, below = figure.subplots(2, 4, height_ratios=(1, 1.05))
        for axes, (name, one) in zip(above, results.activations.items(), strict=True):
            largest = np.abs(one.selection).max()
            image = axes.imshow(
                np.divide(one.selection, largest or 1), aspect="auto", cmap=SIGNED, vmin=-1, vmax=1,
                interpolation="nearest",
            )  # fmt: skip
            axes.set(title=f"{name}, ±{largest:.2f}", xlabel="memory entry")
            places = range(len(one.selection))
            axes.set_yticks(places, [str(index + 1) for index in places], fontsize=7)
        above[0].set_ylabel("document")
        figure.colorbar(image, ax=above, label="k_doc, share of the scale", aspect=12, pad=0.01)
        dot_panels(below, MEASURES, results.activations)

    def _claims(self, results: Results) -> Claims:
        found = results.activations
        yield Claim(
            "Sigmoid opens every entry for every document",
            [above("share of active entries", found["sigmoid"].active, 1 - OPEN)],
            published="all on",
            papers=True,
            check=True,
        )
        relu = found["relu"]
        yield Claim(
            "Relu opens a sparse set of entries: fewer than half",
            [below("share of active entries", relu.active, 0.5)],
            published="sparse",
            papers=True,
            note=f"before anything is trained, share {spread(relu.active_untrained)}; the limit of "
            "a half is ours",
            own=relu.own,
            exploratory=True,
        )
        yield Claim(
            "Training makes relu's selection sparser than it started",
            [more("untrained minus trained share", relu.active_untrained, relu.active, 0.05)],
            published="not compared",
            own=relu.own,
        )
        tanh = found["tanh"]
        yield Claim(
            "Tanh selects with both signs",
            [between("share of negative entries", tanh.negative, 0.25, 0.75)],
            published="signed",
            papers=True,
            note="it does so before training too: tanh is odd, and biases start at 0",
            own=tanh.own,
        )


@torch.no_grad()
def selection_of(run: Run) -> Float[Tensor, "n_docs entries"]:
    """The document selections of a run's memory."""
    memory = run.load_memory()
    return memory.select(memory.doc_reps)


def one_run(pool: RunPool, run: Run) -> dict[str, float]:
    """The numbers of one seed."""
    selection, untrained = selection_of(run), run.load_snapshots().document[0]
    return {
        "active": (selection.abs() > OPEN).float().mean().item(),
        "active_untrained": (untrained.abs() > OPEN).float().mean().item(),
        "negative": (selection < -OPEN).float().mean().item(),
        "l2": selection.norm(dim=1).mean().item(),
        "distance": torch.pdist(selection).mean().item(),
        "own": recognition(pool.cache_hidden_states(run), run.load_memory()).own,
    }
