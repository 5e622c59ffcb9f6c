"""Training: an epoch of each way in turn, in one process, on the same LM and documents.

Only docmem's work may depend on what was learned so far: it can save the backward pass of a
negative that the clamp has switched off. So docmem trains on while the others run some epochs.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.baselines import Attached
from benchmarks.measure import joules, peak_memory
from benchmarks.roofline import lower_bound, matmul_rates
from benchmarks.shapes import build_lm, encyclopedia, settings
from docmem.documents import Document
from docmem.experiments.baselines import LoRA
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.setup import new_memory
from docmem.training.trainer import Trainer

WAYS = ("docmem", "original", "frozen")
ENOUGH = 2.0
"""LoRA is trained until its own cross entropy is as low as this, nats per token."""
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
    """The LM and the index of the hooked block."""
    settings: dict[str, Any]
    """Of the training and its documents, as the report names them."""
    after: list[int]
    """The epochs of docmem after which the others ran one."""
    work: dict[str, float]
    """Lower bound on the FLOPs per epoch, by part."""
    rates: dict[str, list[float]] = field(default_factory=dict)
    """Measured FLOP/s, by matrix product."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of each epoch, by way of training; so are the following."""
    positive_ce: dict[str, list[float]] = field(default_factory=dict)
    joules: dict[str, list[float]] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    """Bytes of the GPU's memory, at most."""
    too_large: list[str] = field(default_factory=list)
    """Ways that need more memory than the GPU has."""
    guidance: list[float] = field(default_factory=list)
    """docmem's guidance term in each epoch."""
    loss_difference: float | None = None
    """Between docmem and frozen, mean losses of the first epoch."""
    lora: dict[str, int] | None = None
    """Trained numbers of docmem and of LoRA."""

    @property
    def start(self) -> list[float]:
        """Seconds of docmem's epochs that alternate with the others'; the first is a warm-up."""
        rounds = next(n for n in range(1, len(self.after) + 2) if n not in self.after) - 1
        return self.seconds["docmem"][1 : rounds + 1]

    @property
    def speedup(self) -> float | None:
        """How much longer an epoch of the original takes; None if it did not fit on the GPU."""
        original = self.seconds.get("original")
        return float(np.median(original) / np.median(self.start)) if original else None

    @property
    def best_rate(self) -> tuple[float, str]:
        """The best median FLOP/s of a matrix product, and of which one."""
        return max((float(np.median(rates)), product) for product, rates in self.rates.items())

    @property
    def least_seconds(self) -> float:
        """The least time of an epoch: the lower bound on its FLOPs at the best rate."""
        return sum(self.work.values()) / self.best_rate[0]

    @property
    def roofline_share(self) -> float:
        """The least time of an epoch over that of docmem's at the start of training."""
        return self.least_seconds / float(np.median(self.start))

    def measure(self, way: str, trainer: Trainer) -> None:
        """Run an epoch; a way that does not fit on the GPU is left out from then on."""
        if way in self.too_large:
            return
        if on_gpu := torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        before = joules()
        try:
            epoch = trainer.epoch()
        except torch.OutOfMemoryError:
            if way == "docmem":
                raise
            self.too_large.append(way)
            return
        self.seconds.setdefault(way, []).append(epoch.seconds)
        self.positive_ce.setdefault(way, []).append(epoch.positive_ce)
        if before is not None:
            self.joules.setdefault(way, []).append((joules() or before) - before)
        if on_gpu:
            self.peak[way] = max(self.peak.get(way, 0), torch.cuda.max_memory_allocated())


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
    lm: LanguageModel,
    documents: Sequence[Document],
    config: TrainConfig,
    after: Collection[int],
    lora: LoRA | None = None,
) -> Comparison:
    """Train as docmem does; after some epochs, 1 among them, train each other way for one.

    The matmul rate is measured at the same time. A LoRA has an epoch after each of docmem's until
    its cross entropy is low enough.
    """
    trainers = {way: new_trainer(way, lm, documents, config) for way in WAYS}
    docmem, model = trainers["docmem"], lm.model
    batches, layer = docmem.cache.batches, docmem.cache.layer
    lengths = [
        batch.predicted.sum(1).tolist() for batch in batches
    ]  # of each row, predicted tokens
    tokens = sum(map(sum, lengths))
    described = {
        "blocks": len(lm.blocks),
        "dtype": lm.dtype,
        "documents": len(documents),
        "steps per epoch": len(batches),
        "segments": max(len(batch.input_ids) for batch in batches),
        "tokens per segment": max(batch.input_ids.shape[1] for batch in batches),
        "predicted tokens": tokens,
        "memory_dim": config.hook_memory_dim,
        "α": config.guidance,
        "τ": config.target_negative_ce,
    }
    work = lower_bound(model.config, layer, config.hook_memory_dim, lengths)
    result = Comparison({"LM": lm.name, "layer": layer}, described, sorted(after), work)
    head = (tokens // len(batches), lm.d_model, model.config.vocab_size)
    for number in range(1, config.num_epochs + 1):
        for way in WAYS if number in after else ["docmem"]:
            result.measure(way, trainers[way])
        if number in after:
            for product, rate in matmul_rates(*head, model.dtype, docmem.cache.device).items():
                result.rates.setdefault(product, []).append(rate)
        if lora and min(lora.losses, default=ENOUGH + 1) > ENOUGH:
            lora.epoch()
    result.guidance = [epoch.guidance for epoch in docmem.history]
    if frozen := trainers["frozen"].history:
        difference = np.subtract(docmem.history[0], frozen[0])[1:3]  # positive, negative
        result.loss_difference = float(np.abs(difference).max())
    if lora:
        way = f"LoRA of rank {lora.model.peft_config['0'].r}"
        result.seconds[way] = np.diff([0.0, *lora.seconds]).tolist()
        result.positive_ce[way] = lora.losses
        size = sum(parameter.numel() for parameter in docmem.memory.parameters())
        result.lora = {"docmem": size, way: lora.parameters}
    return result


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
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        wall = sum(trainer.epoch().seconds for _ in range(epochs)) / epochs
    kind_of = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    seconds = dict.fromkeys([*KINDS, "other operations"], 0.0)
    for event in profiler.key_averages():
        kind = kind_of.get(event.key, "other operations")
        seconds[kind] += event.self_cpu_time_total / 1e6 / epochs
    seconds["outside torch's operations"] = max(0.0, wall - sum(seconds.values()))
    return {"epochs": epochs, "wall": wall, "seconds": seconds}
