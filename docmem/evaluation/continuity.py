"""Continuity: near DocReps select near memories, and perplexity changes smoothly.

continuity(cache, memory).bound      # no selection changes faster than this
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from docmem.core.memory import DocumentMemory
from docmem.editing.doc_reps import Reach, plane_extent
from docmem.errors import Count, Natural, checked
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.forward import plain_arithmetic
from docmem.lm.hidden_states import HiddenStateCache

# The steepest slope of an activation.
SLOPES = {"relu": 1.0, "tanh": 1.0, "sigmoid": 0.25, "linear": 1.0}


class Continuity(NamedTuple):
    """What changes when a DocRep moves: pairs of DocReps, and what is read at both."""

    distance: Float[Tensor, " pairs"]
    """Between the two DocReps."""
    selection: Float[Tensor, " pairs"]
    """Between their memory selections, in the L2 norm."""
    ce: Float[Tensor, "n_docs pairs"]
    """Between each document's cross entropies, nats per token."""
    bound: float | None
    """No selection changes more than this, a unit of distance; None where no bound is known."""


def selection_bound(memory: DocumentMemory) -> float | None:
    """A Lipschitz constant of k_doc = act_key(g(𝒦)): it changes by no more a unit of distance.

    The steepest slope of each activation times the largest singular value of each Linear. None
    for an activation whose slope is not listed.
    """
    config = memory.config
    linears = [part for part in memory.document_key.modules() if isinstance(part, nn.Linear)]
    inside = [config.key_internal_activation or "relu"] * (len(linears) - 1)
    activations = [config.key_activation, *inside]
    if not SLOPES.keys() >= {*activations}:
        return None
    norms = [torch.linalg.matrix_norm(one.weight.detach().float(), 2).item() for one in linears]
    return math.prod([*(SLOPES[one] for one in activations), *norms])


@plain_arithmetic()
@torch.no_grad()
@checked
def continuity(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    *,
    pairs: Count = 100,
    extent: Reach | None = None,
    seed: Natural = 0,
) -> Continuity:
    """Move DocReps in random directions, by 0.001 to 1, and measure what changes.

    The first of each pair lies anywhere in [-extent, extent]^key_dim (None: `plane_extent`); the
    distances are spread evenly on a logarithmic scale.
    """
    generator = torch.Generator().manual_seed(seed)
    key_dim = memory.config.key_dim
    reach = plane_extent(memory.doc_reps) if extent is None else extent
    first = reach * (2 * torch.rand(pairs, key_dim, generator=generator, device="cpu") - 1)
    direction = torch.randn(pairs, key_dim, generator=generator, device="cpu")
    distance = torch.logspace(-3, 0, pairs)
    second = first + distance[:, None] * direction / direction.norm(dim=1, keepdim=True)
    both = torch.cat([first, second])
    selections = memory.select(both.to(memory.doc_reps)).cpu()
    ce = cross_entropies_at(cache, memory, both)
    return Continuity(
        distance,
        (selections[pairs:] - selections[:pairs]).norm(dim=1),
        (ce[:, pairs:] - ce[:, :pairs]).abs(),
        selection_bound(memory),
    )
