"""What a user would pick instead, each with the same number of trainable parameters.

    baselines = [DocumentMemoryBaseline(...), UngatedMemory(...), LoRA(...), PerDocumentLoRA(...)]
    train_for_equal_time(baselines, epochs=60)

An address is how a baseline is told which document is meant: a DocRep, or an adapter. A baseline
that has one state for all documents has one address.
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
from docmem.core.loss import negative_doc_rep
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
from docmem.training.step import descend, guided_losses


class Baseline(ABC):
    """Something that learns documents with the steps of `docmem.train`: AdamW, one per batch.

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
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=lr or config.lr, weight_decay=config.weight_decay
        )
        self.seconds: list[float] = []
        """Time spent until the end of each epoch."""
        self.losses: list[float] = []
        """Mean own cross entropy of each epoch's steps, nats per token."""

    @abstractmethod
    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """Make what is trained; returns its parameters."""

    @abstractmethod
    def batch_losses(self, index: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
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
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.trained)

    @property
    def bytes(self) -> int:
        """Size on disk, as safetensors."""
        state = {name: tensor.contiguous() for name, tensor in self.state().items()}
        return len(safetensors.torch.save(state))

    def epoch(self) -> None:
        """Read every batch once, in order."""
        started, own = time.perf_counter(), []
        for index in range(len(self.cache.batches)):
            loss, ce = self.batch_losses(index)
            descend([loss], self.optimizer, self.config.grad_clip_coeff)
            own.append(ce.item())
        spent = self.seconds[-1] if self.seconds else 0.0
        self.seconds.append(spent + time.perf_counter() - started)
        self.losses.append(sum(own) / len(own))


class DocumentMemoryBaseline(Baseline):
    """The document memory, trained with guidance."""

    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """A fresh memory."""
        self.memory = new_memory(self.config, self.lm, documents).to(self.cache.device)
        self.addresses = self.memory.doc_reps
        self.generator = torch.Generator().manual_seed(self.config.seed)
        return list(self.memory.parameters())

    def batch_losses(self, index: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The guidance loss."""
        config, doc_reps, doc_id = self.config, self.memory.doc_reps, self.cache.doc_ids[index]
        negative = negative_doc_rep(
            config.negative_key_type, doc_reps, doc_id, self.generator, config.negative_delta
        )
        losses = guided_losses(
            self.cache, index, self.memory, doc_reps[doc_id], negative,
            alpha=config.guidance, tau=config.target_negative_ce, form=config.loss_form,
        )  # fmt: skip
        return losses.total, losses.positive_ce

    def cross_entropies(self) -> Float[Tensor, "n_docs addresses"]:
        """Under each DocRep."""
        return cross_entropies_at(self.cache, self.memory, self.addresses)

    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Under a DocRep."""
        hooking = attach(self.lm.model, self.memory, self.cache.layer)
        with hooking as hooked, hooked.document(address):
            return greedy(hooked.model, ids, new)

    def state(self) -> dict[str, Tensor]:
        """The memory."""
        return self.memory.state_dict()


class _OpenKeys(nn.Module):
    """A key generator that opens every entry, whatever the DocRep."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries = entries

    def forward(self, doc_rep: Tensor) -> Tensor:
        return doc_rep.new_ones(*doc_rep.shape[:-1], self.entries)


class UngatedMemory(DocumentMemoryBaseline):
    """The same memory without document keys: every entry open for every document, no guidance."""

    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """A fresh memory, its keys open; all DocReps are alike, so one is the address."""
        self.config = dataclasses.replace(self.config, key_activation="linear")
        super().build(documents)
        self.addresses = self.memory.doc_reps[:1]
        self.memory.document_key = _OpenKeys(self.memory.config.memory_dim)
        return list(self.memory.parameters())

    def batch_losses(self, index: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The cross entropy."""
        ce = self.cache.cross_entropies(index, self.memory, self.addresses)[0]
        return ce, ce


class LoRA(Baseline):
    """Low-rank updates of every Linear of the blocks, by peft, as adapters.

    The rank is the one that brings all adapters nearest to the document memory's size.

    Raises:
        DocmemError: if peft is not installed.
    """

    adapters = 1

    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """Fresh adapters in a copy of the LM."""
        if importlib.util.find_spec("peft") is None:
            raise DocmemError(
                "The baselines need peft, which is not installed: `pip install peft`."
            )
        from peft import LoraConfig

        self.model: Any = copy.deepcopy(self.lm.model)
        blocks = dataclasses.replace(self.lm, model=self.model).blocks
        inside = {module for block in blocks for module in block.modules()}
        linear = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and module in inside
        }
        per_rank = sum(module.in_features + module.out_features for module in linear.values())
        memory = new_memory(self.config, self.lm, documents)
        wanted = sum(parameter.numel() for parameter in memory.parameters())
        rank = max(1, round(wanted / (per_rank * self.adapters)))
        settings = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=sorted(linear), task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Several adapters are meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
            torch.manual_seed(self.config.seed)
            for index in range(self.adapters):
                self.model.add_adapter(settings, adapter_name=str(index))
        return [p for name, p in self.model.named_parameters() if "lora_" in name]

    def _ce(self, index: int, address: int) -> Float[Tensor, ""]:
        """Cross entropy of a batch under an adapter, nats per token."""
        batch = self.cache.batches[index]
        self.model.set_adapter(str(address))
        return cross_entropy(self.model(**forward_inputs(self.lm.model, batch)).logits, batch)

    def batch_losses(self, index: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The cross entropy, under the document's own adapter if it has one."""
        ce = self._ce(index, min(self.cache.doc_ids[index], self.adapters - 1))
        return ce, ce

    def cross_entropies(self) -> Float[Tensor, "n_docs addresses"]:
        """Under each adapter."""
        return document_means(
            self.cache,
            self.n_docs,
            lambda index: torch.stack([self._ce(index, a) for a in range(self.adapters)]),
        )

    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Under an adapter."""
        self.model.set_adapter(str(address))
        return greedy(self.model, ids, new)

    def state(self) -> dict[str, Tensor]:
        """Every adapter."""
        return {n: p.detach() for n, p in self.model.named_parameters() if "lora_" in n}


class PerDocumentLoRA(LoRA):
    """One LoRA per document, each of a rank so small that all together are as large."""

    def build(self, documents: Sequence[Document]) -> list[nn.Parameter]:
        """As many adapters as documents."""
        self.adapters = len(documents)
        return super().build(documents)


def train_for_equal_time(baselines: Sequence[Baseline], epochs: int) -> None:
    """Train the first for some epochs, and the others for the same seconds.

    They take turns, an epoch at a time, so that other work on the machine slows them alike.
    """
    first, *others = baselines
    for _ in range(epochs):
        first.epoch()
        for other in others:
            while not other.seconds or other.seconds[-1] < first.seconds[-1]:
                other.epoch()
