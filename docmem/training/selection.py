"""What a memory learned: which entries a document opens, which entries its text asks for.

    token selection       mean k_tok over the document's own text
    document selection    k_doc = act_key(g(𝒦)) of its DocRep
    their product         what gets through

each (n_docs, memory_dim): documents down, memory entries across.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.errors import Count, DocmemError, check_index, checked
from docmem.lm.hidden_states import AddUp, HiddenStateCache


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

    @checked
    def strongest(
        self, count: Count
    ) -> tuple[Int[Tensor, "n_docs count"], Float[Tensor, " n_docs"]]:
        """The entries with the largest product for each document, and the share that they carry.

        The share is of the document's whole row, in size; 0 where that is 0.

        Raises:
            DocmemError: if there are not so many entries.
        """
        if count > self.token.shape[1]:
            raise DocmemError(f"count is {count}; this memory has {self.token.shape[1]} entries.")
        size, entries = self.product.abs().topk(count, dim=1)
        whole = self.product.abs().sum(1)
        return entries, size.sum(1) / whole.clamp_min(torch.finfo(whole.dtype).tiny)


@torch.no_grad()
def memory_selection(
    memory: DocumentMemory, cache: HiddenStateCache, add_up: AddUp | None = None
) -> Selection:
    """The token and document selections of a cache's documents; `add_up` as in `token_means`."""
    token = cache.token_means(
        memory.config.n_docs, lambda index: memory.token_keys(cache.states(index)), add_up
    )
    return Selection(token.float(), memory.select(memory.doc_reps).cpu())


@dataclass(frozen=True)
class Snapshots:
    """The selections of a run through training."""

    epochs: list[float]
    """After how many epochs each was taken; 0 is before training, 1.5 within the second."""
    token: Float[Tensor, "snapshots n_docs entries"]
    """Token selections."""
    document: Float[Tensor, "snapshots n_docs entries"]
    """Document selections."""
    doc_reps: Float[Tensor, "snapshots n_docs key_dim"]
    """DocReps."""

    def at(self, index: int) -> Selection:
        """One snapshot's selections; DocmemError if there is no such snapshot."""
        index = self._index(index)
        return Selection(self.token[index], self.document[index])

    def distance_correlation(self, index: int = -1) -> float:
        """Does closeness of DocReps go with likeness of selections?

        The correlation, over all pairs of documents, of the distance between their DocReps and
        the cosine between their document selections; not a number with fewer than three documents.
        """
        index = self._index(index)
        pairs = torch.ones(self.doc_reps.shape[1], self.doc_reps.shape[1]).triu(1).bool()
        if pairs.sum() < 2:
            return math.nan
        unit = torch.nn.functional.normalize(self.document[index], dim=1)
        distance = torch.cdist(self.doc_reps[index], self.doc_reps[index])
        both = torch.stack([distance[pairs], (unit @ unit.T)[pairs]])
        return torch.corrcoef(both)[0, 1].item()

    def _index(self, index: int) -> int:
        count = len(self.epochs)
        otherwise = f"There is no snapshot {index}: this run has {count},"
        return check_index("index", index, count, otherwise)
