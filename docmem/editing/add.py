"""Adding: one more document into a trained memory, the others' texts left as they were.

    larger = add(cache, memory, "Cyclone Odalys")        # the cache reads the new document last

All documents share the same weights, so training on the new text alone overwrites the others.
`add` puts the new document where it is farthest from all DocReps and trains it in pairs with the
others: one step reads the new text and one that is kept, each under its own DocRep, with the
other's DocRep as the negative of the guidance loss. The learning rate falls to zero, so that what a
first large step took from the kept texts is given back. The texts of all documents are needed.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.editing.doc_reps import append_doc_rep
from docmem.errors import Count, NotNegative, Positive, Rate, checked
from docmem.lm.cross_entropy import check_read_whole, check_same_documents
from docmem.lm.forward import frozen, plain_arithmetic
from docmem.lm.hidden_states import HiddenStateCache
from docmem.training.step import descend, guided_losses


@plain_arithmetic()  # and so with gradients, also where the caller has turned them off
@checked
def add(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    title: str | None = None,
    *,
    epochs: Count = 20,
    rehearse: bool = True,
    guidance: float = 1.0,
    target_negative_ce: float = 4.5,
    lr: Rate = 5e-3,
    weight_decay: NotNegative = 0.01,
    grad_clip_coeff: Positive = 5.0,
) -> DocumentMemory:
    """A copy of the memory that knows one more document, the last, under a DocRep of its own.

    One step pairs a batch of the new document with one that is kept; an epoch reads every kept one.

    Args:
        cache: the documents that `memory` was trained on, in its order, then the new one:
            `cache_hidden_states(lm, [*run.documents, new], run.config)`.
        memory: left as it is; the copy lies on the same device.
        title: the new document's; None for a memory without titles.
        epochs: passes over the kept documents.
        rehearse: False leaves the kept texts unread, which harms them.
        guidance: α, the weight of the guidance term.
        target_negative_ce: τ, the cross entropy wanted under a negative DocRep, nats per token.
        lr: AdamW's learning rate at the start, from where it falls linearly to zero.
        weight_decay: AdamW's.
        grad_clip_coeff: the gradient norm is clipped at this.

    Raises:
        DocmemError: if the cache does not read one document more than the memory holds, the
            title is missing, not wanted or taken, an argument cannot be, or a loss is not a number.
    """
    check_same_documents(cache, memory, new=1)
    new_id = memory.config.n_docs
    larger = append_doc_rep(memory, title).to(cache.device, torch.float32).requires_grad_(True)
    new = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id == new_id]
    kept = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id != new_id] * epochs
    check_read_whole(epochs, len(kept), len(new))

    def losses(pair: tuple[int, int]) -> Iterator[Tensor]:
        own = larger.doc_reps[[cache.doc_ids[index] for index in pair]]
        weight = 2 if rehearse else 1  # `descend` takes the mean, and both texts count in full
        for index, positive, negative in zip(pair, own, own.flip(0), strict=True):
            if rehearse or index == pair[0]:
                yield weight * guided_losses(
                    cache, index, larger, positive, negative,
                    alpha=guidance, tau=target_negative_ce,
                ).total  # fmt: skip

    optimizer = torch.optim.AdamW(larger.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=len(kept))
    with frozen(cache.lm.model):
        for pair in zip(itertools.cycle(new), kept, strict=False):
            descend(losses(pair), optimizer, grad_clip_coeff)
            schedule.step()
    optimizer.zero_grad()  # it is handed back without
    return larger.to(memory.doc_reps.device)
