"""The laboratory: every experiment's runs, each trained once, all resumable.

    lab = RunPool(seeds=5)
    runs = pool.runs(key_activation="relu")      # one a seed

Two experiments that ask for the same settings share the runs. Whatever stops the laboratory, the
same command goes on from the last checkpoint.
"""

import dataclasses
import functools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from docmem.documents import Document, load_documents
from docmem.errors import check_count
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel, load_lm
from docmem.training.config import TrainConfig, preset
from docmem.training.run import Run, to_dict
from docmem.training.setup import default_folder
from docmem.training.train import train

# On the embedded LM experiments read half as much of each document as the preset does, so that
# dozens of runs fit in an hour; `fast` only shows that everything runs.
SMALL = {"max_segments": 2, "num_epochs": 60, "save_freq": 10}
FAST = {"max_segments": 1, "num_epochs": 2, "save_freq": 1, "max_labels": 3}


@dataclass(frozen=True)
class RunPool:
    """Where experiments are made.

    Args:
        preset: `tiny` or `pythia-1b`: the settings that experiments change.
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
        """The preset at this laboratory's size, with an experiment's changes.

        With `fast` the number of epochs, segments and documents stays small whatever is changed.
        """
        small = SMALL if self.preset == "tiny" else {}
        return preset(self.preset, **{**small, **changes, **(FAST if self.fast else {})})

    @functools.cached_property
    def lm(self) -> LanguageModel:
        """The preset's LM, loaded at first use."""
        config = self.config()
        return load_lm(
            config.lm,
            dtype=config.dtype,
            num_gpus=config.num_gpus,
            lm_cache_dir=config.lm_cache_dir,
        )

    def documents(self, count: int | None = None) -> list[Document]:
        """The first documents of the preset's source; None: as many as it memorises."""
        config = self.config()
        seed = config.seed if config.source.startswith("wikitext-") else None
        wanted = config.max_labels if count is None or self.fast else count
        return load_documents(config.source, wanted, seed=seed, cache_dir=config.data_cache_dir)

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
            KeyboardInterrupt: if Ctrl-C ended the training: half of one is no result.
        """
        config = self.config(seed=seed, **changes)
        documents = self.documents() if documents is None else documents
        folder = default_folder(config, self.lm, documents, doc_reps).relative_to("outputs")
        config = dataclasses.replace(config, save_dir=self.folder / folder)
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


class Spread(NamedTuple):
    """A number measured with several seeds."""

    mean: float
    sd: float
    """Sample standard deviation over seeds; not a number for a single one."""
    n: int
    """Seeds."""

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.mean:.2f} (one seed)"
        return f"{self.mean:.2f} ± {self.sd:.2f} (n = {self.n})"


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation of one number a seed."""
    numbers = [float(value) for value in values]
    sd = statistics.stdev(numbers) if len(numbers) > 1 else float("nan")
    return Spread(statistics.fmean(numbers), sd, len(numbers))


class Claim(NamedTuple):
    """One row of the table of claims."""

    claim: str
    """What is claimed, in one sentence."""
    published: str
    """What the paper reports; `left open` where it reports nothing."""
    ours: str
    """What was measured, with its spread over seeds."""
    verdict: str
    """holds, partly, or not."""
    why: str = ""
    """Where we disagree: why, as far as it was tested."""
    exploratory: bool = False
    """Whether its rule, or its number of seeds, was settled after results had been seen."""


SEEDS_ADDED = True
"""Why a claim is exploratory: three seeds of it had been seen when all of them were asked for."""


def verdict(*held: bool) -> str:
    """Holds if all parts of a claim do, not if none does, else partly."""
    return "holds" if all(held) else "partly" if any(held) else "not"


def all_hold(*claims: Claim) -> bool:
    """Whether each of some claims holds, for a title that says so."""
    return all(claim.verdict == "holds" for claim in claims)


def settings(pool: RunPool) -> dict[str, Any]:
    """What an experiment's numbers depend on besides its own changes, for its results."""
    found = {"preset": pool.preset, "seeds": pool.seeds, "fast": pool.fast}
    return {**found, "config": to_dict(pool.config())}
