"""Where the time of docmem's training goes, by kind of operation, from torch's profiler."""

from __future__ import annotations

from typing import Any

from torch.profiler import ProfilerActivity, profile

from docmem.training.trainer import Trainer

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "softmax of the head, its gradient": ("_log_softmax", "exp_", "gather", "scatter_add_"),
    "activations, norms": (
        "gelu", "gelu_backward", "tanh", "tanh_backward", "native_layer_norm",
        "native_layer_norm_backward", "relu", "threshold_backward",
    ),
    "optimizer, clipping": ("lerp_", "addcmul_", "addcdiv_", "sqrt", "linalg_vector_norm"),
}  # fmt: skip
"""The operations of torch in each kind; those in none are counted as other operations."""
OTHER, OUTSIDE = "other operations", "outside torch's operations"


def breakdown(trainer: Trainer, epochs: int) -> dict[str, Any]:
    """Seconds per epoch by kind of operation: the mean of some epochs after a first, a warm-up."""
    trainer.epoch()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        wall = sum(trainer.epoch().seconds for _ in range(epochs)) / epochs
    kind_of = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    seconds = dict.fromkeys([*KINDS, OTHER], 0.0)
    for event in profiler.key_averages():
        kind = kind_of.get(event.key, OTHER)
        seconds[kind] += event.self_cpu_time_total / 1e6 / epochs
    seconds[OUTSIDE] = max(0.0, wall - sum(seconds.values()))
    return {"epochs": epochs, "wall": wall, "seconds": seconds}
