"""Adding: one more document into a trained memory, the others' texts left as they were.

    larger = add(cache, memory, "Cyclone Odalys")        # cache reads the new document last

Every document writes to the same weights, so training on the new text alone overwrites the
others. `add` gives the new document the freest place among the DocReps and trains it in pairs
with the others: a step reads the new text and one that is kept, each under its own DocRep, with
the other's as the negative of the guidance loss. The learning rate falls to zero, so that what a
first large step took from the kept texts is given back. The texts of all documents are needed.
"""

import itertools

import torch

from docmem.core.loss import guidance_loss
from docmem.core.memory import DocumentMemory
from docmem.editing.doc_reps import append_doc_rep
from docmem.errors import DocmemError
from docmem.lm.forward import frozen
from docmem.lm.hidden_states import HiddenStateCache


def add(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    title: str | None = None,
    *,
    epochs: int = 20,
    rehearse: bool = True,
    guidance: float = 1.0,
    target_negative_ce: float = 4.5,
    lr: float = 5e-3,
) -> DocumentMemory:
    """A copy of the memory that knows one more document, the last, under a DocRep of its own.

    A step pairs a batch of the new document with one that is kept; an epoch meets every kept one.

    Args:
        cache: the documents that `memory` was trained on, in its order, then the new one.
        memory: left as it is; the copy lies on the same device.
        title: the new document's; None for a memory without titles.
        epochs: passes over the kept documents.
        rehearse: False leaves the kept texts unread, which harms them.
        guidance: α, the weight of the guidance term.
        target_negative_ce: τ, the cross entropy wanted under a negative DocRep, nats per token.
        lr: AdamW's learning rate at the start, from where it falls linearly to zero.

    Raises:
        DocmemError: if the hidden-state cache does not read one document more than the memory holds, or the
            title is missing, not wanted or taken.
    """
    last = memory.config.n_docs
    if set(cache.doc_ids) != set(range(last + 1)):
        raise DocmemError(
            f"The cache reads {len(set(cache.doc_ids))} documents and the memory holds {last}; "
            f"let the hidden-state cache read those in their order, and then the new one: {last + 1}."
        )
    larger = append_doc_rep(memory, title).to(cache.device)
    new = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id == last]
    kept = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id != last] * epochs
    optimizer = torch.optim.AdamW(larger.parameters(), lr=lr, weight_decay=0)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=len(kept))
    with frozen(cache.lm.model):
        for fresh, other in zip(itertools.cycle(new), kept, strict=False):
            for own, index in enumerate((fresh, other) if rehearse else (fresh,)):
                both = larger.doc_reps[[last, cache.doc_ids[other]]]
                ce = cache.cross_entropies(index, larger, both)
                guidance_loss(ce[own], ce[1 - own], guidance, target_negative_ce).backward()
            torch.nn.utils.clip_grad_norm_(larger.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            falling.step()
    return larger.to(memory.doc_reps.device)
