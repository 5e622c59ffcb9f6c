"""How time, memory and files grow with the documents; what the disk costs, a second process gives.

    python -m benchmarks.growth 1000        # one row, as JSON; torchrun starts several processes

Invented texts, two epochs, a fresh process for each row.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil

from benchmarks.epochs import new_trainer
from benchmarks.measure import Numbers, in_fresh_process, peak_memory
from benchmarks.shapes import build_lm
from docmem.experiments.invented import invented
from docmem.experiments.rivals import seconds_of
from docmem.training.config import preset
from docmem.training.executors import perform
from docmem.training.processes import main_process
from docmem.training.run import Run
from docmem.training.train import train

ROWS = ((5, 1, False), (10, 1, False), (100, 1, False), (100, 2, False), (1000, 1, False),
        (1000, 1, True))  # fmt: skip
"""Documents, processes, whether hidden states lie on disk."""
PER = "s per epoch and document"
DISK = "100 documents, states on disk / in memory"
WORKERS = "trainings of 10 documents, two workers / one"


def grow(count: int, on_disk: bool, folder: Path) -> Numbers:
    """Train on so many documents in `folder`; what it takes, per document where that may grow.

    To be called in a new process: the memory is that of its whole life.
    """
    lm, documents = build_lm("tiny"), invented(count)
    config = preset("tiny", num_epochs=2, save_freq=2, max_labels=count, save_dir=folder)
    config = dataclasses.replace(config, **({"cpu_cache_gb": 0.0} if on_disk else {}))
    own = list[int]()  # of mapped files the system drops what it has no room for

    def watch(*_: object) -> None:
        held = psutil.Process().memory_info()
        own.append(held.rss - getattr(held, "shared", 0))

    whole = seconds_of(
        lambda: train(config, lm=lm, documents=documents, on_epoch=watch, progress=False)
    )
    peak, run = peak_memory(), Run.open(folder)
    epochs = [epoch.seconds for epoch in run.load_history()]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        PER: epochs[-1] / count,
        "s to read and save, per document": (whole - sum(epochs)) / count,
        "peak memory, MB": peak / 1e6,
        "without mapped files, MB": max(own, default=0) / 1e6,
        "files, MB per document": size / 1e6 / count,
        "s to open the run": seconds_of(lambda: Run.open(folder).titles),
    }


def disk_to_memory(count: int, rounds: int) -> float:
    """How much longer an epoch takes with its states on disk: the median over epochs in turn."""
    lm, documents, config = build_lm("tiny"), invented(count), preset("tiny")
    on_disk = dataclasses.replace(config, cpu_cache_gb=0.0)
    ways = [new_trainer("docmem", lm, documents, one) for one in (config, on_disk)]
    seconds = [[one.epoch().seconds for one in ways] for _ in range(rounds)]
    return float(np.median([disk / memory for memory, disk in seconds]))


def train_one(seed: int, epochs: int, folder: Path) -> None:
    """A training, for a worker."""
    train(preset("tiny", seed=seed, num_epochs=epochs, save_dir=folder), progress=False)


def with_workers(count: int, trainings: int, epochs: int) -> float:
    """Seconds that some workers take for some trainings."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = [(seed, epochs, folder / str(seed)) for seed in range(1, trainings + 1)]
        return seconds_of(lambda: perform(train_one, given, f"local:{count}", folder))


def growth(rows: tuple[tuple[int, int, bool], ...], rounds: int) -> Numbers:
    """Each row in a fresh process, or in several; then the two ratios."""
    found: Numbers = {}
    for count, processes, on_disk in rows:
        launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        with tempfile.TemporaryDirectory() as folder:
            printed = in_fresh_process(
                *(launcher if processes > 1 else ()), "-m", "benchmarks.growth",
                str(count), str(int(on_disk)), f"{folder}/run",
            )  # fmt: skip
        name = f"{count} documents, {processes} process{'es' if processes > 1 else ''}"
        found[name + ", states on disk" * on_disk] = json.loads(printed.splitlines()[-1])
    found[DISK] = {PER: disk_to_memory(min(100, rows[-1][0]), 3 * rounds)}
    two, one = (with_workers(workers, 2 * rounds, 4 * rounds) for workers in (2, 1))
    found[WORKERS] = {PER: two / one}
    return found


if __name__ == "__main__":
    numbers = grow(int(sys.argv[1]), sys.argv[2] == "1", Path(sys.argv[3]))
    if main_process():
        print(json.dumps(numbers))
