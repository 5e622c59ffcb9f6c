"""The runs that experiments share: each trained once, all resumable.

    pool = RunPool(seeds=5)
    runs = pool.runs(key_activation="relu")      # one per seed

Two experiments that ask for the same settings share the runs, in several processes too. If a
training is stopped, the same command goes on from its last checkpoint.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor

from docmem.documents import Document
from docmem.errors import check_count
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.training.config import PAPER_PROCEDURE, TrainConfig, preset
from docmem.training.run import Run
from docmem.training.setup import configured_documents, configured_lm, default_folder
from docmem.training.train import train

Procedure = Literal["preset", "paper"]
VERSION_0_1: dict[str, Any] = {
    **PAPER_PROCEDURE, "guidance": 1.0, "target_negative_ce": 4.5, "lr": 4e-3,
}  # fmt: skip
"""What made version 0.1's preset `tiny`: the paper's procedure with settings for this LM."""
# Experiments read half as much of each document as the presets do, so that hundreds of runs fit in
# an afternoon; `fast` only shows that all runs.
SMALL: dict[tuple[str, Procedure], dict[str, Any]] = {
    ("tiny", "preset"): {"max_segments": 2},
    ("tiny", "paper"): {**VERSION_0_1, "max_segments": 2, "num_epochs": 60, "save_freq": 10},
    ("smollm2-135m", "preset"): {"max_segments": 2, "dtype": "float32"},
    ("smollm2-135m", "paper"): {
        **VERSION_0_1, "target_negative_ce": 6.0, "lr": 4e-3, "max_segments": 2,
        "num_epochs": 60, "save_freq": 10, "dtype": "float32",
    },
}  # fmt: skip
"""How experiments change a preset, by procedure: its own, or the paper's (AdamW, orthogonal
DocReps, all rows under one negative, the squared term). A real LM is read in float32, so that its
results depend little on what they were measured on."""
FAST = {"max_segments": 1, "num_epochs": 2, "save_freq": 1, "max_labels": 3}
SOURCE = 20
"""Documents that a seed draws its own from: all of the encyclopedia."""
FIRST_TUNING_SEED = 101
"""Settings are chosen on this seed and those after it, which are never reported."""


@dataclass(frozen=True)
class RunPool:
    """Trains and opens the runs of experiments.

    Args:
        preset: `tiny`, `smollm2-135m` or `pythia-1b`: the settings that experiments change.
        procedure: `preset` trains as the preset does, `paper` as the paper does.
        seeds: runs of each setting, with the seeds 1, 2, …; a seed draws the documents, their
            places and the initial weights.
        fast: a size for tests: the numbers mean nothing.
        folder: where the runs are kept.

    Raises:
        DocmemError: if there is no such preset, or no seed.
    """

    preset: str = "tiny"
    procedure: Procedure = "preset"
    seeds: int = 5
    fast: bool = False
    folder: Path = Path("outputs/experiments/runs")

    def __post_init__(self) -> None:
        check_count("seeds", self.seeds)
        self.config()

    def config(self, **changes: Any) -> TrainConfig:
        """The preset at this pool's size, with an experiment's changes.

        With `fast` the number of epochs, segments and documents stays small whatever is changed.
        """
        small = SMALL.get((self.preset, self.procedure), {})
        return preset(self.preset, **{**small, **changes, **(FAST if self.fast else {})})

    @property
    def label(self) -> str:
        """The name of its set of results, such as `tiny` or `tiny-paper`."""
        return self.preset if self.procedure == "preset" else f"{self.preset}-{self.procedure}"

    @functools.cached_property
    def lm(self) -> LanguageModel:
        """The preset's LM, loaded at first use."""
        return configured_lm(self.config())

    def documents(self, seed: int, count: int | None = None) -> list[Document]:
        """Documents that a seed draws, in its order; None: as many as the preset memorises.

        More of them begin with the fewer.
        """
        config = self.config(seed=seed)
        wanted = config.max_labels if count is None or self.fast else count
        source = dataclasses.replace(config, max_labels=max(wanted, SOURCE))
        drawn = configured_documents(source)
        generator = torch.Generator().manual_seed(seed)
        return [drawn[place] for place in torch.randperm(len(drawn), generator=generator)[:wanted]]

    def run(
        self,
        seed: int,
        documents: Sequence[Document] | None = None,
        doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
        /,  # so that every keyword is a setting
        **changes: Any,
    ) -> Run:
        """One run, trained now or opened if it was.

        Without documents it is on those that the seed draws; without DocReps on the seed's.

        Raises:
            KeyboardInterrupt: if Ctrl-C ended the training before its last epoch.
        """
        config = self.config(seed=seed, **changes)
        documents = self.documents(seed) if documents is None else documents
        folder = default_folder(config, self.lm, documents, doc_reps).relative_to("outputs")
        # An experiment may ask for the same run with fewer epochs; it has a folder of its own.
        folder = folder.with_name(f"{folder.name}-{config.num_epochs}-epochs")
        states = self.folder.parent / "states"
        config = dataclasses.replace(config, save_dir=self.folder / folder, states_dir=states)
        waiting = self.folder / folder.with_suffix(".lock")
        waiting.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(waiting):  # another experiment's process may be training this very run
            run = train(config, lm=self.lm, documents=documents, doc_reps=doc_reps)
        if not run.finished:
            raise KeyboardInterrupt
        return run

    def seed_numbers(self, most: int | None = None) -> range:
        """The seeds 1, 2, … of a setting, at most so many where it is expensive."""
        return range(1, min(self.seeds, most or self.seeds) + 1)

    def runs(self, most: int | None = None, /, **changes: Any) -> list[Run]:
        """The same settings with every seed, at most so many."""
        return [self.run(seed, **changes) for seed in self.seed_numbers(most)]

    def cache_hidden_states(self, run: Run) -> HiddenStateCache:
        """The run's documents as its hidden-state cache reads them."""
        return run.cache_hidden_states(self.lm)
