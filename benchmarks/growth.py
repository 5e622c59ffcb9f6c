"""How time, memory and files grow with the documents: invented texts, two epochs, a fresh process.

grow(1000)["epoch_seconds_per_document"]
"""

import dataclasses
import json
import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.measure import Numbers, in_fresh_process, peak_memory, seconds_of
from benchmarks.shapes import build_lm, encyclopedia
from docmem.documents import Document
from docmem.lm.hidden_states import cache_hidden_states
from docmem.training.config import TrainConfig, preset
from docmem.training.run import Run
from docmem.training.setup import new_memory
from docmem.training.train import save, train
from docmem.training.trainer import Trainer

COUNTS = (5, 10, 100, 1000)
WORDS = 170  # four segments of 64, half a segment apart


def invented(count: int) -> list[Document]:
    """Documents whose words follow each other as they do somewhere in the encyclopedia."""
    draw = random.Random(0)
    follow: dict[str, list[str]] = {}
    for document in encyclopedia():
        for word, following in pairwise(document.text.split()):
            follow.setdefault(word, []).append(following)
    starts = sorted(follow)
    documents = []
    for number in range(count):
        words = [draw.choice(starts)]
        while len(words) < WORDS:
            words.append(draw.choice(follow.get(words[-1], starts)))
        documents.append(Document(f"Invented {number + 1}", " ".join(words)))
    return documents


def grow(count: int, **changes: object) -> Numbers:
    """Train on so many documents for two epochs; what it takes, by document where it should grow.

    To be called in a new process: the memory is that of its whole life.
    """
    lm, documents = build_lm("tiny"), invented(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        config = preset("tiny", num_epochs=2, save_freq=2, max_labels=count, save_dir=folder)
        config = dataclasses.replace(config, **changes)
        whole = seconds_of(lambda: train(config, lm=lm, documents=documents, progress=False))
        peak = peak_memory()
        run = Run.open(folder)
        epochs = [epoch.seconds for epoch in run.load_history()]
        files = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        return {
            "documents": count,
            "reading_seconds_per_document": (whole - sum(epochs)) / count,
            "epoch_seconds_per_document": epochs[-1] / count,
            "peak_bytes": peak,
            "run_bytes_per_document": sum(files.values()) / count,
            "checkpoint_seconds": _checkpoint_seconds(config, documents, run),
            "opening_seconds": seconds_of(lambda: Run.open(folder).titles),
        }


def _checkpoint_seconds(config: TrainConfig, documents: list[Document], run: Run) -> float:
    """How long it takes to save a training: checkpoint, memory and history."""
    lm = build_lm("tiny")
    few = dataclasses.replace(config, max_segments=1, max_length=8)
    cache = cache_hidden_states(lm, documents, few)
    trainer = Trainer(config, cache, new_memory(config, lm, documents))
    trainer.epoch()
    return seconds_of(lambda: save(trainer, run, {}))


def growth(counts: tuple[int, ...] = COUNTS) -> list[Numbers]:
    """Each number of documents in a fresh process, then the largest but one with states on disk."""
    ways = [(count, {}) for count in counts] + [(counts[-2], {"cpu_cache_gb": 0.0})]
    code = "from benchmarks.growth import show; show({!r}, {!r})"
    return [
        {**json.loads(in_fresh_process(code.format(*way)).splitlines()[-1]),
         "states": "disk" if way[1] else "memory"}
        for way in ways
    ]  # fmt: skip


def show(count: int, changes: Numbers) -> None:
    """Print what `grow` finds, for the process that asked."""
    started = time.perf_counter()
    found = grow(count, **changes)
    print(json.dumps(found))
    print(f"{count} documents: {time.perf_counter() - started:.0f} s", file=sys.stderr)
