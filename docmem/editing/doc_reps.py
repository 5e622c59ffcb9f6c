"""DocReps appended, dropped, how far they reach, and the place farthest from all of them.

Nothing is trained here: these change which vectors call a document, not what the weights hold.
"""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError, check_index, check_positive, check_titles, checked
from docmem.lm.forward import plain_arithmetic
from docmem.training.origin import changed

Reach = Annotated[float, functools.partial(check_positive, most=1e18)]
"""How far a map reaches: float32 has room for what the memory makes of it."""
# Places tried for a new DocRep.
TRIED = 10_000


def plane_extent(points: Float[Tensor, "n_docs axes"]) -> float:
    """How far a map extends from the origin: to 1, or a little beyond the farthest point."""
    return max(1.0, 1.08 * points.abs().max().item())


@plain_arithmetic()
@checked
def append_doc_rep(memory: DocumentMemory, title: str | None = None) -> DocumentMemory:
    """A copy of the memory with one more DocRep, where it is farthest from all; nothing is trained.

    Raises:
        DocmemError: if the title is missing, not wanted or taken.
    """
    if (title is None) != (memory.titles is None):
        raise DocmemError(
            "This memory calls its documents by title; give the new one a title too."
            if title is None
            else f"This memory has no titles, so none can be {title!r}; leave the title out."
        )
    larger = copy.deepcopy(memory)
    larger.config = dataclasses.replace(memory.config, n_docs=memory.config.n_docs + 1)
    larger.doc_reps = torch.cat([memory.doc_reps, farthest_free_doc_rep(memory.doc_reps)[None]])
    larger.origin = changed(memory.origin, [*memory.origin.get("documents", []), None])
    if memory.titles is not None and title is not None:
        larger.titles = [*memory.titles, title]
        check_titles(larger.titles)
    return larger


def farthest_free_doc_rep(doc_reps: Float[Tensor, "n_docs key_dim"]) -> Float[Tensor, " key_dim"]:
    """The place whose nearest DocRep is farthest, no farther out than the farthest DocRep.

    Where all lie at the origin, no farther out than 1. It is the best of many places drawn evenly
    within that distance, always the same ones.
    """
    key_dim = doc_reps.shape[1]
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(TRIED, key_dim, generator=generator, device="cpu")
    direction /= direction.norm(dim=1, keepdim=True)
    out = torch.rand(TRIED, 1, generator=generator, device="cpu") ** (1 / key_dim)
    known = doc_reps.cpu().float()
    places = (known.norm(dim=1).max().item() or 1.0) * out * direction
    return places[torch.cdist(places, known).min(1).values.argmax()].to(doc_reps)


@checked
def drop_doc_rep(memory: DocumentMemory, document: str | int) -> DocumentMemory:
    """A copy of the memory that cannot call a document: its DocRep and title are gone.

    This is not forgetting. The other weights stay, so whoever gives the same point of the plane
    still reads the text there.

    Raises:
        DocmemError: if there is no such document, or no other.
    """
    index = memory.index_of(document)
    if memory.config.n_docs == 1:
        raise DocmemError("This memory holds one document; without it there is none to call.")
    return keep_doc_reps(memory, [n for n in range(memory.config.n_docs) if n != index])


@checked
def keep_doc_reps(memory: DocumentMemory, kept: Sequence[int]) -> DocumentMemory:
    """A copy of the memory that can call these documents only, in this order, by their indices.

    Raises:
        DocmemError: if there is no such document, one is named twice, or none is.
    """
    n_docs = memory.config.n_docs
    otherwise = f"kept names a document that is not there: this memory holds {n_docs},"
    kept = [check_index("kept", index, n_docs, otherwise) for index in kept]
    if not kept or len(set(kept)) < len(kept):
        raise DocmemError(f"kept is {kept}; name at least one document, and each once.")
    smaller = copy.deepcopy(memory)
    smaller.config = dataclasses.replace(memory.config, n_docs=len(kept))
    smaller.doc_reps = memory.doc_reps[kept]
    texts = memory.origin.get("documents", [])
    smaller.origin = changed(memory.origin, [texts[index] for index in kept] if texts else [])
    if memory.titles is not None:
        smaller.titles = [memory.titles[index] for index in kept]
    return smaller
