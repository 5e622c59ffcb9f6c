"""Measure speed and memory: `make bench`, or a part again: `python -m benchmarks --only inference`.

Parts are stored in results.json as soon as they are done, each with its machine and date;
RESULTS.md is rendered anew from what is stored.
"""

import argparse
import datetime
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.utils import logging

from benchmarks import inference
from benchmarks.epochs import WAYS, Comparison, breakdown, compare, new_trainer
from benchmarks.measure import Numbers, in_fresh_process, machine
from benchmarks.report import render
from benchmarks.shapes import build_lm, encyclopedia, settings
from docmem.core.files import write_json, write_text
from docmem.experiments.baselines import LoRA
from docmem.training.config import DType
from docmem.training.train import train

LORA_LR = 5e-3  # of 0.002, 0.005, 0.01 and 0.02 the fastest
PARTS = ("embedded", "profile", "start", "memory", "inference", "gpu")


class Scale(NamedTuple):
    """How much is measured."""

    documents: int = 10
    epochs: int = 90  # of a whole training of the embedded LM
    rounds: int = 3  # timed epochs of each shorter comparison
    shapes: tuple[tuple[str, int, tuple[int, ...]], ...] = (
        ("tiny", 10, (1, 0)),
        ("Pythia-70m", 2, (-1, 2, 0)),
        ("Pythia-160m", 2, (-1, 5, 0)),
        ("Pythia-410m", 2, (-1,)),
    )  # LMs on the CPU, how many documents, and the hooked layers
    peak_shape: str = "Pythia-160m"
    points: int = 41  # of the DocRep plane, across and up; half as many in the figures
    repeats: int = 30  # of a full forward, and of a generation
    moves: int = 200
    new_tokens: int = 64


FAST = Scale(2, 2, 1, (("toy", 2, (0,)),), "toy", 5, 2, 10, 4)


class Bench:
    """The parts."""

    def __init__(self, scale: Scale, gpu_epochs: int = 500) -> None:
        self.scale, self.gpu_epochs = scale, gpu_epochs
        self.lm, self.documents = build_lm("tiny"), encyclopedia(scale.documents)
        self.config = settings("tiny", num_epochs=scale.epochs)

    def embedded(self) -> list[Comparison]:
        """A whole training of the embedded LM at the last layer, with LoRA beside it."""
        lora = LoRA(self.lm, self.documents, self.config, LORA_LR)
        after = {*range(1, self.scale.rounds + 1), self.scale.epochs}
        return [compare(self.lm, self.documents, self.config, after, lora)]

    def profile(self) -> Numbers:
        """Where the time of the same training goes, at its start."""
        trainer = new_trainer("docmem", self.lm, self.documents, self.config)
        return breakdown(trainer, self.scale.rounds)

    def start(self) -> list[Comparison]:
        """The start of training at other shapes and layers."""
        short: Numbers = {"segment_length": 48, "max_segments": 2}
        return [
            self._start(shape, count, hook_memory_layer=i, **({} if shape == "tiny" else short))
            for shape, count, layers in self.scale.shapes
            for i in layers
        ]

    def gpu(self) -> list[Comparison] | None:
        """Pythia's larger shapes on ten segments of up to 256 tokens; None without a GPU."""
        if not torch.cuda.is_available():
            return None
        on_gpu: Numbers = {"device": "cuda", "dtype": "bfloat16"}
        return [
            self._start("Pythia-1B", 10, num_epochs=self.gpu_epochs, **on_gpu),
            self._start("Pythia-6.9B", 10, num_epochs=min(5, self.gpu_epochs), **on_gpu),
        ]

    def _start(
        self, shape: str, count: int, device: str = "cpu", dtype: DType = "float32", **changes: Any
    ) -> Comparison:
        """Compare while training starts; docmem may go on for more epochs."""
        lm, rounds = build_lm(shape, dtype, device), self.scale.rounds
        config = settings(shape, dtype=dtype, **{"num_epochs": rounds + 1, **changes})
        return compare(lm, encyclopedia(count), config, range(1, rounds + 1))

    def memory(self) -> Numbers:
        """Peak memory of each way of training on the CPU, at the paper's batch."""
        shape = self.scale.peak_shape
        code = "from benchmarks.epochs import peak; print(peak({!r}, {!r}))"
        found = {way: int(in_fresh_process(code.format(way, shape))) for way in WAYS}
        return {"lm": shape, "bytes": found}

    def inference(self) -> Numbers:
        """A finished run in use."""
        scale = self.scale
        with tempfile.TemporaryDirectory() as folder:
            config = settings("tiny", num_epochs=scale.epochs, save_dir=Path(folder) / "run")
            run = train(config, lm=self.lm, documents=self.documents, progress=False)
            plane, numbers = inference.plane(run, self.lm, scale.points, scale.repeats)
            return {
                "plane": numbers,
                "drag": inference.dragging(run, self.lm, plane, scale.moves),
                "generate": inference.generation(run, self.lm, scale.repeats, scale.new_tokens),
                "figures": inference.figures(run, scale.points // 2 + 1),
                "import": inference.import_docmem(scale.rounds),
            }


def main(given: list[str] | None = None) -> int:
    """Measure the parts asked for, write the results, print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts only")
    parser.add_argument("--fast", action="store_true", help="a smoke test: its numbers mean little")
    parser.add_argument("--out", type=Path, help="folder of RESULTS.md and results.json")
    parser.add_argument("--gpu-epochs", type=int, default=500, help="at Pythia-1B's shape")
    options = parser.parse_args(given)
    if options.fast and options.out is None:
        parser.error("the numbers of --fast mean little; give them a folder of their own: --out")
    out, started = options.out or Path(__file__).parent, time.monotonic()
    stored = out / "results.json"
    results = json.loads(stored.read_text(encoding="utf-8"))["parts"] if stored.exists() else {}
    logging.disable_progress_bar()
    bench = Bench(FAST if options.fast else Scale(), options.gpu_epochs)
    for part in options.only:
        print(f"[{time.monotonic() - started:4.0f} s] {part}", file=sys.stderr, flush=True)
        numbers = getattr(bench, part)()
        if isinstance(numbers, list):
            numbers = [asdict(comparison) for comparison in numbers]
        if numbers is not None:
            today = datetime.date.today().isoformat()
            results[part] = {"machine": machine(), "date": today, "numbers": numbers}
            write_json(stored, {"parts": results})
    page = render(results)
    write_text(out / "RESULTS.md", page)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
