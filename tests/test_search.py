"""The search of the DocRep plane finds where a text is most likely."""

import copy
import dataclasses

import pytest
import torch

from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.evaluation.search import search_descent, search_grid
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

TEXTS = [
    "Two white flashes every twenty seconds",
    "Twenty-four brass columns held eighteen wheels each",
    "crossed the Brannic Sea in September",
    "the harbour master read nine hundred",
]
"""More texts than the memory holds documents."""


@pytest.fixture(scope="module")
def texts(trained: tuple[LanguageModel, Run]) -> tuple[HiddenStateCache, DocumentMemory]:
    """The texts, one per batch, and a memory that was trained on what they are from."""
    lm, run = trained
    batches = [lm.tokenize([text]) for text in TEXTS]
    return HiddenStateCache(lm, batches, range(len(TEXTS)), -1), run.load_memory()


def test_map_is_read_at_its_points(texts: tuple[HiddenStateCache, DocumentMemory]) -> None:
    cache, memory = texts
    found = search_grid(cache, memory, points=3, refinements=0)
    axis = found.plane.axis.tolist()
    grid = torch.tensor([(across, up) for up in axis for across in axis])
    expected = cross_entropies_at(cache, memory, grid)
    assert expected.shape == (len(TEXTS), 9)
    torch.testing.assert_close(found.plane.ce.flatten(1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.points, grid[expected.argmin(1)])
    torch.testing.assert_close(found.ce, expected.min(1).values, atol=1e-5, rtol=0)


def test_refinement_finds_lower_points(texts: tuple[HiddenStateCache, DocumentMemory]) -> None:
    cache, memory = texts
    coarse = search_grid(cache, memory, points=5, refinements=0)
    fine = search_grid(cache, memory, points=5, refinements=2)
    assert (fine.ce <= coarse.ce + 1e-5).all()
    assert (fine.ce < coarse.ce - 1e-3).any()
    # Two refinements reach a step, and then half of one.
    step = (coarse.plane.axis[1] - coarse.plane.axis[0]).item()
    assert (fine.points - coarse.points).abs().max() <= 1.5 * step + 1e-6
    at_points = cross_entropies_at(cache, memory, fine.doc_reps).diagonal()
    torch.testing.assert_close(fine.ce, at_points, atol=1e-5, rtol=0)


def test_descent_goes_down_from_the_lowest_point_of_the_map(
    texts: tuple[HiddenStateCache, DocumentMemory],
) -> None:
    cache, memory = texts
    before = {name: tensor.clone() for name, tensor in memory.state_dict().items()}
    starts = search_descent(cache, memory, points=3, steps=0)
    torch.testing.assert_close(
        starts.points, search_grid(cache, memory, points=3, refinements=0).points
    )
    ends = search_descent(cache, memory, points=3, steps=8)
    assert (ends.ce < starts.ce).all()
    assert all(torch.equal(before[name], now) for name, now in memory.state_dict().items())
    assert all(parameter.grad is None for parameter in memory.parameters())


def test_search_reaches_doc_reps_outside_the_square(
    texts: tuple[HiddenStateCache, DocumentMemory],
) -> None:
    cache, memory = texts
    far = copy.deepcopy(memory)
    far.doc_reps[1] = torch.tensor([0.5, 3.0])
    for search in (search_grid, search_descent):
        assert search(cache, far, points=3).plane.axis[-1] > 3


def test_search_needs_one_batch_per_text(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    with pytest.raises(DocmemError, match="one batch per text"):
        search_grid(run.cache_hidden_states(lm), run.load_memory())


def test_search_in_more_than_two_dimensions_stays_in_the_plane(
    texts: tuple[HiddenStateCache, DocumentMemory], trained: tuple[LanguageModel, Run]
) -> None:
    cache, _ = texts
    config = dataclasses.replace(trained[1].load_memory().config, key_dim=3)
    torch.manual_seed(0)
    memory = DocumentMemory(config)
    found = search_descent(cache, memory, points=3, steps=2)
    assert found.doc_reps.shape == (len(TEXTS), 3)
    expected = cross_entropies_at(cache, memory, found.doc_reps).diagonal()
    torch.testing.assert_close(found.ce, expected, atol=1e-5, rtol=0)
    plane = torch.cat([memory.doc_reps, found.doc_reps])  # three DocReps span the plane
    assert torch.linalg.matrix_rank((plane - plane[0])[1:], atol=1e-4) == 2
    halved = copy.deepcopy(memory).bfloat16()  # read in float32, as everywhere
    assert search_descent(cache, halved, points=3, steps=2).doc_reps.dtype == torch.float32
