"""What a user could take instead of a document memory, each of the same number of parameters.

    memory, lora = Memory(lm, documents, config), LoRA(lm, documents, config)
    train_in_turns(memory, [lora], epochs=20)

An address is how a rival is told which document is meant: a DocRep, an adapter, a KV cache. One
that has a single state for all documents has a single address. Here are the memories; LoRAs are in
`rivals_lora`, what stands before the text in `rivals_prefix`.
"""

import dataclasses
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from docmem.core.hook import attach
from docmem.documents import Document
from docmem.lm.cross_entropy import document_means
from docmem.lm.generation import greedy
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.setup import new_memory
from docmem.training.step import descend
from docmem.training.trainer import Trainer, new_optimizer


class Rival(ABC):
    """Something that learns documents with the steps of `docmem.train`, one per batch.

    Args:
        lm: the LM; not changed.
        documents: what is learned.
        config: the settings, optimizer, rates and seed included.
    """

    from_states: ClassVar[bool] = False
    """Whether it is trained from cached hidden states; the time to read them is its own."""
    addresses = 1

    def __init__(
        self, lm: LanguageModel, documents: Sequence[Document], config: TrainConfig
    ) -> None:
        self.lm, self.documents, self.config = lm, documents, config
        started = time.perf_counter()
        self.cache = cache_hidden_states(
            lm, documents, config, None if self.from_states else lambda _: ()
        )
        self.setup = time.perf_counter() - started
        """Seconds until the first step can begin."""
        self.stored = self._build()
        """What has to be stored; its parameters are trained."""
        self.trained = [one for one in self.stored.values() if isinstance(one, nn.Parameter)]
        self.seconds: list[float] = []
        """Time spent until the end of each epoch, the setup included."""
        self.losses: list[float] = []
        """Mean own cross entropy of each epoch's steps, nats per token."""

    @abstractmethod
    def _build(self) -> dict[str, Tensor]:
        """Make what is trained; returns what has to be stored, by name."""

    @abstractmethod
    def read(self, cache: HiddenStateCache, index: int, address: int) -> Float[Tensor, ""]:
        """Cross entropy of a batch of a cache under an address, nats per token."""

    @abstractmethod
    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Greedy continuations (rows, new) under an address."""

    @functools.cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The settings' optimizer, of all that is trained."""
        # Beside its matrices Muon has AdamW for the rest, which wants at least one: it stays as is.
        trained: Any = nn.ParameterList([*self.trained, nn.Parameter(torch.zeros(()))])
        return new_optimizer(self.config, trained)

    def read_own(self, index: int) -> Float[Tensor, ""]:
        """Cross entropy of a batch under its own document's address, nats per token."""
        address = min(self.cache.doc_ids[index], self.addresses - 1)
        return self.read(self.cache, index, address)

    def learn(self) -> float:
        """Read every batch once, in order; returns the mean own cross entropy of the steps."""
        own = []
        for index in range(len(self.cache.batches)):
            ce = self.read_own(index)
            descend([ce], self.optimizer, self.config.grad_clip_coeff)
            own.append(ce.item())
        return sum(own) / len(own)

    def epoch(self) -> None:
        """One more epoch, timed."""
        spent = self.seconds[-1] if self.seconds else self.setup
        self.seconds.append(spent + seconds_of(lambda: self.losses.append(self.learn())))

    def train_for(self, epochs: int, seconds: float = 0) -> None:
        """Train until it has had so many epochs and so much time."""
        while len(self.seconds) < epochs or self.seconds[-1] < seconds:
            self.epoch()

    def own_cross_entropy(self) -> float:
        """Mean over documents under their own addresses, nats per token."""
        count = len(self.documents)
        return document_means(self.cache, count, lambda i: self.read_own(i)[None]).mean().item()

    def memory_size(self) -> int:
        """The number of parameters that a document memory of these settings has."""
        memory = new_memory(self.config, self.lm, self.documents)
        return sum(parameter.numel() for parameter in memory.parameters())

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.trained)

    @property
    def bytes(self) -> int:
        """Size on disk, as safetensors."""
        stored = {name: tensor.detach().contiguous() for name, tensor in self.stored.items()}
        return len(safetensors.torch.save(stored))


class _OpenKeys(nn.Module):
    """A key generator that opens every entry, whatever the DocRep."""

    def forward(self, doc_rep: Tensor) -> Tensor:
        return doc_rep.new_ones(*doc_rep.shape[:-1], 1)  # broadcast over the entries


class UngatedMemory(Rival):
    """A memory without document keys: every entry open for every document, no guidance."""

    from_states = True

    def _build(self) -> dict[str, Tensor]:
        config = dataclasses.replace(self.config, key_activation="linear")
        self.memory = new_memory(config, self.lm, self.documents).to(self.cache.device)
        self.memory.document_key = _OpenKeys()
        return self.memory.state_dict(keep_vars=True)

    def read(self, cache: HiddenStateCache, index: int, address: int) -> Float[Tensor, ""]:
        """Under the DocRep of that index."""
        return cache.cross_entropies(index, self.memory, self.memory.doc_reps[[address]])[0]

    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Greedy continuations (rows, new) under a DocRep."""
        hooking = attach(self.lm.model, self.memory, self.cache.layer)
        with hooking as hooked, hooked.document(address):
            return greedy(hooked.model, ids, new)


class Memory(UngatedMemory):
    """The document memory, trained by docmem's own trainer. Its addresses are its DocReps."""

    def _build(self) -> dict[str, Tensor]:
        self.addresses = len(self.documents)
        self.memory = new_memory(self.config, self.lm, self.documents).to(self.cache.device)
        self.trainer = Trainer(self.config, self.cache, self.memory)
        return self.memory.state_dict(keep_vars=True)

    def learn(self) -> float:
        """An epoch of the trainer."""
        return self.trainer.epoch().positive_ce


def train_in_turns(first: Rival, others: Sequence[Rival], epochs: int) -> None:
    """Train the first for some epochs, and the others for at least as many, and as many seconds.

    They take turns, an epoch at a time, so that other work on the machine slows them alike.
    """
    for done in range(1, 1 + epochs):
        first.epoch()
        for other in others:
            other.train_for(done, first.seconds[-1])


def seconds_of(action: Callable[[], object]) -> float:
    """How long a call takes, in seconds, the GPU's work included."""
    wait: Callable[[], object] = torch.cuda.synchronize if torch.cuda.is_available() else int
    wait()
    started = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - started
