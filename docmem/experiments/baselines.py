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
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.lm.cross_entropy import document_means
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import greedy
from docmem.lm.head import cross_entropy
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.negatives import negative_doc_rep
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

    addresses = 1

    def __init__(
        self,
        lm: LanguageModel,
        documents: Sequence[Document],
        config: TrainConfig,
        lr: float | None = None,
    ) -> None:
        self.lm, self.documents, self.config = lm, documents, config
        self.cache = cache_hidden_states(lm, documents, config)
        self.stored = self._build()
        """What has to be stored; its parameters are trained."""
        self.trained = [one for one in self.stored.values() if isinstance(one, nn.Parameter)]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=lr or config.lr, weight_decay=config.weight_decay
        )
        self.seconds: list[float] = []
        """Time spent until the end of each epoch."""
        self.losses: list[float] = []
        """Mean own cross entropy of each epoch's steps, nats per token."""

    @abstractmethod
    def _build(self) -> dict[str, Tensor]:
        """Make what is trained; returns what has to be stored, by name."""

    @abstractmethod
    def read(self, index: int, address: int) -> Float[Tensor, ""]:
        """Cross entropy of a batch under an address, nats per token."""

    @abstractmethod
    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Greedy continuations (rows, new) under an address."""

    def batch_losses(self, index: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What a step on a batch minimises, and the batch's own cross entropy: here the same."""
        ce = self.read(index, min(self.cache.doc_ids[index], self.addresses - 1))
        return ce, ce

    def cross_entropies(self) -> Float[Tensor, "n_docs addresses"]:
        """Cross entropy of each document under each address, nats per token."""
        return document_means(
            self.cache,
            len(self.documents),
            lambda index: torch.stack([self.read(index, a) for a in range(self.addresses)]),
        )

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.trained)

    @property
    def bytes(self) -> int:
        """Size on disk, as safetensors."""
        stored = {name: tensor.detach().contiguous() for name, tensor in self.stored.items()}
        return len(safetensors.torch.save(stored))

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
    """The document memory, trained with guidance. Its addresses are its DocReps."""

    def _build(self) -> dict[str, Tensor]:
        self.addresses = len(self.documents)
        self.memory = new_memory(self.config, self.lm, self.documents).to(self.cache.device)
        self.generator = torch.Generator().manual_seed(self.config.seed)
        return self.memory.state_dict(keep_vars=True)

    def read(self, index: int, address: int) -> Float[Tensor, ""]:
        """Under the DocRep of that index."""
        return self.cache.cross_entropies(index, self.memory, self.memory.doc_reps[[address]])[0]

    def batch_losses(self, index: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The guidance loss, and the cross entropy under the own DocRep."""
        config, doc_reps, doc_id = self.config, self.memory.doc_reps, self.cache.doc_ids[index]
        negative = negative_doc_rep(
            config.negative_key_type, doc_reps, doc_id, self.generator, config.negative_delta
        )
        losses = guided_losses(
            self.cache, index, self.memory, doc_reps[doc_id], negative,
            alpha=config.guidance, tau=config.target_negative_ce, form=config.loss_form,
        )  # fmt: skip
        return losses.total, losses.positive_ce

    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Greedy continuations (rows, new) under a DocRep."""
        hooking = attach(self.lm.model, self.memory, self.cache.layer)
        with hooking as hooked, hooked.document(address):
            return greedy(hooked.model, ids, new)


class _OpenKeys(nn.Module):
    """A key generator that opens every entry, whatever the DocRep."""

    def forward(self, doc_rep: Tensor) -> Tensor:
        return doc_rep.new_ones(*doc_rep.shape[:-1], 1)  # broadcast over the entries


class UngatedMemory(DocumentMemoryBaseline):
    """The same memory without document keys: every entry open for every document, no guidance."""

    batch_losses = Baseline.batch_losses

    def _build(self) -> dict[str, Tensor]:
        self.config = dataclasses.replace(self.config, key_activation="linear")
        super()._build()
        self.addresses = 1  # under any DocRep it is the same
        self.memory.document_key = _OpenKeys()
        return self.memory.state_dict(keep_vars=True)


class LoRA(Baseline):
    """Low-rank updates of every Linear but the head, by peft. Its addresses are its adapters.

    The rank is the one that brings all adapters nearest to the document memory's size.

    Raises:
        DocmemError: if peft is not installed.
    """

    def _build(self) -> dict[str, Tensor]:
        if importlib.util.find_spec("peft") is None:
            raise DocmemError(
                "The baselines need peft, which is not installed: `pip install peft`."
            )
        from peft import LoraConfig

        self.model: Any = copy.deepcopy(self.lm.model)
        head = self.model.get_output_embeddings()
        linear = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
        per_rank = sum(module.in_features + module.out_features for module in linear.values())
        memory = new_memory(self.config, self.lm, self.documents)
        wanted = sum(parameter.numel() for parameter in memory.parameters())
        rank = max(1, round(wanted / (per_rank * self.addresses)))
        settings = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=sorted(linear), task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Several adapters are meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
            torch.manual_seed(self.config.seed)
            for address in range(self.addresses):
                self.model.add_adapter(settings, adapter_name=str(address))
        return {name: p for name, p in self.model.named_parameters() if "lora_" in name}

    def read(self, index: int, address: int) -> Float[Tensor, ""]:
        """With the LoRA of that index."""
        batch = self.cache.batches[index]
        self.model.set_adapter(str(address))
        return cross_entropy(self.model(**forward_inputs(self.lm.model, batch)).logits, batch)

    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Greedy continuations (rows, new) under an adapter."""
        self.model.set_adapter(str(address))
        return greedy(self.model, ids, new)


class PerDocumentLoRA(LoRA):
    """One LoRA per document, each of a rank so small that all together are as large."""

    def _build(self) -> dict[str, Tensor]:
        self.addresses = len(self.documents)
        return super()._build()


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
