"""Training: an epoch of each way in turn, in one process, on the same LM and documents.

After some of docmem's epochs the others run one each. Their work does not depend on what was
learned so far. docmem's may: it can save the backward pass of a negative that the clamp has
switched off.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.baselines import Attached
from benchmarks.measure import joules, peak_memory
from benchmarks.roofline import MatmulRate, lower_bound, predicted_lengths
from benchmarks.shapes import build_lm, settings, some_documents
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


@dataclass
class Comparison:
    """What was measured of every way of training one memory: original, frozen, lora, docmem."""

    lm: str
    layer: int
    settings: dict[str, Any]
    """Of the training and its documents, as the report names them."""
    after: list[int]
    """The epochs of docmem after which the others ran one."""
    work: dict[str, float]
    """Lower bound on the FLOPs per epoch, by part."""
    rates: dict[str, list[float]]
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
    def place(self) -> dict[str, object]:
        """The LM and the hooked block, as columns of a table."""
        return {"LM": self.lm, "layer": self.layer}

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
            self.too_large.append(way)
        if way in self.too_large:
            torch.cuda.empty_cache()
            return
        self.seconds.setdefault(way, []).append(epoch.seconds)
        self.positive_ce.setdefault(way, []).append(epoch.positive_ce)
        if on_gpu:
            self.peak[way] = max(self.peak.get(way, 0), torch.cuda.max_memory_allocated())
        if before is not None:
            self.joules.setdefault(way, []).append((joules() or before) - before)


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
    """Train as docmem does; after the epochs named, train each other way for one epoch.

    Args:
        lm: the LM, frozen.
        documents: what is memorised.
        config: the settings.
        after: epochs after which the others run, and the matmul rate is measured; 1 among them.
        lora: runs an epoch after each of docmem's until its cross entropy is low enough.
    """
    trainers = {way: new_trainer(way, lm, documents, config) for way in WAYS}
    docmem, frozen = trainers["docmem"], trainers["frozen"]
    batches, layer = docmem.cache.batches, docmem.cache.layer
    lengths = [predicted_lengths(batch) for batch in batches]
    tokens, model = sum(map(sum, lengths)), lm.model
    head = (lm.d_model, model.config.vocab_size)
    rate = MatmulRate(tokens // len(batches), *head, model.dtype, docmem.cache.device)
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
    result = Comparison(lm.name, layer, described, sorted(after), work, rate.rates)
    for number in range(1, config.num_epochs + 1):
        for way in WAYS if number in after else ["docmem"]:
            result.measure(way, trainers[way])
        if number in after:
            rate.measure()
        if lora and not (lora.losses and lora.losses[-1] <= ENOUGH):
            lora.epoch()
    result.guidance = [epoch.guidance for epoch in docmem.history]
    if frozen.history:
        pair = np.array([docmem.history[0], frozen.history[0]])[:, 1:3]  # positive, negative
        result.loss_difference = float(np.abs(pair[0] - pair[1]).max())
    if lora:
        way = f"LoRA of rank {lora.rank}"
        result.seconds[way] = np.diff([0.0, *lora.seconds]).tolist()
        result.positive_ce[way] = lora.losses
        size = sum(parameter.numel() for parameter in docmem.memory.parameters())
        result.lora = {"docmem": size, way: lora.parameters}
    return result


def peak(way: str, shape: str, **changes: Any) -> int:
    """Bytes by which training two documents for an epoch exceeds what this process held before.

    The LM counts; Python and its libraries do not, as a toy LM is trained first. To be called in a
    process of its own.
    """

    def train_once(shape: str, **changes: Any) -> None:
        new_trainer(way, build_lm(shape), some_documents(2), settings(shape, **changes)).epoch()

    train_once("toy", max_segments=1, segment_length=8)
    before = psutil.Process().memory_info().rss
    train_once(shape, **changes)
    return peak_memory() - before
