"""What the tests of experiments' figures share: a figure of made-up numbers, and its dots."""

from typing import Any

from matplotlib.figure import Figure

from docmem.experiments import experiment
from docmem.plots.style import new_figure


def drawn(name: str, numbers: dict[str, Any]) -> Figure:
    """An experiment's figure of these numbers."""
    module = experiment(name)
    return module.draw(new_figure(*module.SIZE), numbers, "what was trained")


def marks(axes: Any) -> list[float]:
    """The heights of the dots on an Axes, in the order they were drawn."""
    return [
        height
        for line in axes.lines
        if line.get_marker() == "o" and line.get_linestyle() == "None"
        for height in line.get_ydata()
    ]
