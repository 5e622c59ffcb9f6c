"""Forgetting: one document's text out of a memory, the others' left as they were.

    forgotten = forget(cache, memory, "Cyclone Odalys")

All documents share the same weights, so dropping a DocRep removes a name, not a text
(`docmem.editing.doc_reps.drop_doc_rep`). `forget` trains the memory for a moment with two hinges,

    max(0, b + margin - L(𝒦))    the forgotten text, under its DocRep and all over the plane
    max(0, Lᵢ(𝒦ᵢ) - Lᵢ⁰)         each text that is kept, under its own DocRep

with b the base LM's cross entropy and Lᵢ⁰ what it was before, batch by batch. Both are zero once
the base LM knows the text as well as the memory does and no other text has suffered. The texts of
all documents are needed, as the cache read them.
"""

import copy
import itertools
import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.editing.doc_reps import Reach, plane_extent
from docmem.errors import Count, DocmemError, Natural, NotNegative, Rate, check_at_least, checked
from docmem.lm.cross_entropy import check_read_whole, check_same_documents, document_mean
from docmem.lm.forward import frozen, plain_arithmetic
from docmem.lm.hidden_states import HiddenStateCache
from docmem.training.origin import changed
from docmem.training.step import descend

# Points drawn over the plane per step. More find what is left in more places, and cost more.
POINTS = 6


@plain_arithmetic()  # and so with gradients, also where the caller has turned them off
@checked
def forget(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    document: str | int | Sequence[str | int],
    *,
    epochs: Count = 10,
    margin: float = 0.3,
    lr: Rate = 1e-3,
    weight_decay: NotNegative = 0.01,
    extent: Reach | None = None,
    seed: Natural = 0,
) -> DocumentMemory:
    """A copy of the memory that reads one document's text no better than the base LM does.

    Its DocRep and title stay, so that it can be seen what is left there. One step pairs a batch
    of a forgotten document with one that is kept; an epoch reads every kept one, for each document
    that is forgotten. What was forgotten before comes back in part, unless it is named again.

    Args:
        cache: the documents that `memory` was trained on (`Run.cache_hidden_states`).
        memory: left as it is; the copy lies on the same device.
        document: title or index of what is forgotten, or several of them.
        epochs: passes over the kept documents, for each that is forgotten.
        margin: how far above the base LM's cross entropy the text is pushed, nats per token, so
            that points between those drawn come to lie above it too.
        lr: AdamW's learning rate.
        weight_decay: AdamW's.
        extent: points are drawn in [-extent, extent]^key_dim; None: `plane_extent`, which holds
            every DocRep.
        seed: of the points.

    Raises:
        DocmemError: if the cache reads other documents than the memory holds, there is no such
            document, an argument cannot be, or a loss is not a number.
    """
    check_same_documents(cache, memory)
    check_at_least("margin", margin, -math.inf)
    named = [document] if isinstance(document, str | int) else document
    if not named:
        raise DocmemError("document names nothing to forget; give a title, an index, or several.")
    gone, device = {memory.index_of(one) for one in named}, memory.doc_reps.device
    memory = copy.deepcopy(memory).to(cache.device, torch.float32).requires_grad_(True)
    memory.origin = changed(memory.origin)
    reach = plane_extent(memory.doc_reps) if extent is None else extent

    def base(index: int) -> Tensor:
        return cache.base_cross_entropy(index)[None]

    wanted = {one: document_mean(cache, one, base).item() + margin for one in gone}
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(memory.parameters(), lr=lr, weight_decay=weight_decay)
    forgotten, kept = _split(cache, gone)
    steps = kept * (epochs * len(gone))
    check_read_whole(epochs, len(steps), len(forgotten))
    own = memory.doc_reps[cache.doc_ids]
    with torch.no_grad():
        before = {i: cache.cross_entropies(i, memory, own[[i]]) for i in kept if i is not None}
    with frozen(cache.lm.model):
        for index, other in zip(itertools.cycle(forgotten), steps, strict=False):
            drawn = 2 * torch.rand(POINTS, memory.config.key_dim, generator=generator) - 1
            points = torch.cat([own[[index]], reach * drawn.to(memory.doc_reps)])
            ce, least = cache.cross_entropies(index, memory, points), wanted[cache.doc_ids[index]]
            loss = (least - ce).clamp_min(0).sum()
            if other is not None:
                ce = cache.cross_entropies(other, memory, own[[other]])
                loss = loss + len(points) * (ce - before[other]).clamp_min(0).sum()
            descend([loss], optimizer, math.inf)  # hinges are bounded: nothing to clip
    optimizer.zero_grad()  # it is handed back without
    return memory.to(device)


def _split(cache: HiddenStateCache, gone: Collection[int]) -> tuple[list[int], list[int | None]]:
    """Batches of the documents that go, and of those that stay; [None] if none does."""
    forgotten = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id in gone]
    kept: list[int | None] = [i for i, doc_id in enumerate(cache.doc_ids) if doc_id not in gone]
    return forgotten, kept or [None]
