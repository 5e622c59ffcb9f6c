"""A smooth function on a square grid, measured coarse to fine and interpolated between.

    found = refine(read, points=61, tolerance=0.05)
    found.values, found.measured, found.error

A coarse grid of some eight cells per side is measured. Then cubic interpolation predicts the centre
of each cell, and the centre is measured as well. Where the two differ by more than the tolerance,
the edges of the cell and of its neighbours are measured too, and their quarters are treated in the
same way. All other points are interpolated. Last, some of these are measured after all: `error` is
the largest difference there.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d

# Grid points per side up to which all of them are measured.
WHOLE = 25
# Cells per side of the coarse grid, at least; there are less than twice as many.
COARSE = 7
# Interpolated points that are measured in the end.
HELD_OUT = 16


class Refined(NamedTuple):
    """A function on a grid."""

    values: Float[Tensor, "points points"]
    """Its values."""
    measured: Bool[Tensor, "points points"]
    """Where they are measured; elsewhere they are interpolated."""
    error: float
    """The largest error of interpolation at points held out; 0 if all are measured."""


def refine(
    read: Callable[[Int[Tensor, "asked 2"]], Float[Tensor, " asked"]], points: int, tolerance: float
) -> Refined:
    """Measure a function on a grid of points × points, and interpolate where that is enough.

    With a tolerance of 0, or with at most 25 points per side, every point is measured.

    Args:
        read: takes grid points, each as its row and column, and returns the values there. Rows and
            columns may lie beyond the grid by less than a coarse cell, where that does not divide
            the grid: the function goes on there.
        points: grid points per side.
        tolerance: largest difference at the centre of a cell that is left to interpolation.
    """
    step = 1
    while tolerance > 0 and points > WHOLE and points - 1 >= 2 * step * COARSE:
        step *= 2
    side = -(-(points - 1) // step)  # coarse cells
    values = torch.zeros(side * step + 1, side * step + 1)
    measured = torch.zeros_like(values, dtype=torch.bool)

    def measure(level: Bool[Tensor, "side side"], step: int) -> None:
        """Measure the grid points that a mask of every step-th one names."""
        mask = torch.zeros_like(measured)
        mask[::step, ::step] = level
        mask &= ~measured
        if mask.any():
            values[mask] = read(mask.nonzero())
            measured.logical_or_(mask)

    measure(torch.ones(side + 1, side + 1, dtype=torch.bool), step)
    rough = torch.ones(side, side, dtype=torch.bool)  # the cells that are still to be looked at
    while step > 1:
        predicted = midpoints(values[::step, ::step])  # at every (step / 2)-th grid point
        step //= 2
        level, asked = values[::step, ::step], torch.zeros_like(predicted, dtype=torch.bool)
        asked[1::2, 1::2] = rough
        measure(asked, step)
        missed = (predicted - level).abs()[1::2, 1::2] > tolerance
        rough = max_pool2d((rough & missed).float()[None], 3, 1, 1)[0] > 0  # with all neighbours
        asked[1::2, 1::2] = rough
        for edge in (asked[:-1:2, 1::2], asked[2::2, 1::2], asked[1::2, :-1:2], asked[1::2, 2::2]):
            edge |= rough
        measure(asked, step)
        level.copy_(predicted.where(~measured[::step, ::step], level))
        rough = rough.repeat_interleave(2, 0).repeat_interleave(2, 1)

    interpolated = (~measured[:points, :points]).nonzero()
    order = torch.randperm(len(interpolated), generator=torch.Generator().manual_seed(0))
    held_out = torch.zeros_like(measured)
    held_out[tuple(interpolated[order[:HELD_OUT]].T)] = True
    before = values[held_out]
    measure(held_out, 1)
    error = (values[held_out] - before).abs()
    inside = (slice(points), slice(points))
    return Refined(values[inside], measured[inside], error.max().item() if len(error) else 0.0)


def midpoints(values: Float[Tensor, "side side"]) -> Float[Tensor, "finer finer"]:
    """A grid with the points halfway between those given, by cubic interpolation: 2 side - 1.

    Each new value is that of the cubic through the four nearest given ones on its line; where there
    are fewer than four, the mean of two.
    """

    def down(given: Tensor) -> Tensor:
        between = (given[1:] + given[:-1]) / 2
        if len(given) > 3:
            between[1:-1] = (9 * (given[1:-2] + given[2:-1]) - given[:-3] - given[3:]) / 16
            for at, end in ((0, given), (-1, given.flip(0))):
                between[at] = (5 * end[0] + 15 * end[1] - 5 * end[2] + end[3]) / 16
        finer = given.new_empty(2 * len(given) - 1, given.shape[1])
        finer[::2], finer[1::2] = given, between
        return finer

    return down(down(values).T).T
