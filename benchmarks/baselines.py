"""The authors' procedure, and the same with the LM frozen: two full hooked forwards per step.

Both are docmem's own trainer; only how it reads a batch differs. Where the LM is frozen and pads
do not count, the losses are docmem's.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.lm.forward import TokenBatch, forward_inputs, frozen
from docmem.lm.hidden_states import HiddenStateCache
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.trainer import Trainer


class FullForwards(HiddenStateCache):
    """Caches nothing: runs the whole LM with the memory hooked in, once per DocRep.

    It reads the batches of `cache`; pads count in the cross entropy where `count_pads` says so.
    """

    def __init__(self, cache: HiddenStateCache, count_pads: bool = False) -> None:
        self.lm, self.batches, self.doc_ids = cache.lm, cache.batches, cache.doc_ids
        self.layer, self.device, self.count_pads = cache.layer, cache.device, count_pads
        self.predicted, self.own = cache.predicted, cache.own

    def cross_entropies(
        self, index: int, memory: DocumentMemory, doc_reps: Tensor, rows: Any = None
    ) -> Tensor:
        """As in `HiddenStateCache`: mean cross entropy of rows under each DocRep, (points,)."""
        model: Any = self.lm.model
        model.zero_grad()  # of the last step: nobody uses gradients of the LM
        losses = []
        with attach(model, memory, self.layer) as hooked:
            for doc_rep, some in zip(doc_reps, rows or [slice(None)] * len(doc_reps), strict=True):
                batch = TokenBatch(*(part[some] for part in self.batches[index]))
                labels = batch.input_ids  # transformers shifts them by one
                if not self.count_pads:
                    labels = labels.masked_fill(~functional.pad(batch.predicted, (1, 0)), -100)
                with hooked.document(doc_rep):
                    losses.append(model(**forward_inputs(model, batch), labels=labels).loss)
        return torch.stack(losses)


class Attached(Trainer):
    """Trains a memory that stays hooked into the LM; the LM is left as it was found.

    If `original`, as the authors' program: gradients of the LM's weights are computed, though the
    optimizer holds the memory alone, and pads count in the cross entropy.
    """

    def __init__(
        self, config: TrainConfig, cache: HiddenStateCache, memory: DocumentMemory, original: bool
    ) -> None:
        super().__init__(config, FullForwards(cache, count_pads=original), memory)
        self.original = original

    def epoch(self, after_step: Any = None) -> Epoch:
        """As in `Trainer`."""
        model = self.cache.lm.model
        with frozen(model):
            model.requires_grad_(self.original)
            try:
                return super().epoch(after_step)
            finally:
                model.zero_grad()
