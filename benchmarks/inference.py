"""A finished run in use: the DocRep plane, dragging, generation, figures; and the import."""

import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.baselines import FullForwards
from benchmarks.measure import Numbers, alternate, in_fresh_process, seconds_of
from docmem.core.hook import attach
from docmem.evaluation.cached import first_segments
from docmem.evaluation.plane import KeyPlane, key_plane
from docmem.lm.generation import generate, generate_text
from docmem.lm.loading import LanguageModel
from docmem.plots.figures import draw_figures
from docmem.training.run import Run

PROMPT_WORDS = 24


@torch.no_grad()
def plane(run: Run, lm: LanguageModel, points: int, sampled: int) -> tuple[KeyPlane, Numbers]:
    """The DocRep plane of first segments; full hooked forwards at some points of it."""
    memory = run.load_memory()
    found: dict[Any, Any] = {}

    def read_all() -> None:
        found["plane"] = key_plane(first_segments(run, lm), memory, points=points)

    seconds = seconds_of(read_all)
    axis, ce = found["plane"].axis, found["plane"].ce
    full = FullForwards(first_segments(run, lm))

    def read(up: int, across: int) -> None:
        doc_rep = torch.stack([axis[across], axis[up]])[None]
        ces = [full.cross_entropies(i, memory, doc_rep) for i in range(len(full.batches))]
        found[up, across] = (ce[:, up, across] - torch.cat(ces).cpu()).abs().max().item()

    cells = [divmod(cell, points) for cell in random.Random(0).sample(range(points**2), sampled)]
    read(*cells[0])  # warm-up
    return found["plane"], {
        "points": points,
        "documents": len(full.batches),
        "seconds": seconds,
        "full_forward_seconds": [seconds_of(lambda c=cell: read(*c)) for cell in cells],
        "difference": max(found[cell] for cell in cells),
    }


def dragging(run: Run, lm: LanguageModel, measured: KeyPlane, moves: int) -> Numbers:
    """A point dragged through the plane in the live widget: seconds to the numbers at each place.

    The point moves along a Lissajous curve over the whole plane, where the widget interpolates in
    the `measured` plane; at every tenth place it is let go and measured there.
    """
    from docmem import explore  # needs ipywidgets and anywidget

    explorer = explore.key_plane(run, lm=lm, plane=measured)
    extent = float(measured.axis[-1])

    def seconds(answer: Callable[[float, float], object], steps: Iterable[int]) -> list[float]:
        answer(0.0, 0.0)  # warm-up
        turns = [2 * math.pi * step / moves for step in steps]
        places = [(extent * math.sin(3 * t), extent * math.sin(2 * t + 0.5)) for t in turns]
        return [seconds_of(lambda p=place: answer(*p)) for place in places]

    try:
        return {
            "documents": len(run.documents),
            "move_seconds": seconds(explorer.move, range(moves)),
            "rest_seconds": seconds(explorer.rest, range(0, moves, 10)),
        }
    finally:
        explorer.close()


def generation(run: Run, lm: LanguageModel, pairs: int, new_tokens: int) -> Numbers:
    """Greedy generation with a KV cache, under a document and by the base LM, in turn."""
    document, memory = run.documents[0], run.load_memory()
    prompt = " ".join(document.text.split()[:PROMPT_WORDS])
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}

    def by_base_lm() -> str:
        return generate_text(lm.model, lm.tokenizer, prompt, **options)

    def under_document() -> str:
        with attach(lm.model, memory, run.config.hook_memory_layer) as hooked:
            return generate(hooked, lm.tokenizer, prompt, document.title, **options)

    seconds = alternate({"base": by_base_lm, "document": under_document}, pairs, warm_up=2)
    base, under = seconds["base"], seconds["document"]
    return {
        "new_tokens": new_tokens,
        "base_seconds": base,
        "document_seconds": under,
        "slowdown_percent": (100 * (np.divide(under, base) - 1)).tolist(),
    }


def figures(run: Run, points: int) -> Numbers:
    """Opening a copy of a run and drawing all its figures, first without cached evaluations."""
    with tempfile.TemporaryDirectory() as folder:
        copied = shutil.copytree(run.path, Path(folder) / "run")
        first, again = (
            seconds_of(lambda: draw_figures([Run.open(copied)], Path(folder), points=points))
            for _ in range(2)
        )
    times = {"seconds": first, "again_seconds": again}
    return {"points": points, "snapshots": len(run.load_snapshots().epochs), **times}


IMPORT = """
import time
started = time.perf_counter()
import torch
alone = time.perf_counter()
import docmem
print(alone - started, time.perf_counter() - alone)
"""


def import_docmem(processes: int) -> Numbers:
    """`import docmem` after `import torch`, each in a fresh process; the first is the warm-up."""
    printed = [in_fresh_process(IMPORT).split() for _ in range(processes + 1)]
    torch_seconds, docmem_seconds = np.array(printed[1:], dtype=float).T.tolist()
    return {"torch_seconds": torch_seconds, "docmem_seconds": docmem_seconds}
