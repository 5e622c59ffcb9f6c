"""Cross entropies per document: under DocReps, and by the base LM, in nats per token."""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.core.blocks import text_config
from docmem.core.memory import DocumentMemory
from docmem.lm.forward import forward_inputs
from docmem.lm.head import cross_entropy
from docmem.lm.hidden_states import Prefix

# Logits of about this many numbers at once: large enough for the matmul, small enough for a laptop.
LOGITS_AT_ONCE = 8_000_000


@torch.no_grad()
def by_document(
    prefix: Prefix, n_docs: int, read: Callable[[int], Float[Tensor, " readings"]]
) -> Float[Tensor, "n_docs readings"]:
    """Mean over each document's batches, by their predicted tokens, of what `read` says of one.

    Args:
        prefix: whose batches are read.
        n_docs: documents.
        read: from the index of a batch to its cross entropies, nats a token.
    """
    owners = torch.tensor(prefix.owners)
    ce = torch.stack([read(index).cpu() for index in range(len(owners))])
    counts = torch.stack([batch.predicted.sum().cpu() for batch in prefix.batches])[:, None]
    sums = torch.zeros(n_docs, ce.shape[1]).index_add_(0, owners, ce * counts)
    return sums / torch.zeros(n_docs, 1).index_add_(0, owners, counts.float())


def beside(prefix: Prefix, memory: DocumentMemory) -> DocumentMemory:
    """The memory where the prefix's hidden states are: itself, or a copy if it lies elsewhere."""
    if memory.doc_reps.device == prefix.device:
        return memory
    return copy.deepcopy(memory).to(prefix.device)


def cross_entropies_at(
    prefix: Prefix, memory: DocumentMemory, doc_reps: Float[Tensor, "points key_dim"]
) -> Float[Tensor, "n_docs points"]:
    """Cross entropy of each document of `prefix` under each DocRep, nats a token, on the CPU."""
    memory = beside(prefix, memory)
    vocabulary = text_config(prefix.lm.model).vocab_size

    def read(index: int) -> Tensor:
        at_once = max(1, LOGITS_AT_ONCE // (prefix.batches[index].input_ids.numel() * vocabulary))
        parts = doc_reps.split(at_once)
        return torch.cat([prefix.cross_entropies(index, memory, part) for part in parts])

    return by_document(prefix, memory.config.n_docs, read)


def bare_cross_entropies(prefix: Prefix) -> Float[Tensor, " owners"]:
    """Cross entropy of each document of `prefix` by the LM without memory, nats a token."""
    model = prefix.lm.model

    def read(index: int) -> Tensor:
        batch = prefix.batches[index]
        return cross_entropy(model(**forward_inputs(model, batch)).logits, batch)[None]

    return by_document(prefix, max(prefix.owners) + 1, read)[:, 0]
