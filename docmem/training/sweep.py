"""The same training with several values of some settings: `docmem sweep`.

combinations({"key_activation": ["relu", "tanh"], "seed": ["1", "2"]})     # four of them
sweep(configs, "local:2")
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError, checked
from docmem.training.config import TrainConfig
from docmem.training.description import RESUME_IGNORES
from docmem.training.executors import perform
from docmem.training.overview import varied
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


def failures(configs: Sequence[TrainConfig], results: Sequence[Any]) -> list[str]:
    """What stopped which training of a sweep, each named by the settings that differ."""
    names = varied([vars(config) for config in configs]) if configs else []
    told = [", ".join(f"{name}={getattr(one, name)}" for name in names) for one in configs]
    return [
        f"{settings}: {result}" if settings else str(result)
        for settings, result in zip(told, results, strict=True)
        if isinstance(result, DocmemError)
    ]


@checked
def sweep(configs: Sequence[TrainConfig], executor: str) -> list[Any]:
    """Train each configuration, as `perform` does; what is finished is not trained again.

    Returns:
        The folder of each run, or the DocmemError that stopped it.

    Raises:
        DocmemError: as `perform`; or if several are to be trained in the same folder, or the memory
            of one cannot be made.
    """
    for config in configs:  # before any is trained: activations are looked up here
        DocumentMemory(config.memory_config(d_model=1, n_docs=1))
    folders = Counter(config.save_dir for config in configs if config.save_dir is not None)
    for folder, count in folders.items():
        if count > 1:
            raise DocmemError(
                f"save_dir is {str(folder)!r} for {count} trainings; leave it out, and each has a "
                "folder of its own."
            )
    ignored = dict.fromkeys(RESUME_IGNORES)
    runs = [str({**vars(config), **ignored}) for config in configs if config.save_dir is None]
    if len({*runs}) < len(runs):
        raise DocmemError(
            "Some of these trainings are the same run, which num_epochs, a device and the like do "
            "not change. Give one value of them, or train with a save_dir for each."
        )
    jobs = [(config,) for config in configs]
    return perform(train_quietly, jobs, executor, Path("outputs/logs"))
