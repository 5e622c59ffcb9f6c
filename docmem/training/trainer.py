"""The loop: documents in turn, each read under its own DocRep and under a negative one.

It follows the authors' program: one step per batch of one document, AdamW at a constant rate, the
gradient norm clipped. Its two full passes through the LM become one resumption after the hooked
block (`docmem.lm.hidden_states`). The trainer knows no disk; `docmem.training.train` saves.
"""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from docmem.core.loss import negative_doc_rep
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.lm.hidden_states import HiddenStateCache
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.step import GuidedLosses, descend, guided_losses


class Trainer:
    """What a checkpoint holds, and how an epoch changes it.

    Args:
        config: the settings.
        cache: the documents, as the frozen blocks read them.
        memory: what is trained; on the cache's device.
    """

    def __init__(
        self, config: TrainConfig, cache: HiddenStateCache, memory: DocumentMemory
    ) -> None:
        self.config = config
        self.cache = cache
        self.memory = memory
        self.optimizer = torch.optim.AdamW(
            memory.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.generators = {"negatives": torch.Generator().manual_seed(config.seed)}
        """What draws at random, by its name in a checkpoint."""
        self.history: list[Epoch] = []

    def epoch(self) -> Epoch:
        """Read every batch once, in order; a step every `num_accumulation_steps` batches.

        Raises:
            DocmemError: if a loss or the gradient is not a number any more.
        """
        started, number = time.perf_counter(), len(self.history) + 1
        losses: list[GuidedLosses] = []
        batches = torch.arange(len(self.cache.batches))
        for group in batches.split(self.config.num_accumulation_steps):
            try:
                descend(
                    self._group_losses(group.tolist(), losses),
                    self.optimizer,
                    self.config.grad_clip_coeff,
                )
            except DocmemError as error:
                doc_id = self.cache.doc_ids[len(losses) - 1]
                title = self.memory.titles[doc_id] if self.memory.titles else str(doc_id)
                raise DocmemError(f"In epoch {number}, document {title!r}: {error}") from error
        own, negative, guidance = torch.tensor(losses, dtype=torch.float64).mean(0).tolist()
        seconds = time.perf_counter() - started
        self.history.append(Epoch(number, own, negative, guidance, seconds))
        return self.history[-1]

    def _group_losses(self, group: list[int], losses: list[GuidedLosses]) -> Iterator[Tensor]:
        """The guidance loss of each batch of a group; adds the three losses to `losses`."""
        config, doc_reps = self.config, self.memory.doc_reps
        for index in group:
            doc_id = self.cache.doc_ids[index]
            negative = negative_doc_rep(
                config.negative_key_type,
                doc_reps,
                doc_id,
                self.generators["negatives"],
                config.negative_delta,
            )
            found = guided_losses(
                self.cache,
                index,
                self.memory,
                doc_reps[doc_id],
                negative,
                alpha=config.guidance,
                tau=config.target_negative_ce,
                form=config.loss_form,
            )
            losses.append(GuidedLosses(*(loss.detach() for loss in found)))
            yield found.total
