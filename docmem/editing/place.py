"""Placing: DocReps that say what documents are about, from the LM's own hidden states.

    doc_reps = doc_reps_from_lm(cache, n_docs=10, key_dim=2)
    run = train(config, lm=lm, documents=documents, doc_reps=doc_reps)

The seed's orthogonal DocReps put documents anywhere. Here a document lies where the mean of the
hidden states that the memory reads lies among the other documents' means, seen along their first
principal components. Each column is centred and as long as those of the orthogonal DocReps, and
columns stay orthogonal to each other, so only the arrangement of the documents is new.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.errors import Count, DocmemError, checked, counted
from docmem.lm.forward import plain_arithmetic
from docmem.lm.hidden_states import HiddenStateCache

# A principal component this much smaller than the first is rounding, no direction.
ROUNDING = 1e-5


def mean_states(cache: HiddenStateCache, n_docs: int) -> Float[Tensor, "n_docs d_model"]:
    """The mean hidden state of each document's tokens, pads left out, on the CPU."""
    return cache.token_means(n_docs, cache.states)


@plain_arithmetic()
@checked
def doc_reps_from_lm(
    cache: HiddenStateCache, n_docs: Count, key_dim: Count
) -> Float[Tensor, "n_docs key_dim"]:
    """DocReps from the mean hidden states of the documents that `cache` read.

    The means are centred and projected on their first `key_dim` principal components; each
    column gets the norm √2. Of each column the entry that is largest in size is positive.

    Raises:
        DocmemError: if the documents' means do not span `key_dim` directions, or the cache reads
            other than `n_docs` documents.
    """
    if (read := set(cache.doc_ids)) != set(range(n_docs)):
        raise DocmemError(
            f"n_docs is {n_docs}, but the hidden-state cache reads {counted(len(read), 'document')}"
            f", numbered up to {max(read)}."
        )
    means = mean_states(cache, n_docs)
    scores, sizes, _ = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    directions = int((sizes > ROUNDING * sizes[0]).sum())
    if directions < key_dim:
        raise DocmemError(
            f"The mean hidden states of {n_docs} documents span {directions} directions, and a "
            f"key_dim of {key_dim} takes as many; give more documents, or a smaller key_dim."
        )
    columns = scores[:, :key_dim]
    largest = columns.gather(0, columns.abs().argmax(0)[None])
    return (math.sqrt(2) * columns * largest.sign()).float()
