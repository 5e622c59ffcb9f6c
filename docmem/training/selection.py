"""What a memory learned: which entries a document opens, which entries its text asks for.

    token selection       mean k_tok over the document's own text
    document selection    k_doc = act_key(g(𝒦)) of its DocRep
    their product         what gets through

each (n_docs, memory_dim): documents down, memory entries across.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.lm.hidden_states import HiddenStateCache


class Selection(NamedTuple):
    """A memory's selections at one moment."""

    token: Float[Tensor, "n_docs entries"]
    """Mean token key of each document's own text."""
    document: Float[Tensor, "n_docs entries"]
    """Document key of each DocRep."""

    @property
    def product(self) -> Float[Tensor, "n_docs entries"]:
        """Document selection × token selection."""
        return self.token * self.document


@torch.no_grad()
def memory_selection(memory: DocumentMemory, cache: HiddenStateCache) -> Selection:
    """The token and document selections of the documents that `cache` read."""
    sums = torch.zeros(memory.config.n_docs, memory.config.memory_dim)
    counts = torch.zeros(memory.config.n_docs, 1)
    for index, (doc_id, batch) in enumerate(zip(cache.doc_ids, cache.batches, strict=True)):
        keys = memory.token_keys(cache.states(index))  # (batch, seq, memory_dim)
        real = batch.attention_mask.to(keys.device)
        sums[doc_id] += keys[real].sum(0).cpu()
        counts[doc_id] += real.sum().cpu()
    return Selection(sums / counts.clamp_min(1), memory.select(memory.doc_reps).cpu())


@dataclass(frozen=True)
class Snapshots:
    """The selections of a run through training."""

    epochs: list[int]
    """After which epoch each was taken; 0 is before training."""
    token: Float[Tensor, "snapshots n_docs entries"]
    """Token selections."""
    document: Float[Tensor, "snapshots n_docs entries"]
    """Document selections."""
    doc_reps: Float[Tensor, "snapshots n_docs key_dim"]
    """DocReps."""

    def at(self, index: int) -> Selection:
        """One snapshot's selections."""
        return Selection(self.token[index], self.document[index])
