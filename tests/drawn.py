"""What the tests of experiments share: a pool on the toy LM, results through JSON, figures."""

import dataclasses
import functools
import json
from typing import Any

import dacite
from matplotlib.figure import Figure
from toys import CONTEXT, toy_lm

from docmem.experiments import load_study
from docmem.experiments.drawing import MARKS
from docmem.experiments.pool import RunPool
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig


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
        if line.get_marker() in MARKS and line.get_linestyle() == "None"
        for height in line.get_ydata()
    ]


@dataclasses.dataclass(frozen=True)
class ToyPool(RunPool):
    """A fast pool on the toy LM: its runs take tenths of a second."""

    fast: bool = True
    seeds: int = 1

    def config(self, **changes: Any) -> TrainConfig:
        """Settings that the toy LM's context has room for."""
        small = {"hook_memory_dim": 16, **changes, "segment_length": 40, "max_length": CONTEXT}
        return super().config(**small)

    @functools.cached_property
    def lm(self) -> LanguageModel:
        return toy_lm()
