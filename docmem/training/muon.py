"""Muon: every matrix moves by its momentum, made orthogonal; the rest moves by AdamW.

    B = 0.95 B + 0.05 G                      momentum of the gradient G
    W = (1 - lr · decay) W - lr · s · polar(0.95 B + 0.05 G),   s = √max(1, rows / columns)

polar(M) is the orthogonal matrix nearest to M: all of its directions are learned at the same pace,
those with a small gradient too (Jordan and others, 2024). It is found by three steps

    X = aX + bXXᵀX + c(XXᵀ)²X

with coefficients that bring singular values from 0.01 to 1 as near to 1 as three such steps can
(found step by step, as Amsel and others, 2025): to between 0.73 and 1.27. That is near enough, and
cheaper than the usual five steps. `torch.optim.Muon` works in bfloat16, which is many times slower
on processors without bfloat16 products; this one works in the parameters' own format.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

MOMENTUM = 0.95
# (a, b, c) of each step.
STEPS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon moves a parameter: a matrix with both sides above 2."""
    return parameter.dim() == 2 and min(parameter.shape) > 2


def orthogonalized(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The orthogonal matrix nearest to this one, roughly: singular values 0.73 to 1.27.

    Those below a hundredth of the Frobenius norm stay smaller.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for a, b, c in STEPS:
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Muon on matrices, AdamW on all other parameters.

    Args:
        parameters: what is trained.
        lr: Muon's learning rate, of the matrices.
        adamw_lr: AdamW's learning rate, of the rest.
        weight_decay: decay of all weights, decoupled, times the learning rate.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, adamw_lr: float, weight_decay: float
    ) -> None:
        parameters = list(parameters)
        matrices = [parameter for parameter in parameters if is_matrix(parameter)]
        rest = [parameter for parameter in parameters if not is_matrix(parameter)]
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self._matrices = self.param_groups[0]
        self._adamw = torch.optim.AdamW(rest, lr=adamw_lr, weight_decay=weight_decay)
        # One optimizer to whoever saves, clips or schedules it.
        self.param_groups += self._adamw.param_groups
        self._adamw.state = self.state

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # takes no closure
        """Move every parameter that has a gradient."""
        lr, decay = self._matrices["lr"], self._matrices["weight_decay"]
        for matrix in self._matrices["params"]:
            if matrix.grad is None:
                continue
            state = self.state[matrix]
            if not state:
                state["momentum"] = torch.zeros_like(matrix)
            momentum = state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
            direction = orthogonalized(matrix.grad.lerp(momentum, MOMENTUM))
            scale = max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
            matrix.mul_(1 - lr * decay).add_(direction, alpha=-lr * scale)
        self._adamw.step()
