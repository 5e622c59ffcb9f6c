"""The limit: floating-point operations that no way of training can spare, and their least time.

For every predicted token (pads and each row's last token predict nothing) of the positive and the
negative pass, what follows the hooked block has to be run forward, and backward with regard to
activations; the LM is frozen, so its weights need no gradient. With V the vocabulary, d the width,
M the memory entries, and operations counted as two for a multiplication and addition:

    head        2·d·V forward, 2·d·V backward
    a block     2·(weights of its matrices) forward, as much backward
    attention   2·2·d a pair of a token and one it attends to, itself included; twice that backward
    memory      token key 2·d·M forward, once for both passes, and 2·d·M for its weights' gradient;
                from there W_o W_d, multiplied out or not, whichever is the cheaper:
                forward, activations' and weights' gradient of W_d (2·d·M each) and W_o (2·d·d
                each); or of their product (2·d·M each) and, once a step, 3 times 2·d·d·M

Element-wise operations, norms and the optimizer are not counted: the limit is below what can be
reached. Divided by the matmul rate measured in the same run it is the least time of an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.measure import median, seconds_of
from docmem.lm.forward import TokenBatch


class Work(NamedTuple):
    """Floating-point operations of an epoch that cannot be avoided."""

    head: float
    blocks: float
    attention: float
    memory: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


def predicted_lengths(batch: TokenBatch) -> list[int]:
    """Predicted tokens of each row."""
    return batch.predicted.sum(1).tolist()


def unavoidable(config: Any, layer: int, memory_dim: int, steps: Sequence[Sequence[int]]) -> Work:
    """The work of an epoch, from shapes alone (formulas of the module).

    Args:
        config: of a GPT-NeoX: widths, vocabulary, number of blocks.
        layer: index of the hooked block, from 0.
        memory_dim: memory entries M.
        steps: predicted tokens of each row, for each step of the epoch.
    """
    d, vocabulary = config.hidden_size, config.vocab_size
    suffix = config.num_hidden_layers - 1 - layer
    weights = 4 * d * d + 2 * d * config.intermediate_size
    tokens = sum(map(sum, steps))  # of one pass
    pairs = sum(length * (length + 1) // 2 for rows in steps for length in rows)
    memory = 0
    for rows in steps:
        both = 2 * sum(rows)
        apart = 3 * 2 * (d * memory_dim + d * d) * both
        product = 3 * 2 * d * memory_dim * both + 3 * 2 * d * d * memory_dim
        memory += 2 * 2 * d * memory_dim * sum(rows) + min(apart, product)
    return Work(
        head=2 * tokens * 2 * 2 * d * vocabulary,
        blocks=2 * tokens * suffix * 2 * 2 * weights,
        attention=2 * pairs * suffix * 3 * 2 * 2 * d,
        memory=memory,
    )


class MatmulRate:
    """The best rate of matrix multiplication, measured again and again through a comparison.

    Timed are the head's two products at both passes' tokens and at one pass's, and a square one,
    all into memory that is already there. In between nothing is kept on the device.

    Args:
        tokens: predicted tokens of a step, one pass.
        d_model: width of the LM.
        vocabulary: columns of its head.
        dtype: number format, as the LM's.
        device: as the LM's.
    """

    def __init__(
        self, tokens: int, d_model: int, vocabulary: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.dtype, self.device = dtype, device
        side = 1024 if device.type == "cpu" else 8192
        shapes = [(side, side, side)]
        for rows in (2 * tokens, tokens):
            shapes += [(rows, d_model, vocabulary), (rows, vocabulary, d_model)]
        self.rates: dict[str, list[float]] = {_product(shape): [] for shape in shapes}
        self._shapes = shapes

    def _rate(self, rows: int, inner: int, columns: int) -> float:
        """Operations a second of one product, warmed up, repeated for some 50 ms."""
        left = torch.randn(rows, inner, dtype=self.dtype, device=self.device)
        right = torch.randn(columns, inner, dtype=self.dtype, device=self.device).T
        into = torch.empty(rows, columns, dtype=self.dtype, device=self.device)

        def multiply(times: int) -> None:
            for _ in range(times):
                torch.mm(left, right, out=into)

        multiply(1)
        once = seconds_of(lambda: multiply(1))
        times = max(1, min(1000, round(0.05 / once)))
        return 2 * rows * inner * columns * times / seconds_of(lambda: multiply(times))

    def measure(self) -> None:
        """Time every product once more."""
        for shape in self._shapes:
            self.rates[_product(shape)].append(self._rate(*shape))

    @property
    def best(self) -> float:
        """The best product's median rate, operations a second."""
        return max(map(median, self.rates.values()))


def _product(shape: tuple[int, int, int]) -> str:
    """The name of a product."""
    rows, inner, columns = shape
    return f"({rows}, {inner}) · ({inner}, {columns})"
