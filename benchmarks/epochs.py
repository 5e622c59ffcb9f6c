"""An epoch of each way of training in turn, in one process, on the same LM and documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.baselines import Attached
from benchmarks.measure import peak_memory
from benchmarks.roofline import lower_bound, matmul_rates
from benchmarks.shapes import build_lm, encyclopedia, settings
from docmem.documents import Document
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.setup import new_memory
from docmem.training.trainer import Trainer

WAYS = ("original", "frozen", "docmem")
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


@dataclass
class Comparison:
    """What was measured of every way of training the same memory, by way."""

    place: dict[str, Any]
    """The LM, its format, the index of the hooked block, and how many documents are learned."""
    work: dict[str, float]
    """Lower bound on the FLOPs per epoch, by part."""
    rates: dict[str, list[float]]
    """Measured FLOP/s, by matrix product."""
    seconds: dict[str, list[float]]
    """Of each epoch, by way of training; so are the following."""
    positive_ce: dict[str, list[float]]
    peak: dict[str, int]
    """Bytes of the GPU's memory, at most."""

    @property
    def best_rate(self) -> tuple[float, str]:
        """The best median FLOP/s of a matrix product, and of which one."""
        return max((float(np.median(rates)), product) for product, rates in self.rates.items())

    @property
    def least_seconds(self) -> float:
        """The least time of an epoch: the lower bound on its FLOPs at the best rate."""
        return sum(self.work.values()) / self.best_rate[0]


def new_trainer(
    way: str, lm: LanguageModel, documents: Sequence[Document], config: TrainConfig
) -> Trainer:
    """A trainer of a fresh memory: docmem's, or one that does without cached hidden states."""
    cache = cache_hidden_states(lm, documents, config)
    memory = new_memory(config, lm, documents).to(cache.device)
    if way == "docmem":
        return Trainer(config, cache, memory)
    return Attached(config, cache, memory, original=way == "original")


def compare(
    lm: LanguageModel, documents: Sequence[Document], config: TrainConfig, rounds: int
) -> Comparison:
    """Train in each way for some epochs, in turn; the matmul rate is measured between them."""
    trainers = {way: new_trainer(way, lm, documents, config) for way in WAYS}
    cache = trainers["docmem"].cache
    lengths = [batch.predicted.sum(1).tolist() for batch in cache.batches]  # of each row
    tokens = sum(map(sum, lengths))
    work = lower_bound(lm.model.config, cache.layer, config.hook_memory_dim, lengths)
    head = (tokens // len(lengths), lm.d_model, lm.model.config.vocab_size)
    peaks, on_gpu = dict.fromkeys(WAYS, 0), cache.device.type == "cuda"
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for way, trainer in trainers.items():
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            trainer.epoch()
            if on_gpu:
                peaks[way] = max(peaks[way], torch.cuda.max_memory_allocated())
        for product, rate in matmul_rates(*head, lm.model.dtype, cache.device).items():
            rates.setdefault(product, []).append(rate)
    place = {"LM": lm.name, "dtype": lm.dtype, "layer": cache.layer, "documents": len(documents)}
    seconds = {way: [epoch.seconds for epoch in one.history] for way, one in trainers.items()}
    own = {way: [epoch.positive_ce for epoch in one.history] for way, one in trainers.items()}
    return Comparison(place, work, rates, seconds, own, peaks if on_gpu else {})


def peak(way: str, shape: str, **changes: Any) -> int:
    """Bytes by which training two documents for an epoch exceeds what this process held before.

    The LM counts; libraries do not, as a toy LM is trained first. To be called in a new process.
    """

    def train_once(shape: str, **changes: Any) -> None:
        new_trainer(way, build_lm(shape), encyclopedia(2), settings(shape, **changes)).epoch()

    train_once("toy", max_segments=1, segment_length=8)
    before = psutil.Process().memory_info().rss
    train_once(shape, **changes)
    return peak_memory() - before


def breakdown(trainer: Trainer, epochs: int) -> dict[str, Any]:
    """Seconds per epoch by kind of operation: the mean of some epochs after a first, a warm-up."""
    trainer.epoch()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        wall = sum(trainer.epoch().seconds for _ in range(epochs)) / epochs
    kind_of = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    seconds = dict.fromkeys([*KINDS, "other operations"], 0.0)
    for event in profiler.key_averages():
        kind = kind_of.get(event.key, "other operations")
        seconds[kind] += event.self_cpu_time_total / 1e6 / epochs
    seconds["outside torch's operations"] = max(0.0, wall - sum(seconds.values()))
    return {"epochs": epochs, "wall": wall, "seconds": seconds}
