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
from typing import Any

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

VERSION_0_1: dict[str, Any] = {
    **PAPER_PROCEDURE, "guidance": 1.0, "target_negative_ce": 4.5, "lr": 4e-3,
}  # fmt: skip
"""What made version 0.1's preset `tiny`: the paper's procedure with settings for this LM."""
# On the embedded LM experiments read half as much of each document as the preset does, so that
# dozens of runs fit in an hour, and train as the paper does; `fast` only shows that all runs.
SMALL = {**VERSION_0_1, "max_segments": 2, "num_epochs": 60, "save_freq": 10}
FAST = {"max_segments": 1, "num_epochs": 2, "save_freq": 1, "max_labels": 3}


@dataclass(frozen=True)
class RunPool:
    """Trains and opens the runs of experiments.

    Args:
        preset: `tiny`, `smollm2-135m` or `pythia-1b`: the settings that experiments change.
        seeds: runs of each setting, with the seeds 1, 2, …
        fast: a size for tests: the numbers mean nothing.
        folder: where the runs are kept.

    Raises:
        DocmemError: if there is no such preset, or no seed.
    """

    preset: str = "tiny"
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
        small = SMALL if self.preset == "tiny" else {}
        return preset(self.preset, **{**small, **changes, **(FAST if self.fast else {})})

    @functools.cached_property
    def lm(self) -> LanguageModel:
        """The preset's LM, loaded at first use."""
        return configured_lm(self.config())

    def documents(self, count: int | None = None) -> list[Document]:
        """The first documents of the preset's source; None: as many as it memorises."""
        config = self.config()
        wanted = config.max_labels if count is None or self.fast else count
        return configured_documents(dataclasses.replace(config, max_labels=wanted))

    def run(
        self,
        seed: int,
        documents: Sequence[Document] | None = None,
        doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
        /,  # so that every keyword is a setting
        **changes: Any,
    ) -> Run:
        """One run, trained now or opened if it was.

        Without documents it is on the preset's; without DocReps on the seed's.

        Raises:
            KeyboardInterrupt: if Ctrl-C ended the training before its last epoch.
        """
        config = self.config(seed=seed, **changes)
        documents = self.documents() if documents is None else documents
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

    def runs(self, documents: Sequence[Document] | None = None, **changes: Any) -> list[Run]:
        """The same settings with every seed."""
        return [self.run(seed, documents, **changes) for seed in self.seed_numbers()]

    def cache_hidden_states(self, run: Run) -> HiddenStateCache:
        """The run's documents as its hidden-state cache reads them."""
        return run.cache_hidden_states(self.lm)
