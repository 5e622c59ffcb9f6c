"""The DocRep plane: how well each document is recalled from every point of it.

    plane = key_plane(cache, memory, points=25)
    plane.ce[3]               # cross entropy of document 3, nats per token, over the map
    line = along_line(cache, memory, memory.doc_reps[0], memory.doc_reps[4])

Each point of a grid or line is a DocRep, under which every document's text is read. Reading them
at points² DocReps costs points² · documents passes through what follows the memory, of which the
LM's head is the largest part. A map of more than 25 points per side is therefore measured coarse to
fine, and interpolated where that is enough (`docmem.evaluation.refinement`); it says where.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from docmem.core.memory import DocumentMemory
from docmem.editing.doc_reps import Reach, plane_extent
from docmem.errors import DocmemError, NotNegative, Several, as_doc_reps, checked, counted
from docmem.evaluation.refinement import Refined, refine
from docmem.lm.cross_entropy import (
    check_readable,
    cross_entropies_at,
    cross_entropies_of,
    on_device_of,
)
from docmem.lm.forward import plain_arithmetic
from docmem.lm.hidden_states import HiddenStateCache

# Largest error at a cell's centre, in nats per token, where a map is left to interpolation.
TOLERANCE = 0.05


class KeyPlane(NamedTuple):
    """Cross entropies over a square of the DocRep plane."""

    axis: Float[Tensor, " points"]
    """Coordinates of the grid, the same across and up."""
    ce: Float[Tensor, "texts points points"]
    """Cross entropy of each text at each point, nats per token: [text, up, across]."""
    doc_reps: Float[Tensor, "n_docs 2"]
    """The points of all documents."""
    measured: Bool[Tensor, "texts points points"] | None = None
    """Which values are measured, the others being interpolated; None: all."""
    error: Float[Tensor, ""] = torch.tensor(0.0)
    """The largest error of interpolation at points held out, over all documents, nats per token."""
    texts: Int[Tensor, " texts"] | None = None
    """Whose texts were read; None: those of all documents, in their order."""
    away: Float[Tensor, " n_docs"] | None = None
    """How far each DocRep lies from the plane, where its length is above 2: its point is the
    nearest one. None: all lie in the plane."""

    @property
    def documents(self) -> Int[Tensor, " texts"]:
        """The index of the document of each text."""
        return torch.arange(len(self.ce)) if self.texts is None else self.texts

    @property
    def alone(self) -> "KeyPlane":
        """The map with no DocReps but those of the documents whose texts were read."""
        away = None if self.away is None else self.away[self.documents]
        return self._replace(doc_reps=self.doc_reps[self.documents], texts=None, away=away)

    @checked
    def ce_of(self, document: int) -> Float[Tensor, "points points"]:
        """The map of one document, by its index.

        Raises:
            DocmemError: if there is no such document, or its text was not read.
        """
        rows = (self.documents == document).nonzero()
        if not len(rows):
            raise DocmemError(
                f"Document {document} is not in this map, which is of {len(self.ce)} of the "
                f"{len(self.doc_reps)}; take one of `plane.documents`."
            )
        return self.ce[int(rows[0])]

    def document_at(self, point: Sequence[float] | Tensor) -> int | None:
        """The index of the document that stands exactly at a point, if one does."""
        there = (self.doc_reps == as_doc_reps("point", point)).all(1).nonzero()
        return int(there[0]) if len(there) else None

    @property
    def readings(self) -> int:
        """How many values are measured, over all documents."""
        return self.ce.numel() if self.measured is None else int(self.measured.sum())

    @property
    def perplexity(self) -> Float[Tensor, "texts points points"]:
        """The exponential of the cross entropy."""
        return self.ce.exp()

    @property
    def nearest(self) -> Int[Tensor, "points points"]:
        """The document that each point recalls best."""
        return self.documents[self.ce.argmin(0)]

    @property
    def shares(self) -> Float[Tensor, " n_docs"]:
        """Share of the map on which each document is the one recalled best."""
        counts = torch.bincount(self.nearest.flatten(), minlength=len(self.doc_reps))
        return counts / self.nearest.numel()

    @checked
    def share_below(self, perplexity: Float[Tensor, " texts"]) -> Float[Tensor, " texts"]:
        """Share of the map on which each text's perplexity is below a limit of its own.

        Raises:
            DocmemError: if there is not one limit for each text.
        """
        if len(perplexity) != len(self.ce):
            raise DocmemError(f"{len(perplexity)} limits were given for {len(self.ce)} texts.")
        return (self.perplexity < perplexity[:, None, None]).float().mean((1, 2))


def plane_of(doc_reps: Float[Tensor, "n_docs key_dim"]) -> tuple[Tensor, Tensor]:
    """A plane through the DocReps: its origin (key_dim,) and two axes (2, key_dim).

    For key_dim 2 it is the DocRep space itself; beyond, the first two principal components.

    Raises:
        DocmemError: if key_dim is 1, which has no plane, or too few documents span one.
    """
    n_docs, key_dim = doc_reps.shape
    if key_dim == 2:
        return torch.zeros(2), torch.eye(2)
    if why := why_no_plane(n_docs, key_dim):
        raise DocmemError(why)
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=2, random_state=0).fit(doc_reps.numpy())
    return torch.as_tensor(fitted.mean_), torch.as_tensor(fitted.components_)


def why_no_plane(n_docs: int, key_dim: int) -> str:
    """Why so many DocReps of such a length span no plane, in a sentence; empty if they do."""
    if key_dim == 2 or min(n_docs, key_dim) > 1:
        return ""
    return (
        f"{counted(n_docs, 'DocRep')} of length {key_dim} cannot span a plane; it takes a "
        "key_dim of 2, or a larger one and two documents."
    )


@plain_arithmetic()
@checked
def key_plane(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    *,
    points: Several = 25,
    extent: Reach | None = None,
    tolerance: NotNegative = TOLERANCE,
    texts: Int[Tensor, " texts"] | None = None,
    progress: bool = False,
) -> KeyPlane:
    """A map of a square of the DocRep plane at points × points DocReps.

    Args:
        cache: the texts that are read at each point.
        memory: the memory; left where it is.
        points: grid points per side.
        extent: the square is [-extent, extent]²; None: `plane_extent`, which holds every DocRep.
        tolerance: largest error, in nats per token, that is left to interpolation in maps of more
            than 25 points per side, as `refine` says; 0: every point is measured.
        texts: the documents whose texts these are; None: they count from 0, as `cache` reads them.
        progress: show a bar.

    Raises:
        DocmemError: as `plane_of`; or if an argument cannot be, or `cache` reads the memory's
            documents in another order, or `texts` are others than it reads.
    """
    check_readable(cache, memory, texts)
    memory = on_device_of(cache, memory)
    origin, axes = plane_of(memory.doc_reps.cpu())
    doc_reps = (memory.doc_reps.cpu() - origin) @ axes.T  # (n_docs, 2)
    reach = plane_extent(doc_reps) if extent is None else extent
    axis = torch.linspace(-reach, reach, points)
    width = 2 * reach / (points - 1)

    def document(index: int) -> Refined:
        def read(places: Int[Tensor, "asked 2"]) -> Float[Tensor, " asked"]:
            coordinates = width * places.flip(1) - reach  # (asked, 2): across, up
            return cross_entropies_of(cache, memory, index, origin + coordinates @ axes)

        return refine(read, points, tolerance)

    documents = range(max(cache.doc_ids) + 1)
    bar = tqdm(documents, desc="key plane", unit="document", disable=not progress)
    ce, measured, errors = zip(*(document(index) for index in bar), strict=True)
    error = torch.tensor(max(errors))
    if texts is None:
        texts = torch.arange(len(ce))
    away = None
    if memory.config.key_dim > 2:
        away = (memory.doc_reps.cpu() - origin - doc_reps @ axes).norm(dim=1)
    return KeyPlane(axis, torch.stack(ce), doc_reps, torch.stack(measured), error, texts, away)


class Line(NamedTuple):
    """Cross entropies along a straight line between two DocReps."""

    share: Float[Tensor, " points"]
    """How far along: 0 at the start, 1 at the end."""
    ce: Float[Tensor, "n_docs points"]
    """Cross entropy of each document at each point, nats per token."""

    @property
    def perplexity(self) -> Float[Tensor, "n_docs points"]:
        """The exponential of the cross entropy."""
        return self.ce.exp()

    @property
    def nearest(self) -> Int[Tensor, " points"]:
        """The document that each point recalls best."""
        return self.ce.argmin(0)


@plain_arithmetic()
@checked
def along_line(
    cache: HiddenStateCache, memory: DocumentMemory, start: Any, end: Any, points: Several = 41
) -> Line:
    """Read every document of `cache` at `points` DocReps on the line from `start` to `end`.

    Both are DocReps (key_dim,): tensors, arrays or lists.

    Raises:
        DocmemError: if one is no DocRep of this memory, or there are fewer than two points.
    """
    check_readable(cache, memory)
    start, end = (as_doc_reps("start or end", one).cpu().float() for one in (start, end))
    for one in (start, end):
        if one.shape != memory.doc_reps.shape[1:]:
            raise DocmemError(
                f"A DocRep of this memory has shape ({memory.config.key_dim},), "
                f"not {tuple(one.shape)}."
            )
    share = torch.linspace(0, 1, points)
    doc_reps = torch.lerp(start, end, share[:, None])
    return Line(share, cross_entropies_at(cache, memory, doc_reps))
