"""How time, memory and files grow with the documents, and what a second process gives.

    python -m benchmarks.growth 1000        # one row, as JSON; torchrun starts several processes

Invented texts, two epochs, a fresh process for each row.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Numbers, in_fresh_process, peak_memory
from benchmarks.shapes import build_lm
from docmem.experiments.invented import invented
from docmem.experiments.rivals import seconds_of
from docmem.training.config import preset
from docmem.training.processes import main_process
from docmem.training.run import Run
from docmem.training.train import train

ROWS = ((5, 1, False), (10, 1, False), (100, 1, False), (100, 1, True), (100, 2, False),
        (1000, 1, False))  # fmt: skip
"""Documents, processes, whether hidden states lie on disk."""


def grow(count: int, on_disk: bool, folder: Path) -> Numbers:
    """Train on so many documents in `folder`; what it takes, per document where that may grow.

    To be called in a new process: the memory is that of its whole life.
    """
    lm, documents = build_lm("tiny"), invented(count)
    config = preset("tiny", num_epochs=2, save_freq=2, max_labels=count, save_dir=folder)
    config = dataclasses.replace(config, **({"cpu_cache_gb": 0.0} if on_disk else {}))
    whole = seconds_of(lambda: train(config, lm=lm, documents=documents, progress=False))
    peak, run = peak_memory(), Run.open(folder)
    epochs = [epoch.seconds for epoch in run.load_history()]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "s per epoch and document": epochs[-1] / count,
        "s to read and save, per document": (whole - sum(epochs)) / count,
        "peak memory, MB": peak / 1e6,
        "files, MB per document": size / 1e6 / count,
        "s to open the run": seconds_of(lambda: Run.open(folder).titles),
    }


def growth(rows: tuple[tuple[int, int, bool], ...] = ROWS) -> Numbers:
    """Each row in a fresh process, or in several."""
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
    return found


if __name__ == "__main__":
    numbers = grow(int(sys.argv[1]), sys.argv[2] == "1", Path(sys.argv[3]))
    if main_process():
        print(json.dumps(numbers))
