"""Spread DocReps: as far apart as a disk has room for, always alike, turned by the seed."""

import math

import pytest
import torch

from docmem.training.doc_reps import PUSHED, RADIUS, spread_doc_reps


def nearest(doc_reps: torch.Tensor) -> torch.Tensor:
    """Each DocRep's distance to the nearest other."""
    distance = torch.cdist(doc_reps, doc_reps)
    return distance.fill_diagonal_(math.inf).min(1).values


def test_nearest_two_of_ten_in_the_plane_are_six_tenths_apart() -> None:
    assert nearest(spread_doc_reps(10, 2, 1)).min() > 0.6
    worst = max(
        nearest(torch.nn.init.orthogonal_(torch.empty(10, 2), gain=math.sqrt(2))).min().item()
        for _ in range(20)
    )
    assert worst < 0.5  # orthogonal ones are nearer to each other, whatever the seed


@pytest.mark.parametrize("key_dim", [1, 2, 3, 8])
@pytest.mark.parametrize("n_docs", [1, 2, 7, 19, 60, PUSHED + 1, 2000])
def test_places_fill_the_ball_evenly_and_keep_off_the_origin(n_docs: int, key_dim: int) -> None:
    places = spread_doc_reps(n_docs, key_dim, 1)
    assert places.shape == (n_docs, key_dim)
    assert places.isfinite().all()
    assert places.norm(dim=1).max() <= RADIUS + 1e-6
    if n_docs <= PUSHED:
        assert places.norm(dim=1).max() > 0.99 * RADIUS
    # A cell of the ball's volume for each point, as wide as this:
    cell = 2 * RADIUS * n_docs ** (-1 / key_dim)
    assert places.norm(dim=1).min() > 0.2 * cell
    if n_docs > 1 and key_dim == 2:
        assert nearest(places).min() > 0.6 * cell


def test_seed_turns_the_places_and_changes_nothing_else() -> None:
    first, second = spread_doc_reps(10, 2, 1), spread_doc_reps(10, 2, 2)
    assert torch.equal(first, spread_doc_reps(10, 2, 1))
    assert not torch.allclose(first, second, atol=0.1)
    torch.testing.assert_close(
        torch.cdist(first, first), torch.cdist(second, second), atol=1e-5, rtol=0
    )
