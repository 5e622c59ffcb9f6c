"""Muon: matrices move by orthogonalised momentum, all else exactly as AdamW moves it."""

import pytest
import torch
from torch import nn

from docmem.training.muon import MOMENTUM, Muon, is_matrix, orthogonalized


def with_singular_values(rows: int, columns: int, values: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(rows, len(values)))
    right, _ = torch.linalg.qr(torch.randn(columns, len(values)))
    return left * values @ right.T


@pytest.mark.parametrize("shape", [(24, 64), (64, 24), (48, 48)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_orthogonalized_matrix_keeps_directions_and_levels_singular_values(
    shape: tuple[int, int], size: float
) -> None:
    values = torch.logspace(0, -1.4, min(shape))
    matrix = size * with_singular_values(*shape, values)
    made = orthogonalized(matrix)
    found = torch.linalg.svdvals(made)
    assert 0.72 < found.min() < found.max() < 1.28
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    cosine = (made * (left @ right)).sum() / made.norm() / (left @ right).norm()
    assert cosine > 0.98  # the polar factor's direction
    assert torch.equal(orthogonalized(torch.zeros(shape)), torch.zeros(shape))


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 5))


def descend(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    x = torch.linspace(-1, 1, 14).reshape(7, 2)
    for _ in range(steps):
        optimizer.zero_grad()
        (module(x) ** 2).sum().backward()
        optimizer.step()


def test_what_is_no_matrix_moves_as_adamw_moves_it() -> None:
    """Given the same gradients; the matrices are held still by a rate of almost nothing."""
    mine, theirs = net(), net()
    descend(mine, Muon(mine.parameters(), lr=1e-30, adamw_lr=1e-2, weight_decay=0.1), 5)
    rest = [parameter for parameter in theirs.parameters() if not is_matrix(parameter)]
    descend(theirs, torch.optim.AdamW(rest, lr=1e-2, weight_decay=0.1), 5)
    assert [is_matrix(parameter) for parameter in mine.parameters()] == [False] * 2 + [True, False]
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(mine[0].weight, net()[0].weight)


@pytest.mark.parametrize("shape", [(6, 24), (24, 6)])
def test_matrices_move_by_the_formula(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    bias = nn.Parameter(torch.zeros(3))
    optimizer = Muon([weight, bias], lr=0.05, adamw_lr=1e-3, weight_decay=0.2)
    expected, momentum = weight.detach().clone(), torch.zeros(shape)
    for _ in range(4):
        weight.grad = torch.randn(shape)
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * weight.grad
        ahead = MOMENTUM * momentum + (1 - MOMENTUM) * weight.grad
        step = max(1, shape[0] / shape[1]) ** 0.5 * orthogonalized(ahead)
        expected = (1 - 0.05 * 0.2) * expected - 0.05 * step
        optimizer.step()
        torch.testing.assert_close(weight.detach(), expected)


def test_parameters_without_a_gradient_stay() -> None:
    module = net()
    optimizer = Muon(module.parameters(), lr=0.05, adamw_lr=1e-2, weight_decay=0.1)
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    descend(module, optimizer, 1)
    assert torch.equal(module[0].weight, before)
    module[2].weight.grad = None
    still = module[2].weight.clone()
    optimizer.step()
    assert torch.equal(module[2].weight, still)
