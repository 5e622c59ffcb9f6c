"""The DocRep plane: how well each document is recalled from every point of it.

    plane = key_plane(prefix, memory, points=25)
    plane.ce[3]               # cross entropy of document 3, nats a token, over the map
    line = along_line(prefix, memory, memory.doc_reps[0], memory.doc_reps[4])
    continuity(prefix, memory).bound      # no selection changes faster than this

Every value is measured: each point of a grid or line is a DocRep, under which every document's
text is read. Cost: points² · documents readings of the suffix for a plane.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from docmem.files import DocmemError
from docmem.loss import cross_entropy
from docmem.memory import DocumentMemory
from docmem.models import forward_inputs, text_config
from docmem.replay import Prefix

# Logits of about this many numbers at once: large enough for the matmul, small enough for a laptop.
LOGITS_AT_ONCE = 8_000_000

# The steepest slope of an activation.
SLOPES = {"relu": 1.0, "tanh": 1.0, "sigmoid": 0.25, "linear": 1.0}


class KeyPlane(NamedTuple):
    """Cross entropies over a square of the DocRep plane."""

    axis: Float[Tensor, " points"]
    """Coordinates of the grid, the same across and up."""
    ce: Float[Tensor, "n_docs points points"]
    """Cross entropy of each document at each point, nats a token: [document, up, across]."""
    doc_reps: Float[Tensor, "n_docs 2"]
    """The documents' own points."""

    @property
    def perplexity(self) -> Float[Tensor, "n_docs points points"]:
        """The exponential of the cross entropy."""
        return self.ce.exp()

    @property
    def nearest(self) -> Int[Tensor, "points points"]:
        """The document that each point recalls best."""
        return self.ce.argmin(0)


def plane_of(doc_reps: Float[Tensor, "n_docs key_dim"]) -> tuple[Tensor, Tensor]:
    """A plane through the DocReps: its origin (key_dim,) and two axes (2, key_dim).

    For key_dim 2 it is the DocRep space itself; beyond, the first two principal components.

    Raises:
        DocmemError: if key_dim is 1, which has no plane, or too few documents span one.
    """
    n_docs, key_dim = doc_reps.shape
    if key_dim == 2:
        return torch.zeros(2), torch.eye(2)
    if min(n_docs, key_dim) < 2:
        raise DocmemError(
            f"{n_docs} DocReps of length {key_dim} span no plane; "
            "it takes two documents and a key_dim of 2 or more."
        )
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=2).fit(doc_reps.numpy())
    as_tensor = torch.from_numpy
    return as_tensor(np.asarray(fitted.mean_)), as_tensor(np.asarray(fitted.components_))


def reach(points: Float[Tensor, "n_docs axes"]) -> float:
    """How far a map extends from the origin: to 1, or a little beyond the furthest point."""
    return max(1.0, 1.08 * points.abs().max().item())


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


def key_plane(
    prefix: Prefix,
    memory: DocumentMemory,
    *,
    points: int = 25,
    extent: float = 1.0,
    progress: bool = False,
) -> KeyPlane:
    """Measure the square [-extent, extent]² of the DocRep plane at points × points DocReps.

    Raises:
        DocmemError: as `plane_of`.
    """
    doc_reps = memory.doc_reps.cpu()
    memory = beside(prefix, memory)
    origin, axes = plane_of(doc_reps)
    axis = torch.linspace(-extent, extent, points)
    rows = []
    for up in tqdm(axis.tolist(), desc="key plane", unit="row", disable=not progress):
        coordinates = torch.stack([axis, torch.full_like(axis, up)], dim=1)  # (points, 2)
        rows.append(cross_entropies_at(prefix, memory, origin + coordinates @ axes))
    return KeyPlane(axis, torch.stack(rows, dim=1), (doc_reps - origin) @ axes.T)


class Line(NamedTuple):
    """Cross entropies along a straight line between two DocReps."""

    share: Float[Tensor, " points"]
    """How far along: 0 at the start, 1 at the end."""
    ce: Float[Tensor, "n_docs points"]
    """Cross entropy of each document at each point, nats a token."""

    @property
    def perplexity(self) -> Float[Tensor, "n_docs points"]:
        """The exponential of the cross entropy."""
        return self.ce.exp()

    @property
    def nearest(self) -> Int[Tensor, " points"]:
        """The document that each point recalls best."""
        return self.ce.argmin(0)


def along_line(
    prefix: Prefix,
    memory: DocumentMemory,
    start: Float[Tensor, " key_dim"],
    end: Float[Tensor, " key_dim"],
    points: int = 41,
) -> Line:
    """Read every document of `prefix` at `points` DocReps on the line from `start` to `end`."""
    share = torch.linspace(0, 1, points)
    doc_reps = torch.lerp(start.cpu(), end.cpu(), share[:, None])
    return Line(share, cross_entropies_at(prefix, memory, doc_reps))


class Continuity(NamedTuple):
    """What changes when a DocRep moves: pairs of DocReps, and what is read at both."""

    distance: Float[Tensor, " pairs"]
    """Between the two DocReps."""
    selection: Float[Tensor, " pairs"]
    """Between their memory selections, in the L2 norm."""
    ce: Float[Tensor, "n_docs pairs"]
    """Between each document's cross entropies, nats a token."""
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
    bound = 1.0
    for activation in (config.key_activation, *inside):
        if activation not in SLOPES:
            return None
        bound *= SLOPES[activation]
    for linear in linears:
        bound *= torch.linalg.matrix_norm(linear.weight.detach(), 2).item()
    return bound


@torch.no_grad()
def continuity(
    prefix: Prefix, memory: DocumentMemory, *, pairs: int = 100, extent: float = 1.0, seed: int = 0
) -> Continuity:
    """Move DocReps in random directions, by 0.001 to 1, and measure what changes.

    The first of each pair lies anywhere in [-extent, extent]^key_dim; the distances are spread
    evenly on a logarithmic scale.
    """
    generator = torch.Generator().manual_seed(seed)
    key_dim = memory.config.key_dim
    first = extent * (2 * torch.rand(pairs, key_dim, generator=generator) - 1)
    direction = torch.randn(pairs, key_dim, generator=generator)
    distance = torch.logspace(-3, 0, pairs)
    second = first + distance[:, None] * direction / direction.norm(dim=1, keepdim=True)
    both = torch.cat([first, second])
    selections = memory.select(both.to(memory.doc_reps)).cpu()
    ce = cross_entropies_at(prefix, memory, both)
    return Continuity(
        distance,
        (selections[pairs:] - selections[:pairs]).norm(dim=1),
        (ce[:, pairs:] - ce[:, :pairs]).abs(),
        selection_bound(memory),
    )
