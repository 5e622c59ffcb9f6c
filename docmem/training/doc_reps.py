"""Where the DocReps of a new memory lie: orthogonal, as in the paper, or spread evenly.

In the plane the rows of an orthogonal matrix put some documents nearly at the same point, and such
a pair leaks: one is half known under the other's DocRep. `spread_doc_reps` puts documents as far
from each other as a disk has room for (a ball, beyond two dimensions).
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

RADIUS = 0.9
# Moves that push the points apart, and their size at first, as a share of a neighbour's distance.
MOVES, SIZE = 300, 0.2
# A push falls with this power of the distance, so that the nearest neighbours count most.
POWER = 12
# More points than this are left where they start, which is even enough: all pairs cost too much.
PUSHED = 300


def spread_doc_reps(n_docs: int, key_dim: int, seed: int) -> Float[Tensor, "n_docs key_dim"]:
    """DocReps spread evenly in a ball of radius 0.9, always alike, turned by the seed.

    The points push each other apart, and the origin pushes them at half the distance: with a
    DocRep of zeros, tanh and relu open no entry before training.
    """
    points = _even(n_docs, key_dim)
    if n_docs <= PUSHED:
        for move in range(MOVES):
            points = _pushed_apart(points, SIZE * (1 - move / MOVES))
    turn = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(key_dim, key_dim, generator=turn, dtype=torch.float64))
    return (RADIUS * torch.from_numpy(points) @ axes).float()


def _even(count: int, dimensions: int) -> Float[np.ndarray, "count dimensions"]:
    """Points evenly in the unit ball: in the plane, as the seeds of a sunflower."""
    share = (np.arange(count)[:, None] + 0.5) / count
    if dimensions == 2:
        angle = np.arange(count) * math.pi * (3 - math.sqrt(5))
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        sobol = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=0)
        inside = sobol.draw(count, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        direction = torch.special.ndtri(inside).numpy()
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * share ** (1 / dimensions)


def _pushed_apart(
    points: Float[np.ndarray, "count dimensions"], size: float
) -> Float[np.ndarray, "count dimensions"]:
    """The points, each moved away from the others and the origin, within the unit ball."""
    away = points[:, None] - np.concatenate([points, 0 * points[:1]])
    away[:, -1] *= 2  # the origin's push
    distance = np.linalg.norm(away, axis=2) + 1e-9
    np.fill_diagonal(distance, np.inf)  # no point pushes itself
    nearest = distance.min(1, keepdims=True)
    push = (((nearest / distance) ** POWER / distance)[..., None] * away).sum(1)
    push /= np.linalg.norm(push, axis=1, keepdims=True) + 1e-9
    moved = points + size * nearest * push
    return moved / np.maximum(1, np.linalg.norm(moved, axis=1, keepdims=True))
