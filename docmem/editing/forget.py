"""Forgetting: one document's text out of a memory, the others' left as they were.

    forgotten = forget(cache, memory, "Cyclone Odalys")

Every document writes to the same weights, so dropping a DocRep removes a name, not a text
(`docmem.evaluation.recall.drop_doc_rep`). `forget` trains the memory for a moment with two hinges,

    max(0, b + margin - L(𝒦))    the forgotten text, under its DocRep and all over the plane
    max(0, Lᵢ(𝒦ᵢ) - Lᵢ⁰)         each text that is kept, under its own DocRep

with b the base LM's cross entropy and Lᵢ⁰ what it was before, batch by batch: nothing is left to
gain once the text is as strange as to the base LM and no other has suffered. The texts of all
documents are needed, as the hidden-state cache read them.
"""

import copy
import itertools

import torch

from docmem.core.memory import DocumentMemory
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.forward import frozen
from docmem.lm.hidden_states import HiddenStateCache

# Points drawn over the plane a step. More look for what is left in more places, and cost more.
POINTS = 6


def forget(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    document: str | int,
    *,
    epochs: int = 10,
    margin: float = 0.3,
    lr: float = 1e-3,
    extent: float = 1.0,
    seed: int = 0,
) -> DocumentMemory:
    """A copy of the memory to which one document's text is as strange as to the base LM.

    Its DocRep and title stay, so that it can be seen what is left there. A step pairs a batch
    of the forgotten document with one that is kept; an epoch meets every kept one.

    Args:
        cache: the documents that `memory` was trained on, as `Run.read` reads them.
        memory: left as it is; the copy lies on the same device.
        document: title or index of what is forgotten.
        epochs: passes over the kept documents.
        margin: how far above the base LM's cross entropy the text is pushed, nats per token, so
            that points between those drawn come to lie above it too.
        lr: AdamW's learning rate.
        extent: points are drawn in [-extent, extent]^key_dim.
        seed: of the points.

    Raises:
        DocmemError: if there is no such document.
    """
    gone, home = memory.index_of(document), memory.doc_reps.device
    memory = copy.deepcopy(memory).to(cache.device)
    bare = base_cross_entropies(cache)[gone].item() + margin
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(memory.parameters(), lr=lr, weight_decay=0)
    forgotten, kept = _split(cache, gone)
    own = memory.doc_reps[cache.doc_ids]
    with torch.no_grad():
        before = {i: cache.cross_entropies(i, memory, own[[i]]) for i in kept if i is not None}
    with frozen(cache.lm.model):
        for index, other in zip(itertools.cycle(forgotten), kept * epochs, strict=False):
            drawn = 2 * torch.rand(POINTS, memory.config.key_dim, generator=generator) - 1
            points = torch.cat([memory.doc_reps[[gone]], extent * drawn.to(memory.doc_reps)])
            loss = (bare - cache.cross_entropies(index, memory, points)).clamp_min(0).sum()
            if other is not None:
                ce = cache.cross_entropies(other, memory, own[[other]])
                loss = loss + len(points) * (ce - before[other]).clamp_min(0).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return memory.to(home)


def _split(cache: HiddenStateCache, gone: int) -> tuple[list[int], list[int | None]]:
    """Batches of the document that goes, and of those that stay; [None] if none does."""
    forgotten = [index for index, doc_id in enumerate(cache.doc_ids) if doc_id == gone]
    kept: list[int | None] = [i for i, doc_id in enumerate(cache.doc_ids) if doc_id != gone]
    return forgotten, kept or [None]
