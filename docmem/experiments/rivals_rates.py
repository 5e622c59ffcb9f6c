"""The rivals by name, and the rates that are tried for each.

    search(pool, KINDS)                 # own cross entropy of each rate, by rival

The rate that learns best is taken.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from docmem.errors import DocmemError
from docmem.experiments.pool import FIRST_TUNING_SEED, RunPool
from docmem.experiments.rivals import Memory, Rival, UngatedMemory
from docmem.experiments.rivals_lora import LoRA, PerDocumentLoRA
from docmem.experiments.rivals_prefix import Cartridge, InContext, PrefixTuning
from docmem.plots.style import GUIDANCE, INK
from docmem.training.muon import is_matrix

SEARCHED = 1 / 2
"""Of the memory's epochs: each rate is tried for as many, and for at least as many seconds."""


class Kind(NamedTuple):
    """A rival, how it is drawn, what it can do, and the rates that are tried for it."""

    rival: type[Rival]
    color: str
    abilities: tuple[bool, bool, bool]
    """As in ABILITIES."""
    adamw: tuple[float, ...] = ()
    muon: tuple[float, ...] = ()


ABILITIES = ("tell whose", "forget or\nadd one", "and leave\nthe others")
"""Whether it tells whose a text is; forgets or adds one document; and leaves the others untouched.

By construction. A state per document does all: a text is read after each, and a state is thrown
away or made alone. DocReps share their weights, which `forget` and `add` train while the others are
held, not untouched. Of a single state no part is one document's: all have to be learned again."""
EACH, SHARED, SINGLE = (True, True, True), (True, True, False), (False, False, False)
PREFIX_RATES = (0.01, 0.03, 0.1, 0.3, 0.8, 2.0), (1.0, 3.0, 10.0)
KINDS = {
    "document memory": Kind(Memory, GUIDANCE, SHARED, (2e-3, 4e-3, 8e-3), (0.02, 0.05, 0.08, 0.12)),
    "without keys": Kind(
        UngatedMemory, "#2299BB", SINGLE, (2e-3, 4e-3, 8e-3), (0.01, 0.02, 0.05, 0.08)
    ),
    "one LoRA": Kind(LoRA, "#882255", SINGLE, (2.5e-3, 5e-3, 1e-2, 2e-2), (5e-3, 1e-2, 2e-2, 4e-2)),
    "LoRA per document": Kind(
        PerDocumentLoRA, "#CC6677", EACH, (1e-2, 2e-2, 4e-2, 8e-2), (1e-2, 2e-2)
    ),
    "prefix tuning": Kind(PrefixTuning, "#999933", EACH, *PREFIX_RATES),
    "CARTRIDGE": Kind(Cartridge, "#AA4499", EACH, *PREFIX_RATES),
    "in the context": Kind(InContext, INK, EACH),
}
"""By name. The document memory is tried with its procedure's own optimizer alone."""


@dataclass(frozen=True)
class Tried:
    """A rate on the tuning seed."""

    optimizer: str
    lr: float
    own: float | None = None
    """Own cross entropy, nats per token; None: it diverged."""

    @property
    def settings(self) -> dict[str, Any]:
        """What it changes in a TrainConfig."""
        name = "muon_lr" if self.optimizer == "muon" else "lr"
        return {"optimizer": self.optimizer, name: self.lr}


def search(pool: RunPool, kinds: Mapping[str, Kind]) -> dict[str, list[Tried]]:
    """Try every rate of these kinds on the tuning seed, for half the memory's training."""
    seed = FIRST_TUNING_SEED
    documents, config = pool.documents(seed), pool.config(seed=seed)
    memory, epochs = Memory(pool.lm, documents, config), math.ceil(SEARCHED * config.num_epochs)
    memory.train_for(epochs)

    def results_of(kind: Kind) -> Iterator[Tried]:
        for optimizer in ("adamw", "muon"):
            if kind.rival is Memory and optimizer != config.optimizer:
                continue
            for rate in getattr(kind, optimizer):
                tried = Tried(optimizer, rate)
                rival = kind.rival(pool.lm, documents, replace(config, **tried.settings))
                if optimizer == "muon" and not any(map(is_matrix, rival.trained)):
                    continue  # there is nothing for it to move
                try:
                    rival.train_for(epochs, memory.seconds[-1])
                    yield replace(tried, own=rival.own_cross_entropy())
                except DocmemError:
                    yield tried

    return {name: list(results_of(kind)) for name, kind in kinds.items() if kind.adamw}
