"""What the tests of experiments share: results through JSON, a figure of them, and its dots."""

import dataclasses
import json
from typing import Any

import dacite
from matplotlib.figure import Figure

from docmem.experiments import load_study


def through_json(name: str, results: Any) -> Any:
    """An experiment's results, written as JSON and read by its schema, as `load_results` does."""
    text = json.dumps(dataclasses.asdict(results), allow_nan=False)
    return dacite.from_dict(load_study(name).results, json.loads(text), dacite.Config(strict=True))


def drawn(name: str, results: Any) -> Figure:
    """An experiment's figure of these results."""
    return load_study(name).figure(results, "what was trained")


def marks(axes: Any) -> list[float]:
    """The heights of the dots on an Axes, in the order they were drawn."""
    return [
        height
        for line in axes.lines
        if line.get_marker() == "o" and line.get_linestyle() == "None"
        for height in line.get_ydata()
    ]
