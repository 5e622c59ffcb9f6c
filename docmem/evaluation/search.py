"""Search of the DocRep plane: the DocRep under which a text is most likely.

    found = search_grid(cache, memory)       # a map of the plane, refined around its lowest points
    found = search_descent(cache, memory)    # a coarse map, then gradient descent
    found.doc_reps[0], found.ce[0]           # where the first text is most likely, and how likely

Both begin with the lowest point of a map that holds every DocRep (`key_plane`).
"""

from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError, Natural, Positive, checked
from docmem.evaluation.plane import KeyPlane, key_plane, plane_of
from docmem.lm.cross_entropy import on_device_of
from docmem.lm.forward import plain_arithmetic
from docmem.lm.hidden_states import HiddenStateCache
from docmem.training.step import SCALE

# Points per side of each refinement: an odd number, so that the centre is among them.
FINE = 5


class Search(NamedTuple):
    """Where in the DocRep plane each text is most likely."""

    plane: KeyPlane
    """The map that the search began with: the cross entropy of each text over the plane."""
    points: Float[Tensor, "texts 2"]
    """The points found, across and up."""
    doc_reps: Float[Tensor, "texts key_dim"]
    """The same points as DocReps."""
    ce: Float[Tensor, " texts"]
    """Cross entropy of each text there, nats per token."""


@plain_arithmetic()
@checked
def search_grid(
    cache: HiddenStateCache, memory: DocumentMemory, *, points: int = 15, refinements: Natural = 3
) -> Search:
    """The lowest point of a map of points × points, then of finer maps around it.

    Each refinement reaches one step of the map before it to every side, at 5 × 5 points.

    Args:
        cache: the texts, one per batch.
        memory: left as it is.
        points: points per side of the first map.
        refinements: finer maps after it; 0 for none.

    Raises:
        DocmemError: if a text takes several batches, a number is too small, or as `plane_of`.
    """
    plane, found = _lowest_of_map(cache, memory, points)
    memory = on_device_of(cache, memory)
    origin, axes = plane_of(memory.doc_reps.cpu())
    across = torch.linspace(-1, 1, FINE)
    steps = torch.cartesian_prod(across, across)  # (FINE², 2)
    width = plane.axis[1] - plane.axis[0]
    with torch.no_grad():
        for _ in range(refinements):
            for index, point in enumerate(found):
                around = point + width * steps
                ce = cache.cross_entropies(index, memory, origin + around @ axes)
                found[index] = around[ce.argmin().item()]
            width = width * 2 / (FINE - 1)
    return _search(cache, memory, plane, found)


@plain_arithmetic()  # and so with gradients, also where the caller has turned them off
@checked
def search_descent(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    *,
    points: int = 7,
    steps: Natural = 15,
    lr: Positive = 0.05,
) -> Search:
    """Gradient descent (Adam) in the plane, from the lowest point of a map of points × points.

    Args:
        cache: the texts, one per batch.
        memory: left as it is.
        points: points per side of the map.
        steps: steps of Adam.
        lr: Adam's learning rate.

    Raises:
        DocmemError: if a text takes several batches, a number is too small, or as `plane_of`.
    """
    plane, found = _lowest_of_map(cache, memory, points)
    memory = on_device_of(cache, memory)
    origin, axes = plane_of(memory.doc_reps.cpu())
    for index, start in enumerate(found):
        point = start[None].clone().requires_grad_()
        optimizer = torch.optim.Adam([point], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            ce = cache.cross_entropies(index, memory, origin + point @ axes)[0]
            (ce * SCALE).backward(inputs=[point])
            point.grad = cast(Tensor, point.grad) / SCALE
            optimizer.step()
        found[index] = point.detach()[0]
    return _search(cache, memory, plane, found)


def _lowest_of_map(
    cache: HiddenStateCache, memory: DocumentMemory, points: int
) -> tuple[KeyPlane, Float[Tensor, "texts 2"]]:
    """A map of the plane as far as the DocReps reach, and its lowest point for each text."""
    if cache.doc_ids != list(range(len(cache.batches))):
        raise DocmemError(
            "The search reads one batch per text, and this hidden-state cache has several for "
            "one; make it with one batch per text."
        )
    plane = key_plane(cache, memory, points=points)
    lowest = plane.ce.flatten(1).argmin(1)  # [up, across] flattened
    return plane, torch.stack([plane.axis[lowest % points], plane.axis[lowest // points]], dim=1)


@torch.no_grad()
def _search(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    plane: KeyPlane,
    found: Float[Tensor, "texts 2"],
) -> Search:
    """Each text read at its point; `memory` lies on the cache's device."""
    origin, axes = plane_of(memory.doc_reps.cpu())
    doc_reps = origin + found @ axes
    ce = [cache.cross_entropies(i, memory, one[None]).cpu() for i, one in enumerate(doc_reps)]
    return Search(plane, found, doc_reps, torch.cat(ce))
