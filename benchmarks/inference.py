"""A finished run in use: its first figures, the DocRep plane and generation."""

import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.baselines import FullForwards
from benchmarks.measure import Numbers
from docmem.core.hook import attach
from docmem.evaluation.cached import first_segments, measure
from docmem.evaluation.plane import key_plane
from docmem.experiments.rivals import seconds_of
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.generation import generate, generate_text
from docmem.lm.loading import LanguageModel
from docmem.plots.figures import draw_figures
from docmem.training.run import Run

PROMPT_WORDS = 24


@torch.no_grad()
def plane(run: Run, lm: LanguageModel, points: int, sampled: int) -> Numbers:
    """The DocRep plane of first segments; full hooked forwards at some points of it.

    There docmem's reading of the point is compared with them, and the plane, which interpolates.
    """
    memory, planes, found = run.load_memory(), [], {}

    def read_all() -> None:
        planes.append(key_plane(first_segments(run, lm), memory, points=points))

    seconds = seconds_of(read_all)
    axis, ce = planes[0].axis, planes[0].ce
    cache = first_segments(run, lm)
    full = FullForwards(cache)

    def read(up: int, across: int) -> None:
        doc_rep = torch.stack([axis[across], axis[up]])[None]
        ces = [full.cross_entropies(i, memory, doc_rep) for i in range(len(full.batches))]
        found[up, across] = torch.cat(ces)

    cells = [divmod(cell, points) for cell in random.Random(0).sample(range(points**2), sampled)]
    read(*cells[0])  # warm-up
    took = [seconds_of(partial(read, *cell)) for cell in cells]
    up, across = torch.tensor(cells).T
    wanted = torch.stack([found[cell] for cell in cells], 1)
    exact = cross_entropies_at(cache, memory, torch.stack([axis[across], axis[up]], 1))
    return {
        "points": points,
        "documents": len(full.batches),
        "seconds": seconds,
        "measured_share": planes[0].readings / ce.numel(),
        "full_forward_seconds": took,
        "difference": (exact - wanted).abs().max().item(),
        "plane_difference": (ce[:, up, across] - wanted).abs().max().item(),
    }


def first_look(run: Run, lm: LanguageModel, points: int) -> Numbers:
    """What `docmem figures` does for a new run: measure it, then draw it."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "evaluation_seconds": seconds_of(lambda: measure(run, lm)),
            "seconds": seconds_of(lambda: draw_figures([run], Path(folder), lm=lm, points=points)),
        }


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

    base, under = list[float](), list[float]()
    for number in range(pairs + 2):  # in both orders; the first two warm up
        turn = ((base, by_base_lm), (under, under_document))
        for took, generating in turn[:: -1 if number % 2 else 1]:
            took.append(seconds_of(generating))
    base, under = base[2:], under[2:]
    return {
        "new_tokens": new_tokens,
        "base_seconds": base,
        "document_seconds": under,
        "slowdown_percent": (100 * (np.divide(under, base) - 1)).tolist(),
    }
