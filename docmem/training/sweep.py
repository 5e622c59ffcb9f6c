"""The same training with several values of some settings: `docmem sweep`.

combinations({"key_activation": ["relu", "tanh"], "seed": ["1", "2"]})     # four of them
sweep(configs, "local:2")
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docmem.training.config import TrainConfig
from docmem.training.executors import perform
from docmem.training.train import train

STATES = Path("outputs/states")
"""Where the trainings of a sweep share their hidden states, unless `states_dir` says otherwise."""


def combinations(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every choice of one value of each, the last name's values changing fastest."""
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


def train_quietly(config: TrainConfig) -> Path:
    """Train, or go on, without a bar and with shared hidden states; returns the run's folder."""
    shared = dataclasses.replace(config, states_dir=config.states_dir or STATES)
    return train(shared, progress=False).path


def sweep(configs: Sequence[TrainConfig], executor: str) -> list[Any]:
    """Train each configuration, as `perform` does; what is finished is not trained again.

    Returns:
        The folder of each run, or the DocmemError that stopped it.

    Raises:
        DocmemError: as `perform`.
    """
    jobs = [(config,) for config in configs]
    return perform(train_quietly, jobs, executor, Path("outputs/logs"))
