"""Where the time of docmem's training goes, by kind of operation, from torch's profiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile

from docmem.documents import Document
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.train import train

Numbers = dict[str, Any]

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "softmax of the head, its gradient": ("_log_softmax", "exp_", "gather", "scatter_add_"),
    "activations, norms": (
        "gelu", "gelu_backward", "tanh", "tanh_backward", "native_layer_norm",
        "native_layer_norm_backward", "relu", "threshold_backward",
    ),
    "optimizer, clipping": ("lerp_", "addcmul_", "addcdiv_", "sqrt", "linalg_vector_norm"),
}  # fmt: skip
"""Each kind's operations of torch; what is in none is counted as other operations."""
OTHER, OUTSIDE = "other operations", "outside torch's operations"


def breakdown(
    lm: LanguageModel, documents: Sequence[Document], config: TrainConfig, epochs: int
) -> Numbers:
    """Seconds an epoch by kind of operation, while training starts.

    Args:
        lm: the LM, frozen.
        documents: what is memorised.
        config: the settings, `num_epochs` one more than `epochs`; a run is left in `save_dir`.
        epochs: profiled ones, after a first that warms up.
    """
    profiler = profile(activities=[ProfilerActivity.CPU])

    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == 1:
            profiler.start()
        if epoch.epoch == epochs + 1:
            profiler.stop()

    run = train(config, lm=lm, documents=documents, on_epoch=on_epoch, progress=False)
    wall = sum(epoch.seconds for epoch in run.load_history()[1:]) / epochs
    kind_of = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    seconds = dict.fromkeys([*KINDS, OTHER], 0.0)
    for event in profiler.key_averages():
        kind = kind_of.get(event.key, OTHER)
        seconds[kind] += event.self_cpu_time_total / 1e6 / epochs
    seconds[OUTSIDE] = max(0.0, wall - sum(seconds.values()))
    return {"epochs": epochs, "wall": wall, "seconds": seconds}
