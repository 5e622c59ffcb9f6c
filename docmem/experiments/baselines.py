"""What a user would pick instead, each with the same number of trainable parameters.

    train_for_equal_time([DocumentMemoryBaseline(...), UngatedMemory(...), LoRA(...), PerDocumentLoRA(...)], epochs=60)

An address is what a baseline can be told about which document is meant: a DocRep, an adapter, or,
for those that know one state only, nothing.
"""

import copy
import dataclasses
import importlib.util
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from docmem.core.hook import attach
from docmem.core.loss import guidance_loss, negative_doc_rep
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.lm.cross_entropy import cross_entropies_at, document_means
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import greedy
from docmem.lm.head import cross_entropy
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.setup import new_memory


class Baseline(ABC):
    """Something that learns documents, batch by batch, with AdamW as in `docmem.train`.

    Args:
        lm: the LM; not changed.
        documents: what is learned.
        config: the settings, seed included.
        lr: AdamW's learning rate; None: that of `config`.
    """

    def __init__(
        self,
        lm: LanguageModel,
        documents: Sequence[Document],
        config: TrainConfig,
        lr: float | None = None,
    ) -> None:
        self.lm, self.config, self.n_docs = lm, config, len(documents)
        self.cache = cache_hidden_states(lm, documents, config)
        self.trained = self.build(documents)
        self.optimizer = torch.optim.AdamW(self.trained, lr=lr or config.lr)
        self.seconds: list[float] = []
        """Time spent after each epoch."""
        self.losses: list[float] = []
        """Mean own cross entropy of each epoch's steps, nats per token."""

    @abstractmethod
    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """Make what is trained; returns its parameters."""

    @abstractmethod
    def losses_of(self, index: int) -> tuple[Tensor, Tensor]:
        """What a step on a batch minimises, and the batch's own cross entropy."""

    @abstractmethod
    def cross_entropies(self) -> Float[Tensor, "n_docs addresses"]:
        """Cross entropy of each document under each address, nats per token."""

    @abstractmethod
    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Greedy continuations (rows, new) under an address."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What has to be stored."""

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.trained)

    @property
    def bytes(self) -> int:
        """Size on disk, as safetensors."""
        state = {name: tensor.contiguous() for name, tensor in self.state().items()}
        return len(safetensors.torch.save(state))

    def epoch(self) -> None:
        """Every batch once, in order."""
        started, own = time.perf_counter(), []
        for index in range(len(self.cache.doc_ids)):
            loss, ce = self.losses_of(index)
            loss.backward()
            nn.utils.clip_grad_norm_(self.trained, self.config.grad_clip_coeff)
            self.optimizer.step()
            self.optimizer.zero_grad()
            own.append(ce.item())
        spent = self.seconds[-1] if self.seconds else 0.0
        self.seconds.append(spent + time.perf_counter() - started)
        self.losses.append(sum(own) / len(own))


class DocumentMemoryBaseline(Baseline):
    """The document memory, trained with guidance."""

    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """A fresh memory."""
        self.memory = new_memory(self.config, self.lm, documents).to(self.cache.device)
        self.generator = torch.Generator().manual_seed(self.config.seed)
        return list(self.memory.parameters())

    def losses_of(self, index: int) -> tuple[Tensor, Tensor]:
        """The guidance loss."""
        config, doc_reps, doc_id = self.config, self.memory.doc_reps, self.cache.doc_ids[index]
        negative = negative_doc_rep(
            config.negative_key_type, doc_reps, doc_id, self.generator, config.negative_delta
        )
        both = torch.stack([doc_reps[doc_id], negative])
        own, other = self.cache.cross_entropies(index, self.memory, both)
        alpha, tau = config.guidance, config.target_negative_ce
        return guidance_loss(own, other, alpha, tau, config.loss_form), own

    def cross_entropies(self) -> Float[Tensor, "n_docs addresses"]:
        """Under each DocRep."""
        return cross_entropies_at(self.cache, self.memory, self.memory.doc_reps)

    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Under a DocRep."""
        hooking = attach(self.lm.model, self.memory, self.cache.layer)
        with hooking as hooked, hooked.document(address):
            return greedy(hooked.model, ids, new)

    def state(self) -> dict[str, Tensor]:
        """The memory."""
        return self.memory.state_dict()


class _Open(nn.Module):
    """A key generator that opens every entry, whatever the DocRep."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries = entries

    def forward(self, doc_rep: Tensor) -> Tensor:
        return doc_rep.new_ones(*doc_rep.shape[:-1], self.entries)


class UngatedMemory(DocumentMemoryBaseline):
    """The same memory without document keys: every entry open for every document, no guidance."""

    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """A fresh memory, its keys open."""
        self.config = dataclasses.replace(self.config, key_activation="linear")
        super().build(documents)
        self.memory.document_key = _Open(self.memory.config.memory_dim)
        return list(self.memory.parameters())

    def losses_of(self, index: int) -> tuple[Tensor, Tensor]:
        """The cross entropy."""
        ce = self.cache.cross_entropies(index, self.memory, self.memory.doc_reps[:1])[0]
        return ce, ce

    def cross_entropies(self) -> Float[Tensor, "n_docs addresses"]:
        """The same under any DocRep."""
        return cross_entropies_at(self.cache, self.memory, self.memory.doc_reps[:1])


class LoRA(Baseline):
    """Low-rank updates of every Linear of the blocks, by peft, as adapters.

    The rank is the one nearest to the document memory's number of parameters in all.
    """

    adapters = 1

    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """Fresh adapters in a copy of the LM.

        Raises:
            DocmemError: if peft is not installed.
        """
        if importlib.util.find_spec("peft") is None:
            raise DocmemError(
                "The baselines need peft, which is not installed: `pip install peft`."
            )
        from peft import LoraConfig

        model: Any = copy.deepcopy(self.lm.model)
        lm = dataclasses.replace(self.lm, model=model)
        inside = {module for block in lm.blocks for module in block.modules()}
        linear = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module in inside
        }
        a_rank = sum(module.in_features + module.out_features for module in linear.values())
        memory = new_memory(self.config, self.lm, documents)
        wanted = sum(parameter.numel() for parameter in memory.parameters())
        self.rank = max(1, round(wanted / (a_rank * self.adapters)))
        settings = LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank,
            target_modules=sorted(linear),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Several adapters are meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
            torch.manual_seed(self.config.seed)
            for index in range(self.adapters):
                model.add_adapter(settings, adapter_name=str(index))
        self.model = model
        return [p for name, p in model.named_parameters() if "lora_" in name]

    def _ce(self, index: int, address: int) -> Tensor:
        batch = self.cache.batches[index]
        self.model.set_adapter(str(address))
        return cross_entropy(self.model(**forward_inputs(self.lm.model, batch)).logits, batch)

    def losses_of(self, index: int) -> tuple[Tensor, Tensor]:
        """The cross entropy, under the document's own adapter if it has one."""
        ce = self._ce(index, min(self.cache.doc_ids[index], self.adapters - 1))
        return ce, ce

    def cross_entropies(self) -> Float[Tensor, "n_docs addresses"]:
        """Under each adapter."""
        addresses = range(self.adapters)
        return document_means(
            self.cache,
            self.n_docs,
            lambda index: torch.stack([self._ce(index, address) for address in addresses]),
        )

    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Under an adapter."""
        self.model.set_adapter(str(address))
        return greedy(self.model, ids, new)

    def state(self) -> dict[str, Tensor]:
        """Every adapter."""
        return {n: p.detach() for n, p in self.model.named_parameters() if "lora_" in n}


class PerDocumentLoRA(LoRA):
    """One LoRA a document, each of a rank so small that all together are as large."""

    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """As many adapters as documents."""
        self.adapters = len(documents)
        return super().build(documents)


def train_for_equal_time(baselines: Sequence[Baseline], epochs: int) -> None:
    """Train the first for some epochs, and the others for the same seconds.

    They take turns an epoch at a time, so that whatever else the machine does slows them alike.
    """
    first, *others = baselines
    for _ in range(epochs):
        first.epoch()
        for other in others:
            while not other.seconds or other.seconds[-1] < first.seconds[-1]:
                other.epoch()
