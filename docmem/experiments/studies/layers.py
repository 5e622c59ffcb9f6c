"""Layer sweep: the memory after each block of the LM, at equal epochs and at equal seconds.

The paper puts it after the last block. After an earlier one, later blocks process what the memory
adds, but every step has to go forward and back through them. Layers are counted from 0; of an LM
with many, a few are taken, as evenly as can be.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from docmem.core.blocks import find_blocks, resolve_layer
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import band, dots, shade
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import OWN_MARGIN, more, spreads, values_of
from docmem.experiments.study import DRAWN, USUAL, Study
from docmem.plots.style import FAINT, whole_epochs

MOST_LAYERS = 4


@dataclass(frozen=True)
class Layer:
    """The memory after one block; one entry per seed."""

    curve: list[list[float]]
    """Own cross entropy in training, (seeds, epochs), nats per token."""
    epoch_s: list[float]
    """Seconds of the fastest epoch: the one that other work on the machine disturbed least."""

    def epochs_within(self, seconds: float) -> int:
        """Whole epochs that fit into a budget; at least the first, at most all."""
        # A hair more, so that the budget of a run holds that run.
        fitting = int(seconds / min(self.epoch_s) + 1e-6)
        return min(max(fitting, 1), len(self.curve[0]))


@dataclass(frozen=True)
class Results:
    """By layer."""

    layers: dict[str, Layer]
    budget_s: float
    """Seconds that the whole training takes after the last block, at its fastest."""

    def at_equal_seconds(self) -> dict[str, list[float]]:
        """Own cross entropy when the budget is spent, by layer, one per seed."""
        return {
            name: [curve[one.epochs_within(self.budget_s) - 1] for curve in one.curve]
            for name, one in self.layers.items()
        }

    def at_equal_epochs(self) -> dict[str, list[float]]:
        """Own cross entropy after all epochs, by layer, one per seed."""
        return {name: [curve[-1] for curve in one.curve] for name, one in self.layers.items()}


class Layers(Study[Results]):
    """After which block should the memory stand?"""

    results = Results
    size = (12, 7)
    alt = (
        "Own cross entropy of a memory at each layer, against epochs and against seconds; below, "
        "what it is after as many epochs, after as many seconds, and seconds per epoch, one dot "
        "per seed."
    )
    shown = "The memory after each block: what it learns per epoch and per second"
    finding = "For the same seconds, a memory after the last block learns most"
    needs = ("holds",)
    caption = (
        "Mean in a band of one standard deviation; dashed: the seconds in which the last layer's "
        "memory is trained."
    )
    trains = f"{USUAL}, {{seeds}} seeds. {DRAWN}"

    def measure(self, pool: RunPool) -> Results:
        """Train a memory at each layer; keep what it learned in every epoch, and the time."""
        config, count = pool.config(), len(find_blocks(pool.lm.model))
        usual = resolve_layer(config.hook_memory_layer, count)
        layers = {}
        for index in np.linspace(0, count - 1, min(count, MOST_LAYERS)).astype(int).tolist():
            # The preset's own way to name its layer, so that other experiments share the runs.
            change: dict[str, Any] = {} if index == usual else {"hook_memory_layer": index}
            histories = [run.load_history() for run in pool.runs(**change)]
            layers[str(index)] = Layer(
                [[epoch.positive_ce for epoch in history] for history in histories],
                [min(epoch.seconds for epoch in history) for history in histories],
            )
        return Results(layers, config.num_epochs * min(layers[str(count - 1)].epoch_s))

    def _draw(self, figure: Figure, results: Results) -> None:
        grid = figure.add_gridspec(2, 6)
        left, right = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])
        for place, (name, layer) in enumerate(results.layers.items()):
            color = shade(place, len(results.layers))
            epochs = [float(epoch) for epoch in range(1, len(layer.curve[0]) + 1)]
            seconds = [epoch * min(layer.epoch_s) for epoch in epochs]
            band(left, epochs, layer.curve, color, f"layer {name}")
            band(right, seconds, layer.curve, color, "")
        right.axvline(results.budget_s, color=FAINT, lw=1.2, ls=(0, (4, 3)))
        for axes, label in ((left, "epoch"), (right, "seconds (epochs × the fastest epoch)")):
            axes.set(xlabel=label, ylabel="own cross entropy\nin training (nats per token)")
            axes.set(xlim=(0, None), ylim=(0, None))
        whole_epochs(left)
        left.legend(frameon=False)
        panels = {
            "own after as many\nepochs (nats per token)": results.at_equal_epochs(),
            "own after as many\nseconds (nats per token)": results.at_equal_seconds(),
            "seconds per epoch\n(fastest)": values_of(results.layers, "epoch_s"),
        }
        for column, (label, groups) in enumerate(panels.items()):
            axes = figure.add_subplot(grid[1, 2 * column : 2 * column + 2])
            dots(axes, groups, ylim=(0, None), xlabel="layer of the memory", ylabel=label)

    def _claims(self, results: Results) -> Claims:
        times = ", ".join(f"{n}: {min(one.epoch_s):.2f}" for n, one in results.layers.items())
        part = "own cross entropy, best earlier layer − last, nats"
        for unit, own, end in (
            (
                "seconds",
                results.at_equal_seconds(),
                f"; seconds per epoch, of the fastest seed {times}",
            ),
            ("epochs", results.at_equal_epochs(), ""),
        ):
            *earlier, last = own.values()
            best = [min(each) for each in zip(*earlier, strict=True)]
            yield Claim(
                f"After as many {unit}, the memory after the last block has learned most",
                [more(part, best, last, OWN_MARGIN)],
                published="last block only",
                exploratory=True,
                note=f"own cross entropy, by layer {spreads(own)}{end}",
            )
