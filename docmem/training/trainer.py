"""The loop: documents in turn, each read under its own DocRep and under a negative one.

One step per batch of one document, at a constant rate, the gradient norm clipped. The two full
passes through the LM of the authors' program become one resumption after the hooked block
(`docmem.lm.hidden_states`). The trainer knows no disk; `docmem.training.train` saves.
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.lm.hidden_states import HiddenStateCache
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.muon import Muon
from docmem.training.negatives import negative_doc_rep
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
        self.optimizer = new_optimizer(config, memory)
        self.generators = {"negatives": torch.Generator().manual_seed(config.seed)}
        """What draws at random, by its name in a checkpoint."""
        self.history: list[Epoch] = []

    def epoch(self, after_step: Callable[[int, int], None] | None = None) -> Epoch:
        """Read every batch once, in order; a step every `num_accumulation_steps` batches.

        Args:
            after_step: called after each step with its number in this epoch, from 1, and how many
                steps the epoch has.

        Raises:
            DocmemError: if a loss or the gradient is not a number any more.
        """
        started, number = time.perf_counter(), len(self.history) + 1
        losses: list[GuidedLosses] = []
        batches = torch.arange(len(self.cache.batches))
        groups = batches.split(self.config.num_accumulation_steps)
        for step, group in enumerate(groups, start=1):
            try:
                descend(
                    self._group_losses(group.tolist(), losses),
                    self.optimizer,
                    self.config.grad_clip_coeff,
                )
            except DocmemError as error:
                read = range(int(group[0]), len(losses))
                bad = next((i for i in read if not losses[i].total.isfinite()), len(losses) - 1)
                doc_id = self.cache.doc_ids[bad]
                title = self.memory.titles[doc_id] if self.memory.titles else str(doc_id)
                raise DocmemError(f"In epoch {number}, document {title!r}: {error}") from error
            if after_step is not None:
                after_step(step, len(groups))
        own, negative, guidance = torch.tensor(losses, dtype=torch.float64).mean(0).tolist()
        seconds = time.perf_counter() - started
        self.history.append(Epoch(number, own, negative, guidance, seconds))
        return self.history[-1]

    def _group_losses(self, group: list[int], losses: list[GuidedLosses]) -> Iterator[Tensor]:
        """The guidance loss of each batch of a group; adds the three losses to `losses`."""
        config = self.config
        for index in group:
            negative, rows = self._negatives(index)
            found = guided_losses(
                self.cache,
                index,
                self.memory,
                self.memory.doc_reps[self.cache.doc_ids[index]],
                negative,
                rows,
                alpha=config.guidance,
                tau=config.target_negative_ce,
                form=config.loss_form,
            )
            losses.append(GuidedLosses(*(loss.detach() for loss in found)))
            yield found.total

    def _negatives(self, index: int) -> tuple[Tensor, Tensor | None]:
        """The negative DocRep of a batch; or one for each of some rows, and these rows."""
        config, generator = self.config, self.generators["negatives"]

        def drawn() -> Tensor:
            doc_id = self.cache.doc_ids[index]
            kind, delta = config.negative_key_type, config.negative_delta
            return negative_doc_rep(kind, self.memory.doc_reps, doc_id, generator, delta)

        if config.negative_rows is None:
            return drawn(), None
        with_loss = self.cache.predicted[index].any(1).nonzero()[:, 0]
        order = torch.randperm(len(with_loss), generator=generator)
        rows = with_loss[order[: config.negative_rows]]
        return torch.stack([drawn() for _ in rows]), rows


def new_optimizer(config: TrainConfig, memory: DocumentMemory) -> torch.optim.Optimizer:
    """The optimizer that a configuration names, over all of a memory's weights."""
    weights, decay = memory.parameters(), config.weight_decay
    if config.optimizer == "muon":
        return Muon(weights, lr=config.muon_lr, adamw_lr=config.lr, weight_decay=decay)
    return torch.optim.AdamW(weights, lr=config.lr, weight_decay=decay)
