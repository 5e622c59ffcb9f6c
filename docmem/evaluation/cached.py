"""What a finished run was measured to be, kept in its folder: nothing is measured twice.

    measure(run)                 # recognition and continuation
    measure_plane(run, points=21)

Measurements stand in `measured/` beside the memory they are of. They are taken with the run's own
LM on its own documents; the LM is loaded only if there is something left to measure.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from docmem.core.files import load_tensors, save_tensors
from docmem.editing.doc_reps import plane_extent
from docmem.evaluation.plane import KeyPlane, key_plane
from docmem.evaluation.recall import Completion, Recognition, completion, recognition
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run


class Recall(NamedTuple):
    """How well a run's memory gives back what it was trained on."""

    recognition: Recognition
    """Cross entropies of every document under every DocRep."""
    completion: Completion
    """Share of tokens continued correctly, 16 after 16."""


Loader = Callable[[], LanguageModel]


def measure(run: Run, load: Loader | None = None) -> Recall:
    """Recognition and continuation of a run, on the text it was trained on.

    Args:
        run: a finished run.
        load: gives the LM, if it is needed; None: `run.load_lm`.

    Raises:
        DocmemError: if the run has no memory, or the LM is another one.
    """

    def found() -> dict[str, Tensor]:
        cache, memory = run.cache_hidden_states((load or run.load_lm)()), run.load_memory()
        shares = torch.tensor(completion(cache, memory), dtype=torch.float64)
        return {"ce": recognition(cache, memory).ce, "continued": shares}

    kept = _kept(run, "recall", found)
    return Recall(Recognition(kept["ce"]), Completion(*kept["continued"].tolist()))


def first_segments(run: Run, lm: LanguageModel) -> HiddenStateCache:
    """The first segment of each of the run's documents: what maps of the plane are read with."""
    return cache_hidden_states(lm, run.documents, dataclasses.replace(run.config, max_segments=1))


def measure_plane(run: Run, load: Loader | None = None, points: int = 21) -> KeyPlane:
    """The DocRep plane of a run, over [-1, 1]² or as far as its DocReps reach.

    To stay within a minute each document is read by its first segment only.

    Raises:
        DocmemError: as `measure`; or if there is no plane, as `key_plane`.
    """

    def found() -> dict[str, Tensor]:
        lm = (load or run.load_lm)()
        run.check_lm(lm)
        cache = first_segments(run, lm)
        memory = run.load_memory()
        extent = plane_extent(memory.doc_reps)
        plane = key_plane(cache, memory, points=points, extent=extent, progress=True)
        return plane._asdict()

    return KeyPlane(**_kept(run, f"key_plane_{points}", found))


def _kept(run: Run, name: str, found: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors kept under `name`, if they are of the run's memory as it is now; else `found`.

    In a folder that cannot be written, as a colleague's, they are measured each time.
    """
    path = run.path / "measured" / f"{name}.safetensors"
    memory = hashlib.sha256(
        b"".join(
            part.detach().cpu().numpy().tobytes()
            for part in run.load_memory().state_dict().values()
        )
    ).hexdigest()
    if path.exists():
        tensors, of = load_tensors(path)
        if of["memory"] == memory:
            return tensors
    tensors = found()
    if os.access(run.path, os.W_OK):
        save_tensors(path, tensors, {"memory": memory})
    return tensors
