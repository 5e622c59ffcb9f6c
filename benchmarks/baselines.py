"""What else one could do: the authors' procedure, and the same with the LM frozen.

`Attached` reads every batch in two full forwards of the LM with the memory hooked in, as the
authors' program does, with docmem's memory, loss and negatives. Where the LM is frozen and pads do
not count, its losses are docmem's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import now
from docmem.core.hook import attach
from docmem.core.loss import guidance_loss, negative_doc_rep
from docmem.documents import Document
from docmem.lm.forward import TokenBatch, forward_inputs, frozen
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.setup import new_memory


class Passed(NamedTuple):
    """One epoch of a baseline."""

    positive_ce: float
    """Mean over the steps, nats per token."""
    negative_ce: float
    """The same under the negative DocRep; not a number where there is none, as for a LoRA."""
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
        cache = cache_hidden_states(lm, documents, config)
        self.batches, self.doc_ids = cache.batches, cache.doc_ids
        self.memory = new_memory(config, lm, documents).to(cache.device)
        self.optimizer = torch.optim.AdamW(self.memory.parameters(), lr=config.lr)
        self.generator = torch.Generator().manual_seed(config.seed)

    def losses(self, index: int, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropies of one batch under its own DocRep and a negative, nats per token."""
        model: Any = self.lm.model
        batch, own = self.batches[index], self.memory.doc_reps[self.doc_ids[index]]
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
            self.doc_ids[index],
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
            self._backward(0, self.memory.doc_reps[self.doc_ids[0]])
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
