"""Training: an epoch of each baseline in turn, in one process, on the same LM and documents.

docmem trains as a user's program does; after some of its epochs the others run one each. Their
work does not depend on what was learned so far. docmem's may: it can spare the backward pass of a
negative that the clamp has switched off.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import VARIANTS, Attached, Passed
from benchmarks.measure import in_fresh_process, joules
from benchmarks.roofline import MatmulRate, predicted_lengths, unavoidable
from benchmarks.shapes import Shape, random_lm, settings, some_documents
from docmem.documents import Document
from docmem.experiments.baselines import LoRA
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import DType, TrainConfig
from docmem.training.history import Epoch
from docmem.training.run import Run
from docmem.training.train import train

Numbers = dict[str, Any]
ENOUGH = 2.0  # own cross entropy at which the race with LoRA ends, nats per token


class _Meter:
    """What is read off the GPU around an epoch: energy in joules, peak memory in bytes."""

    def __init__(self) -> None:
        self.on_gpu = torch.cuda.is_available()
        self.joules: dict[str, list[float]] = {}
        self.peak: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """Begin an epoch."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self._before = joules() if self.on_gpu else None

    def stop(self, name: str) -> None:
        """End an epoch of the baseline `name`."""
        if self.on_gpu:
            self.peak[name] = max(self.peak.get(name, 0), torch.cuda.max_memory_allocated())
        if self._before is not None:
            self.joules.setdefault(name, []).append((joules() or 0.0) - self._before)


def lora_epoch(lora: LoRA) -> Passed:
    """One more epoch of a LoRA."""
    before = lora.seconds[-1] if lora.seconds else 0.0
    lora.epoch()
    return Passed(lora.losses[-1], float("nan"), lora.seconds[-1] - before)


def compare(
    lm: LanguageModel,
    documents: Sequence[Document],
    config: TrainConfig,
    after: Collection[int],
    lora: LoRA | None = None,
) -> tuple[Run, Numbers]:
    """Train by docmem; after the epochs named, run one epoch of each other baseline.

    Args:
        lm: the LM, frozen.
        documents: what is memorised.
        config: the settings; the run is left in its `save_dir`.
        after: epochs after which the others run, and the matmul rate is measured; 1 among them.
        lora: runs an epoch after each of docmem's until its cross entropy is low enough.

    Returns:
        docmem's run, and the numbers: seconds of every epoch by baseline, losses of the first
        epoch, work and matmul rates.
    """
    cache = cache_hidden_states(lm, documents, config)
    steps = [predicted_lengths(batch) for batch in cache.batches]
    layer, device = cache.layer, cache.device
    rows = [len(batch.input_ids) for batch in cache.batches]
    longest = [batch.input_ids.shape[1] for batch in cache.batches]
    del cache
    work = unavoidable(lm.model.config, layer, config.hook_memory_dim, steps)
    tokens = sum(map(sum, steps))
    vocabulary = lm.model.config.vocab_size
    rate = MatmulRate(tokens // len(steps), lm.d_model, vocabulary, lm.model.dtype, device)
    others = {name: Attached(lm, documents, config, **kind) for name, kind in VARIANTS.items()}
    passed: dict[str, list[Passed]] = {name: [] for name in (*others, "lora")}
    too_large: list[str] = []

    def attempt(name: str, action: Callable[[], Passed | None]) -> None:
        """Run a baseline; one that needs more memory than the GPU has is left out from then on."""
        if name in too_large:
            return
        meter.start()
        try:
            done = action()
        except torch.OutOfMemoryError:
            too_large.append(name)
            torch.cuda.empty_cache()
            lm.model.zero_grad()
            return
        if done is not None:
            meter.stop(name)
            passed[name].append(done)

    def on_epoch(epoch: Epoch) -> None:
        meter.stop("docmem")
        if epoch.epoch in after:
            for name, other in others.items():
                attempt(name, other.epoch)
            rate.measure()
        if lora and not (passed["lora"] and passed["lora"][-1].positive_ce <= ENOUGH):
            attempt("lora", functools.partial(lora_epoch, lora))
        meter.start()

    meter = _Meter()
    for name, other in others.items():
        attempt(name, other.warm_up)
    if lora:
        lora.losses_of(0)[0].backward()  # warm-up
        lora.optimizer.zero_grad()
    meter.start()
    run = train(config, lm=lm, documents=documents, on_epoch=on_epoch, progress=False)
    first = run.load_history()[0]
    numbers: Numbers = {
        "lm": lm.name,
        "layer": layer,
        "blocks": len(lm.blocks),
        "dtype": lm.dtype,
        "documents": len(documents),
        "steps": len(steps),
        "rows": max(rows),
        "longest": max(longest),
        "tokens": tokens,
        "memory_dim": config.hook_memory_dim,
        "tau": config.target_negative_ce,
        "alpha": config.guidance,
        "after": sorted(after),
        "seconds": {name: [one.seconds for one in all_] for name, all_ in passed.items() if all_}
        | {"docmem": [epoch.seconds for epoch in run.load_history()]},
        "positive_ce": {name: [one.positive_ce for one in all_] for name, all_ in passed.items()}
        | {"docmem": [epoch.positive_ce for epoch in run.load_history()]},
        "guidance": [epoch.guidance for epoch in run.load_history()],
        "work": work._asdict(),
        "rates": rate.rates,
        "rate": rate.best,
        "too_large": too_large,
        "joules": meter.joules,
        "peak": meter.peak,
    }
    if passed["frozen"]:
        plain = passed["frozen"][0]
        numbers["loss_difference"] = max(
            abs(plain.positive_ce - first.positive_ce), abs(plain.negative_ce - first.negative_ce)
        )
    if lora:
        numbers["lora"] = {
            "rank": lora.rank,
            "parameters": lora.parameters,
            "memory_parameters": sum(p.numel() for p in run.load_memory().parameters()),
        }
    return run, numbers


def short(lm: LanguageModel, documents: Sequence[Document], config: TrainConfig) -> Numbers:
    """Compare from the start of training; docmem's first epoch is its warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        rounds = config.num_epochs - 1
        config = dataclasses.replace(
            config, save_dir=Path(folder) / "run", save_freq=config.num_epochs
        )
        return compare(lm, documents, config, range(1, rounds + 1))[1]


def peak_of(shape: str, baseline: str) -> int:
    """Peak memory of one training step on the CPU, in bytes, measured in a process of its own."""
    return int(in_fresh_process("-m", "benchmarks.peak", shape, baseline))


def on_gpu(
    shape: Shape,
    epochs: int,
    after: Collection[int],
    documents: int = 10,
    device: str = "cuda",
    dtype: DType = "bfloat16",
) -> Numbers:
    """Compare at a shape on the GPU, on documents of up to ten segments × 256 tokens."""
    lm = random_lm(shape, dtype, device)
    with tempfile.TemporaryDirectory() as folder:
        config = settings(
            shape.name,
            num_epochs=epochs,
            save_freq=epochs,
            dtype=dtype,
            save_dir=Path(folder) / "run",
        )
        return compare(lm, some_documents(documents), config, after)[1]
