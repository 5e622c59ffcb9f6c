"""What else one could do: the authors' procedure, the same with the LM frozen, and LoRA.

`Attached` reads every batch in two full forwards of the LM with the memory hooked in, as the
authors' program does, with docmem's memory, loss and negatives. Where the LM is frozen and pads do
not count, its losses are docmem's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import now
from docmem.config import TrainConfig
from docmem.documents import Document
from docmem.hook import attach
from docmem.loss import guidance_loss, negative_doc_rep
from docmem.models import LanguageModel, TokenBatch, forward_inputs, frozen
from docmem.replay import read_documents
from docmem.training import new_memory


class Passed(NamedTuple):
    """One epoch of a contender."""

    positive_ce: float
    """Mean over the steps, nats a token."""
    negative_ce: float
    """The same under the negative DocRep; not a number where there is none."""
    seconds: float
    """Time it took."""


def labels(batch: TokenBatch, count_pads: bool) -> Tensor:
    """The labels that transformers shifts by one; -100 where a token does not count."""
    if count_pads:
        return batch.input_ids
    predicted = functional.pad(batch.predicted, (1, 0))
    return batch.input_ids.masked_fill(~predicted, -100)


VARIANTS = {
    "original": {"train_lm": True, "count_pads": True},
    "frozen": {"train_lm": False, "count_pads": False},
}


class Attached:
    """Two full hooked forwards a step, and a backward pass through both.

    Args:
        lm: the LM; outside an epoch it is left as it was found.
        documents: what is memorised.
        config: the settings, batch and seed included, as `docmem.train` takes them.
        train_lm: whether the LM's weights require gradients, which are computed and thrown away:
            the optimizer holds the memory alone.
        count_pads: whether pads count in the loss.
    """

    def __init__(
        self,
        lm: LanguageModel,
        documents: Sequence[Document],
        config: TrainConfig,
        *,
        train_lm: bool,
        count_pads: bool,
    ) -> None:
        self.lm, self.config = lm, config
        self.train_lm, self.count_pads = train_lm, count_pads
        prefix = read_documents(lm, documents, config)
        self.batches, self.owners = prefix.batches, prefix.owners
        self.memory = new_memory(config, lm, documents).to(prefix.device)
        self.optimizer = torch.optim.AdamW(self.memory.parameters(), lr=config.lr)
        self.generator = torch.Generator().manual_seed(config.seed)

    def losses(self, index: int, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropies of one batch under its own DocRep and a negative, nats a token."""
        model: Any = self.lm.model
        batch, own = self.batches[index], self.memory.doc_reps[self.owners[index]]
        inputs = forward_inputs(model, batch) | {"labels": labels(batch, self.count_pads)}
        both = []
        with attach(model, self.memory, self.config.hook_memory_layer) as hooked:
            for doc_rep in (own, negative):
                with hooked.document(doc_rep):
                    both.append(model(**inputs).loss)
        return both[0], both[1]

    def _backward(self, index: int, negative: Tensor) -> tuple[Tensor, Tensor]:
        positive_ce, negative_ce = self.losses(index, negative)
        config = self.config
        guidance_loss(
            positive_ce,
            negative_ce,
            alpha=config.guidance,
            tau=config.target_negative_ce,
            form=config.loss_form,
        ).backward()
        return positive_ce, negative_ce

    def _forget_gradients(self) -> None:
        self.optimizer.zero_grad()
        self.lm.model.zero_grad()

    def step(self, index: int) -> tuple[float, float]:
        """One optimizer step on one batch: its positive and negative cross entropy before it."""
        config = self.config
        negative = negative_doc_rep(
            config.negative_key_type,
            self.memory.doc_reps,
            self.owners[index],
            self.generator,
            config.negative_delta,
        )
        positive_ce, negative_ce = self._backward(index, negative)
        torch.nn.utils.clip_grad_norm_(self.memory.parameters(), config.grad_clip_coeff)
        self.optimizer.step()
        self._forget_gradients()
        return positive_ce.item(), negative_ce.item()

    def warm_up(self) -> None:
        """One batch forward and backward; nothing is learned and nothing drawn."""
        with frozen(self.lm.model):
            self.lm.model.requires_grad_(self.train_lm)
            self._backward(0, self.memory.doc_reps[self.owners[0]])
            self._forget_gradients()

    def epoch(self) -> Passed:
        """Every batch once, in order."""
        with frozen(self.lm.model):
            self.lm.model.requires_grad_(self.train_lm)
            started = now()
            steps = [self.step(index) for index in range(len(self.batches))]
            seconds = now() - started
        positive, negative = (sum(losses) / len(steps) for losses in zip(*steps, strict=True))
        return Passed(positive, negative, seconds)


LORA_LR = 5e-3


class LoRA:
    """Low-rank updates of all linear layers of the blocks, by peft: what one would pick instead.

    It reads each batch once, has no negative, and does not know of documents. The rank is the one
    that comes nearest to the memory's number of trainable parameters.

    Args:
        lm: the LM; peft changes it in place, so give it one of its own.
        documents, config: as for docmem; steps and batches are the same.
        lr: AdamW's learning rate, the best of those tried; see README.md.
    """

    def __init__(
        self,
        lm: LanguageModel,
        documents: Sequence[Document],
        config: TrainConfig,
        lr: float = LORA_LR,
    ) -> None:
        from peft import LoraConfig, get_peft_model

        layers = [
            module
            for block in lm.blocks
            for module in block.modules()
            if isinstance(module, torch.nn.Linear)
        ]
        a_rank = sum(layer.in_features + layer.out_features for layer in layers)
        memory = new_memory(config, lm, documents)
        self.rank = max(1, round(sum(p.numel() for p in memory.parameters()) / a_rank))
        self.batches = read_documents(lm, documents, config).batches
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft asks transformers for a method by the name that 5.23 has replaced.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            torch.manual_seed(config.seed)
            lora = LoraConfig(
                r=self.rank,
                lora_alpha=2 * self.rank,
                target_modules=["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
                task_type="CAUSAL_LM",
            )
            self.model: Any = get_peft_model(lm.model, lora)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.parameters = sum(p.numel() for p in self.trained)
        self.clip = config.grad_clip_coeff
        self.optimizer = torch.optim.AdamW(self.trained, lr=lr)

    def _loss(self, batch: TokenBatch) -> Tensor:
        inputs = forward_inputs(self.model.get_base_model(), batch)
        return self.model(**inputs, labels=labels(batch, count_pads=False)).loss

    def warm_up(self) -> None:
        """One batch forward and backward; nothing is learned."""
        self._loss(self.batches[0]).backward()
        self.optimizer.zero_grad()

    def epoch(self) -> Passed:
        """Every batch once, in order."""
        started = now()
        total = 0.0
        for batch in self.batches:
            loss = self._loss(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            total += loss.item()
        return Passed(total / len(self.batches), float("nan"), now() - started)
