"""A smooth function measured coarse to fine: exact where measured, close elsewhere."""

import pytest
import torch

from docmem.evaluation.refinement import HELD_OUT, midpoints, refine


def grid(points: int) -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.linspace(-1, 1, points)
    return torch.meshgrid(axis, axis, indexing="ij")


def test_midpoints_continue_cubics_exactly() -> None:
    def cubic(points: int) -> torch.Tensor:
        up, across = grid(points)
        return up**3 - 2 * across**3 + up**2 * across - 3 * across + 1

    torch.testing.assert_close(midpoints(cubic(6)), cubic(11), atol=1e-5, rtol=0)
    assert torch.equal(midpoints(cubic(6))[::2, ::2], cubic(6))


def test_a_smooth_function_is_interpolated_and_a_steep_place_is_measured() -> None:
    up, across = grid(61)
    true = up + torch.tanh(30 * (across - 0.2)).where(up > 0.4, across)
    asked = torch.zeros(61, 61)

    def read(places: torch.Tensor) -> torch.Tensor:
        inside = places[(places < 61).all(1)]
        asked[tuple(inside.T)] += 1
        return true[tuple(places.clamp_max(60).T)]

    found = refine(read, 61, 0.05)
    assert torch.equal(asked, found.measured.float())  # nothing is measured twice
    assert torch.equal(found.values[found.measured], true[found.measured])
    assert found.measured[::8, ::8].all() and found.measured[4::8, 4::8].all()
    share = found.measured.float()
    steep = (up > 0.4) & ((across - 0.2).abs() < 0.1)
    assert share[steep].mean() > 0.9 and share[up < 0.2].mean() < 0.2
    assert (found.values - true).abs().max() < 3 * 0.05


def test_error_is_the_largest_at_the_points_held_out() -> None:
    up, across = grid(41)
    true, calls = torch.sin(3 * up) * torch.cos(5 * across), []

    def read(places: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(places.T))
        return true[calls[-1]]

    found = refine(read, 41, 1.0)
    assert len(calls[-1][0]) == HELD_OUT
    predicted = midpoints(true[::4, ::4])
    predicted[1::2, 1::2] = true[2::4, 2::4]  # the centres, measured on the way
    expected = (midpoints(predicted) - true)[calls[-1]].abs().max().item()
    assert found.error == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("points", [26, 30, 41, 50, 57, 61, 121])
def test_grids_of_every_size_are_interpolated_closely(points: int) -> None:
    def value(places: torch.Tensor) -> torch.Tensor:
        up, across = (2 * places / (points - 1) - 1).T
        return torch.sin(3 * up) * torch.cos(2 * across) + up

    found = refine(value, points, 0.05)
    everywhere = torch.cartesian_prod(torch.arange(points), torch.arange(points))
    true = value(everywhere).view(points, points)
    assert found.values.shape == found.measured.shape == true.shape
    assert (found.values - true).abs().max() < 0.05
    assert found.measured.sum() < 15**2 + 14**2 + HELD_OUT + 1


@pytest.mark.parametrize(("points", "tolerance"), [(2, 0.05), (25, 0.05), (61, 0.0)])
def test_small_grids_and_no_tolerance_are_measured_whole(points: int, tolerance: float) -> None:
    true = torch.rand(points, points)
    found = refine(lambda places: true[tuple(places.T)], points, tolerance)
    assert found.measured.all() and torch.equal(found.values, true) and found.error == 0
