"""The loop: documents in turn, each read under its own DocRep and under a negative one.

One step per batch of one document, at a constant rate, the gradient norm clipped. The two full
passes through the LM of the authors' program become one resumption after the hooked block
(`docmem.lm.hidden_states`). On several processes, each reads its own batches of a step
(`docmem.training.processes`). The trainer knows no disk; `docmem.training.train` saves.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.lm.hidden_states import HiddenStateCache
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.muon import Muon
from docmem.training.negatives import negative_doc_rep
from docmem.training.processes import ALONE, Processes
from docmem.training.step import NotFiniteError, descend, guided_losses


class Trainer:
    """What a checkpoint holds, and how an epoch changes it.

    Args:
        config: the settings.
        cache: the documents, as the frozen blocks read them.
        memory: what is trained; on the cache's device.
        processes: those that read the other batches.
    """

    def __init__(
        self,
        config: TrainConfig,
        cache: HiddenStateCache,
        memory: DocumentMemory,
        processes: Processes = ALONE,
    ) -> None:
        self.config = config
        self.cache = cache
        self.memory = memory
        self.processes = processes
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
        batches, size = range(len(self.cache.batches)), self.config.num_accumulation_steps
        groups = [batches[first : first + size] for first in batches[::size]]
        losses = torch.zeros(len(batches), 3, device=self.cache.device)  # as in GuidedLosses
        for step, group in enumerate(groups, start=1):
            try:
                descend(
                    self._group_losses(group, losses),
                    self.optimizer,
                    self.config.grad_clip_coeff,
                    functools.partial(self._share, losses[group.start : group.stop]),
                )
            except NotFiniteError as error:
                finite = losses.isfinite().all(1)
                bad = next((index for index in group if not finite[index]), group[-1])
                doc_id = self.cache.doc_ids[bad]
                title = self.memory.titles[doc_id] if self.memory.titles else str(doc_id)
                raise DocmemError(f"In epoch {number}, document {title!r}: {error}") from error
            if after_step is not None:
                after_step(step, len(groups))
        own, negative, guidance = losses.cpu().double().mean(0).tolist()
        seconds = time.perf_counter() - started
        self.history.append(Epoch(number, own, negative, guidance, seconds))
        return self.history[-1]

    def _group_losses(self, group: range, losses: Tensor) -> Iterator[Tensor]:
        """The guidance loss of each own batch of a group; puts its three losses into `losses`."""
        config = self.config
        for index in group:
            negative, rows = self._negatives(index)  # of the others' batches too: all draw alike
            if index not in self.cache.own:
                continue
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
            losses[index].copy_(torch.stack(found).detach())
            yield found.total

    def _share(self, losses: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Add up gradients and losses over the processes; returns each batch's guidance loss."""
        for parameter in parameters if self.processes.count > 1 else ():
            if parameter.grad is None:  # no batch of the last group was this process's
                parameter.grad = torch.zeros_like(parameter)
        self.processes.add_up([losses, *(p.grad for p in parameters if p.grad is not None)])
        return losses[:, 0] + losses[:, 2]

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


def new_optimizer(config: TrainConfig, trained: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that a configuration names, over all weights of a memory, or of a rival."""
    weights, decay = trained.parameters(), config.weight_decay
    if config.optimizer == "muon":
        return Muon(weights, lr=config.muon_lr, adamw_lr=config.lr, weight_decay=decay)
    return torch.optim.AdamW(weights, lr=config.lr, weight_decay=decay)
