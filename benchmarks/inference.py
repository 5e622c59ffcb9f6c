"""What one does with a finished run: the DocRep plane, generation, figures; and the import."""

from __future__ import annotations

import functools
import math
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import alternate, in_fresh_process, now, seconds_of
from docmem.core.hook import attach
from docmem.evaluation.cached import first_segments
from docmem.evaluation.plane import KeyPlane, key_plane
from docmem.editing.doc_reps import plane_extent
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import generate, generate_text
from docmem.lm.head import cross_entropy
from docmem.lm.loading import LanguageModel
from docmem.plots.figures import draw_figures
from docmem.training.run import Run

Numbers = dict[str, Any]
PROMPT_WORDS = 24


def plane(run: Run, lm: LanguageModel, points: int, sampled: int) -> tuple[KeyPlane, Numbers]:
    """The key plane of each document's first segment, against one full hooked forward a point.

    The texts are those of the figures. The plain way reads them under some of the same points, half
    of them before docmem's plane and half after.

    Args:
        run: a finished run.
        lm: its LM.
        points: of the grid, across and up.
        sampled: points that are read the plain way.

    Returns:
        The plane, and the numbers: seconds, and by how much the two ways' losses differ at most.
    """
    batches = first_segments(run, lm).batches
    memory, model = run.load_memory(), lm.model

    @torch.no_grad()
    def plain(doc_rep: Tensor) -> list[float]:
        layer = run.config.hook_memory_layer
        with attach(model, memory, layer) as hooked, hooked.document(doc_rep):
            return [
                cross_entropy(model(**forward_inputs(model, batch)).logits, batch).item()
                for batch in batches
            ]

    extent = plane_extent(memory.doc_reps)
    axis = torch.linspace(-extent, extent, points)
    cells = [(up, across) for up in range(points) for across in range(points)]
    chosen = random.Random(0).sample(cells, sampled)
    read, plain_seconds = {}, []

    def read_plainly(some: list[tuple[int, int]]) -> None:
        for up, across in some:
            started = now()
            read[up, across] = plain(torch.stack([axis[across], axis[up]]))
            plain_seconds.append(now() - started)

    plain(memory.doc_reps[0])  # warm-up
    read_plainly(chosen[: sampled // 2])
    started = now()
    cache = first_segments(run, lm)
    measured = key_plane(cache, memory, points=points, extent=extent)
    seconds = now() - started
    read_plainly(chosen[sampled // 2 :])
    differences = [
        (measured.ce[:, up, across] - torch.tensor(ce)).abs().max().item()
        for (up, across), ce in read.items()
    ]
    return measured, {
        "points": points,
        "documents": len(batches),
        "seconds": seconds,
        "plain_seconds": plain_seconds,
        "difference": max(differences),
    }


def dragging(run: Run, lm: LanguageModel, measured: KeyPlane, moves: int, rests: int) -> Numbers:
    """A point dragged through the plane, as the live widget answers it: numbers at each place.

    Args:
        run: a finished run.
        lm: its LM.
        measured: the map that moves are interpolated in.
        moves: places passed, along a Lissajous curve over the whole plane.
        rests: places where the point is let go and measured.
    """
    from docmem import explore  # needs ipywidgets and anywidget

    explorer = explore.key_plane(run, lm=lm, plane=measured)
    extent = float(measured.axis[-1])

    def places(count: int) -> list[tuple[float, float]]:
        turns = [2 * math.pi * step / count for step in range(count)]
        return [(extent * math.sin(3 * t), extent * math.sin(2 * t + 0.5)) for t in turns]

    def seconds(answer: Callable[[float, float], object], count: int) -> list[float]:
        answer(0.0, 0.0)  # warm-up
        return [seconds_of(functools.partial(answer, x, y)) for x, y in places(count)]

    try:
        return {
            "documents": len(run.documents),
            "move_seconds": seconds(explorer.move, moves),
            "rest_seconds": seconds(explorer.rest, rests),
        }
    finally:
        explorer.close()


def generation(run: Run, lm: LanguageModel, pairs: int, new_tokens: int) -> Numbers:
    """Greedy generation with a KV cache, under a document and by the LM alone, in turn."""
    document, memory = run.documents[0], run.load_memory()
    prompt = " ".join(document.text.split()[:PROMPT_WORDS])
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    model: Any = lm.model

    def bare() -> str:
        return generate_text(model, lm.tokenizer, prompt, **options)

    def under_a_document() -> str:
        with attach(model, memory, run.config.hook_memory_layer) as hooked:
            return generate(hooked, lm.tokenizer, prompt, document.title, **options)

    seconds = alternate({"bare": bare, "document": under_a_document}, pairs, warm_up=2)
    return {"new_tokens": new_tokens, "seconds": seconds}


def figures(run: Run, points: int) -> Numbers:
    """Opening a run's folder and drawing all its figures, its LM loaded where it is needed.

    First as training left the folder, so that all has to be measured; then once more, when what
    was measured may be kept beside the run.
    """
    with tempfile.TemporaryDirectory() as folder:
        copied = shutil.copytree(
            run.path, Path(folder) / "run", ignore=shutil.ignore_patterns("measured")
        )
        first, again = (
            seconds_of(lambda: draw_figures([Run.open(copied)], Path(folder), points=points))
            for _ in range(2)
        )
    snapshots = len(run.load_snapshots().epochs)
    return {"points": points, "snapshots": snapshots, "seconds": first, "again_seconds": again}


IMPORT = """
import time
started = time.perf_counter()
import torch
alone = time.perf_counter()
import docmem
print(alone - started, time.perf_counter() - alone)
"""


def importing(processes: int) -> Numbers:
    """`import docmem` after `import torch`, each in a fresh process; the first is the warm-up."""
    printed = [in_fresh_process("-c", IMPORT).split() for _ in range(processes + 1)]
    torch_seconds, docmem_seconds = zip(*(map(float, pair) for pair in printed[1:]), strict=True)
    return {"torch": list(torch_seconds), "docmem": list(docmem_seconds)}
