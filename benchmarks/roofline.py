"""A lower bound on the FLOPs per epoch, and the least time that they take on this hardware.

Every predicted token (pads and each row's last token predict nothing) of the positive and the
negative pass goes through all that follows the hooked block: forward, and backward to the
activations; the LM is frozen, so its weights need no gradient. With V the vocabulary, d the width,
M the memory entries, and two FLOPs for a multiplication and addition:

    head        2·d·V forward, 2·d·V backward
    a block     2·(weights of its matrices) forward, as much backward
    attention   2·2·d per pair of a token and one that it attends to, or itself; backward twice that
    memory      token key 2·d·M forward, once for both passes, and 2·d·M for its weights' gradient;
                from there W_o W_d, multiplied out or not, whichever is cheaper:
                forward, activations' and weights' gradient of W_d (2·d·M each) and W_o (2·d·d
                each); or of their product (2·d·M each) and, once per step, 3 times 2·d·d·M

Element-wise operations, norms and the optimizer are not counted, so no implementation reaches the
bound. Divided by the matmul rate measured in the same run it is the least time of an epoch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.benchmark import Timer


def lower_bound(
    config: Any, layer: int, memory_dim: int, steps: Sequence[Sequence[int]]
) -> dict[str, float]:
    """FLOPs per epoch by part (formulas above), after block `layer` of a GPT-NeoX's `config`.

    `steps` are the predicted tokens of each row, for each step of the epoch.
    """
    d, vocabulary = config.hidden_size, config.vocab_size
    blocks = config.num_hidden_layers - 1 - layer  # after the hooked one
    weights = 4 * d * d + 2 * d * config.intermediate_size
    tokens = sum(map(sum, steps))  # of one pass
    pairs = sum(length * (length + 1) // 2 for rows in steps for length in rows)
    memory = 0
    for rows in steps:
        both = 2 * sum(rows)
        apart = 3 * 2 * (d * memory_dim + d * d) * both
        product = 3 * 2 * d * memory_dim * both + 3 * 2 * d * d * memory_dim
        memory += 2 * 2 * d * memory_dim * sum(rows) + min(apart, product)
    return {
        "head": 2 * tokens * 2 * 2 * d * vocabulary,
        "blocks": 2 * tokens * blocks * 2 * 2 * weights,
        "attention": 2 * pairs * blocks * 3 * 2 * 2 * d,
        "memory": memory,
    }


def matmul_rates(
    tokens: int, d_model: int, vocabulary: int, dtype: torch.dtype, device: torch.device
) -> dict[str, float]:
    """FLOP/s of some matrix products, by product, each repeated for some 50 ms.

    They are the head's two, with the `tokens` that one pass of a step predicts and with twice as
    many, and a square one, all into memory that is already there.
    """
    side = 1024 if device.type == "cpu" else 8192
    shapes = [(side, side, side)]
    for rows in (2 * tokens, tokens):
        shapes += [(rows, d_model, vocabulary), (rows, vocabulary, d_model)]
    rates = {}
    for rows, inner, columns in shapes:
        left = torch.randn(rows, inner, dtype=dtype, device=device)
        right = torch.randn(columns, inner, dtype=dtype, device=device).T
        into = torch.empty(rows, columns, dtype=dtype, device=device)
        timer = Timer(
            "mm(left, right, out=into)",
            globals={**locals(), "mm": torch.mm},
            num_threads=torch.get_num_threads(),
        )
        seconds = timer.blocked_autorange(min_run_time=0.05).mean
        rates[f"({rows}, {inner}) · ({inner}, {columns})"] = 2 * rows * inner * columns / seconds
    return rates
