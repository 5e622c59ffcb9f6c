"""Run the benchmark: `python -m benchmarks`, or `make bench`.

Parts are measured one after the other and stored in results.json as soon as they are done, each
with its machine and date; RESULTS.md is written anew from what is stored.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.utils import logging

from benchmarks import epochs, inference
from benchmarks.breakdown import breakdown
from benchmarks.measure import machine
from benchmarks.report import render
from benchmarks.shapes import (
    EMBEDDED,
    PYTHIA_1B,
    PYTHIA_6_9B,
    PYTHIA_70M,
    PYTHIA_160M,
    PYTHIA_410M,
    TOY,
    Shape,
    build_lm,
    settings,
    some_documents,
)
from docmem.core.files import write_json, write_text
from docmem.evaluation.plane import KeyPlane
from docmem.experiments.baselines import LoRA
from docmem.experiments.studies.baselines import LORA_LR
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run
from docmem.training.train import train

Numbers = dict[str, Any]
HERE = Path(__file__).parent


class Scale(NamedTuple):
    """How much is measured."""

    documents: int = 10
    segments: int = 4
    epochs: int = 90
    """Of the whole training of the embedded LM."""
    after: tuple[int, ...] = (1, 2, 3, 90)
    """Its epochs after which the others run one each; the first of them in a row are the start."""
    layers: tuple[int, ...] = (1, 0)
    """The embedded LM's other layers: the middle and the first block."""
    rounds: int = 3
    """Timed epochs of each shorter comparison."""
    shapes: tuple[tuple[Shape, tuple[int, ...]], ...] = (
        (PYTHIA_70M, (-1, 2, 0)),
        (PYTHIA_160M, (-1, 5, 0)),
        (PYTHIA_410M, (-1,)),
    )
    """Random LMs on the CPU, and the layers hooked."""
    peak_shape: Shape = PYTHIA_160M
    points: int = 41
    """Of the key plane, across and up."""
    sampled: int = 30
    """Its points that are read the plain way."""
    moves: int = 200
    rests: int = 20
    pairs: int = 30
    """Generations under a document and without."""
    new_tokens: int = 64
    figure_points: int = 21
    """Of the key plane in the figures."""
    processes: int = 3
    """Fresh ones, to import in."""


FULL = Scale()
FAST = Scale(
    documents=2,
    segments=1,
    epochs=2,
    after=(1,),
    layers=(1,),
    rounds=1,
    shapes=((TOY, (0,)),),
    peak_shape=TOY,
    points=3,
    sampled=2,
    moves=5,
    rests=2,
    pairs=2,
    new_tokens=4,
    figure_points=3,
    processes=1,
)


class Bench:
    """The parts, and what they share: the embedded LM, its documents, one finished run, its plane.

    Args:
        scale: how much is measured.
        gpu_epochs: epochs of docmem at Pythia-1B's shape on the GPU.
        folder: where the run is kept meanwhile.
    """

    def __init__(self, scale: Scale, gpu_epochs: int, folder: Path) -> None:
        self.scale, self.gpu_epochs, self.folder = scale, gpu_epochs, folder
        self.documents = some_documents(scale.documents)
        self.config = settings(
            EMBEDDED,
            num_epochs=scale.epochs,
            max_segments=scale.segments,
            save_dir=folder / "run",
        )
        self.parts: dict[str, Callable[[], Numbers | None]] = {
            "embedded": self.embedded,
            "profile": self.profile,
            "plane": self.plane,
            "drag": self.drag,
            "generate": self.generate,
            "figures": self.figures,
            "import": self.importing,
            "pythia": self.pythia,
            "memory": self.memory,
            "gpu": self.gpu,
        }

    @cached_property
    def lm(self) -> LanguageModel:
        """The embedded LM."""
        return build_lm(EMBEDDED)

    @cached_property
    def run(self) -> Run:
        """A finished run of the preset: that of the part `embedded`, else trained for its own."""
        return train(self.config, lm=self.lm, documents=self.documents, progress=False)

    @cached_property
    def measured_plane(self) -> tuple[KeyPlane, Numbers]:
        """The run's key plane, measured once for the plane and the dragging."""
        return inference.plane(self.run, self.lm, self.scale.points, self.scale.sampled)

    def embedded(self) -> Numbers:
        """A whole training after the last block, LoRA beside it; the start of it at others."""
        lora = LoRA(self.lm, self.documents, self.config, LORA_LR["one LoRA"])
        whole = epochs.compare(self.lm, self.documents, self.config, self.scale.after, lora)[1]
        compared = [whole]
        for layer in self.scale.layers:
            config = settings(
                EMBEDDED,
                num_epochs=self.scale.rounds + 1,
                max_segments=self.scale.segments,
                hook_memory_layer=layer,
            )
            compared.append(epochs.short(self.lm, self.documents, config))
        return {"compared": compared}

    def profile(self) -> Numbers:
        """Where the time of training goes after the embedded LM's last block."""
        config = settings(
            EMBEDDED,
            num_epochs=self.scale.rounds + 1,
            max_segments=self.scale.segments,
            save_dir=self.folder / "profiled",
        )
        return breakdown(self.lm, self.documents, config, self.scale.rounds)

    def pythia(self) -> Numbers:
        """The start of training at Pythia's smaller shapes, two documents of two segments."""
        compared = []
        for shape, layers in self.scale.shapes:
            lm = build_lm(shape.name)
            for layer in layers:
                config = settings(
                    shape.name,
                    num_epochs=self.scale.rounds + 1,
                    segment_length=48,
                    max_segments=2,
                    hook_memory_layer=layer,
                )
                compared.append(epochs.short(lm, some_documents(2), config))
        return {"compared": compared}

    def memory(self) -> Numbers:
        """Peak memory of each baseline, at the paper's batch."""
        shape = self.scale.peak_shape.name
        names = ("original", "frozen", "docmem")
        return {"lm": shape, "bytes": {name: epochs.peak_of(shape, name) for name in names}}

    def plane(self) -> Numbers:
        """The key plane."""
        return self.measured_plane[1]

    def drag(self) -> Numbers:
        """A point dragged through the key plane."""
        plane = self.measured_plane[0]
        return inference.dragging(self.run, self.lm, plane, self.scale.moves, self.scale.rests)

    def generate(self) -> Numbers:
        """Generation under a document."""
        return inference.generation(self.run, self.lm, self.scale.pairs, self.scale.new_tokens)

    def figures(self) -> Numbers:
        """Opening the run and drawing all its figures."""
        return inference.figures(self.run, self.scale.figure_points)

    def importing(self) -> Numbers:
        """`import docmem`."""
        return inference.importing(self.scale.processes)

    def gpu(self) -> Numbers | None:
        """Pythia's larger shapes in bf16; None without a GPU."""
        if not torch.cuda.is_available():
            return None
        compared = [epochs.on_gpu(PYTHIA_1B, self.gpu_epochs, (1, 2, 3))]
        torch.cuda.empty_cache()
        compared.append(epochs.on_gpu(PYTHIA_6_9B, min(self.gpu_epochs, 5), (1, 2)))
        return {"compared": compared}


def load_results(folder: Path) -> Numbers:
    """What results.json in a folder holds, by part; empty if there is none."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8"))["parts"] if path.exists() else {}


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts only")
    parser.add_argument(
        "--fast", action="store_true", help="a smoke test: its numbers mean nothing"
    )
    parser.add_argument("--out", type=Path, help="folder of RESULTS.md and results.json")
    parser.add_argument("--gpu-epochs", type=int, default=500, help="at Pythia-1B's shape")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Measure the parts asked for, write the results, print them."""
    options = arguments(given)
    if options.fast and options.out is None:
        sys.exit("--fast measures nothing of worth; give it a folder of its own with --out.")
    out, started = options.out or HERE, time.monotonic()
    logging.disable_progress_bar()
    results = load_results(out)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(FAST if options.fast else FULL, options.gpu_epochs, Path(folder))
        names = options.only or list(bench.parts)
        if unknown := set(names) - set(bench.parts):
            sys.exit(f"There is no part {unknown.pop()!r}; choose of {', '.join(bench.parts)}.")
        for name in names:
            print(f"[{time.monotonic() - started:4.0f} s] {name}", file=sys.stderr, flush=True)
            numbers = bench.parts[name]()
            if numbers is not None:
                today = datetime.date.today().isoformat()
                results[name] = {"machine": machine(), "date": today, "numbers": numbers}
                write_json(out / "results.json", {"parts": results})
    page = render(results)
    write_text(out / "RESULTS.md", page)
    print(page)
    print(f"{time.monotonic() - started:.0f} s in all; written to {out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
