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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.utils import logging

from benchmarks import growth, inference
from benchmarks.epochs import WAYS, Comparison, breakdown, compare, new_trainer
from benchmarks.leaderboard import (
    NOW,
    RATES,
    RELU,
    ROWS,
    SEARCH_SEED,
    SEEDS,
    Outcome,
    leaderboard,
    train_rows,
)
from benchmarks.measure import Numbers, in_fresh_process, machine
from benchmarks.report import render
from benchmarks.scale import scale_page
from benchmarks.shapes import build_lm, encyclopedia, settings
from docmem.core.files import write_json, write_text
from docmem.experiments.rivals_rates import Tried
from docmem.lm.bfloat16 import fast_dtype
from docmem.lm.loading import LanguageModel
from docmem.training.config import DType, preset
from docmem.training.run import Run
from docmem.training.train import train

PARTS = ("leaderboard", "bfloat16", "profile", "epochs", "inference", "gpu")
"""Of a whole run."""
MORE = ("seeds", "memory", "growth", "page", "rates", "avx2")
"""To be asked for: each takes minutes, and only some changes need it."""

INSTRUCTIONS = {
    "AVX-512": {},
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}  # fmt: skip
"""What a processor may use, by what its libraries of products are told."""


class Scale(NamedTuple):
    """How much is measured."""

    documents: int = 10
    epochs: int | None = None  # at most, of every training; None: as many as each asks for
    rounds: int = 3  # timed epochs of each way of training
    shapes: tuple[tuple[str, int, tuple[int, ...]], ...] = (
        ("tiny", 10, (-1, 0)),
        ("Pythia-160m", 2, (-1, 5)),
    )  # LMs on the CPU, how many documents, and the hooked layers
    peak_shape: str = "Pythia-160m"
    points: int = 41  # of the DocRep plane, across and up
    repeats: int = 30  # of a full forward, and of a generation
    new_tokens: int = 64
    growth: tuple[tuple[int, int, bool], ...] = growth.ROWS


FAST = Scale(2, 1, 1, (("toy", 2, (0,)),), "toy", 5, 2, 4, ((2, 1, False),))


class Bench:
    """The parts."""

    def __init__(self, scale: Scale) -> None:
        self.scale, self.lm = scale, build_lm("tiny")
        self.documents, self.preset, self.rows = encyclopedia(scale.documents), preset("tiny"), ROWS
        if most := scale.epochs:
            self.preset = replace(self.preset, num_epochs=most)
            self.rows = tuple(replace(row, epochs=most, seeds=row.seeds[:1]) for row in ROWS)

    def leaderboard(self) -> list[Outcome]:
        """Seconds to ten documents."""
        return leaderboard(self.lm, self.documents, self.rows, self.scale.rounds)

    def seeds(self) -> list[Outcome]:
        """The leaderboard with all its rows from five seeds."""
        rows = [replace(row, seeds=SEEDS) for row in self.rows]
        return leaderboard(self.lm, self.documents, rows, self.scale.rounds)

    def bfloat16(self) -> list[Outcome] | None:
        """The rows of docmem as it is now, in bfloat16; None where the processor is slow at it."""
        if fast_dtype("cpu") != "bfloat16":
            return None
        return self.now(build_lm("tiny", "bfloat16"))

    def now(self, lm: LanguageModel) -> list[Outcome]:
        """The rows of docmem as it is now."""
        return train_rows(lm, self.documents, [row for row in self.rows if row.name in (NOW, RELU)])

    def avx2(self) -> list[Outcome] | None:
        """These rows with AVX-512 and without it, on one processor; None on one that has none."""
        if torch.backends.cpu.get_cpu_capability() != "AVX512":
            return None
        code = f"from benchmarks.__main__ import *; b = Bench({self.scale!r}); "
        code += "print(json.dumps([asdict(one) for one in b.now(b.lm)]))"
        return [
            Outcome(**{**one, "row": f"{one['row'].rpartition(': ')[2]}, {name}"})
            for name, environment in INSTRUCTIONS.items()
            for one in json.loads(in_fresh_process("-c", code, **environment))
        ]

    def rates(self) -> list[Outcome]:
        """Each LoRA at each of its rates, from a seed that the leaderboard does not use."""
        rows = {row.name: row for row in self.rows}
        tried = [
            replace(
                rows[name],
                name=f"{name}, {optimizer} at {rate}",
                changes=Tried(optimizer, rate).settings,
                seeds=(SEARCH_SEED,),
            )
            for name, optimizer, rates in RATES
            for rate in rates
        ]
        return train_rows(self.lm, self.documents, tried)

    def profile(self) -> Numbers:
        """Where the time of an epoch goes, at the start of training."""
        trainer = new_trainer("docmem", self.lm, self.documents, self.preset)
        return breakdown(trainer, self.scale.rounds)

    def epochs(self) -> list[Comparison]:
        """Epochs of each way of training the same, at several shapes and layers."""
        short: Numbers = {"segment_length": 48, "max_segments": 2}
        return [
            self._compare(shape, count, hook_memory_layer=i, **({} if shape == "tiny" else short))
            for shape, count, layers in self.scale.shapes
            for i in layers
        ]

    def gpu(self) -> list[Comparison] | None:
        """Pythia's larger shapes on ten segments of up to 256 tokens; None without a GPU."""
        if not torch.cuda.is_available():
            return None
        return [self._compare(s, 10, "cuda", "bfloat16") for s in ("Pythia-1B", "Pythia-6.9B")]

    def _compare(
        self, shape: str, count: int, device: str = "cpu", dtype: DType = "float32", **changes: Any
    ) -> Comparison:
        lm, config = build_lm(shape, dtype, device), settings(shape, dtype=dtype, **changes)
        return compare(lm, encyclopedia(count), config, self.scale.rounds)

    def memory(self) -> Numbers:
        """Peak memory of each way of training on the CPU, at the paper's batch."""
        shape = self.scale.peak_shape
        code = "from benchmarks.epochs import peak; print(peak({!r}, {!r}))"
        found = {way: int(in_fresh_process("-c", code.format(way, shape))) for way in WAYS}
        return {"lm": shape, "bytes": found}

    def growth(self) -> Numbers:
        """From a few documents to a thousand; states on disk, two processes, two workers."""
        return growth.growth(self.scale.growth, self.scale.rounds)

    def inference(self) -> Numbers:
        """A finished run in use."""
        scale = self.scale
        with tempfile.TemporaryDirectory() as folder:
            run = self._trained(Path(folder) / "run")
            return {
                "figures": inference.first_look(run, self.lm, 61 if scale.points > 10 else 5),
                "plane": inference.plane(run, self.lm, scale.points, scale.repeats),
                "generate": inference.generation(run, self.lm, 2 * scale.repeats, scale.new_tokens),
            }

    def page(self) -> Numbers:
        """The page of a tanh and a relu run, in headless Chromium."""
        from benchmarks.page import page  # no other part needs a browser

        with tempfile.TemporaryDirectory() as folder:
            names = ("tanh", "relu")
            runs = [self._trained(Path(folder) / name, key_activation=name) for name in names]
            return page(runs, self.lm)

    def _trained(self, folder: Path, **changes: Any) -> Run:
        config = replace(self.preset, save_dir=folder, **changes)
        return train(config, lm=self.lm, documents=self.documents, progress=False)


def main(given: list[str] | None = None) -> int:
    """Measure the parts asked for, write the results, print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *MORE], default=PARTS)
    parser.add_argument("--fast", action="store_true", help="a smoke test: its numbers mean little")
    parser.add_argument("--out", type=Path, help="folder of RESULTS.md and results.json")
    options = parser.parse_args(given)
    if options.fast and options.out is None:
        parser.error("the numbers of --fast mean little; give them a folder of their own: --out")
    out = options.out or Path(__file__).parent
    stored = out / "results.json"
    results = json.loads(stored.read_text(encoding="utf-8"))["parts"] if stored.exists() else {}
    logging.disable_progress_bar()
    bench, took = Bench(FAST if options.fast else Scale()), dict.fromkeys(options.only, 0.0)
    for part in options.only:
        print(part, "…", file=sys.stderr, flush=True)
        started = time.monotonic()
        numbers = getattr(bench, part)()
        took[part] = time.monotonic() - started
        if isinstance(numbers, list):
            numbers = [asdict(one) for one in numbers]
        if numbers is not None:
            today = {"machine": machine(), "date": datetime.date.today().isoformat()}
            # Beside those of other processors, which take other seconds to the same memory.
            kind = f", {torch.backends.cpu.get_cpu_capability()}" if part == "leaderboard" else ""
            results[part + kind] = {**today, "numbers": numbers}
            write_json(stored, {"parts": results})
    page = render(results)
    write_text(out / "RESULTS.md", page)
    if "growth" in options.only and options.out is None:
        write_text(out.parent / "docs/scale.md", scale_page(results["growth"]["numbers"]))
    print(page)
    print(*(f"{part}: {s:.0f} s" for part, s in took.items()), sep=", ", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
