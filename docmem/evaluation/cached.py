"""Cached evaluation results of a run: nothing is measured twice.

    measure(run)                       # recognition, completion, and what the base LM makes of it
    measure_plane(run, points=61)      # the map of the DocRep plane

Results lie in the run's folder, in `measured/`, with a digest of the memory they are of. They are
taken with the run's own LM on its own documents; the LM is loaded only if something is missing.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from docmem.core.files import load_tensors, save_tensors, tensor_digest
from docmem.errors import DocmemError, Several, check_type, checked
from docmem.evaluation.plane import KeyPlane, key_plane
from docmem.evaluation.recall import (
    DOC_REPS,
    TEXTS,
    Completion,
    Recognition,
    completion,
    recognition,
    sampled,
)
from docmem.lm.cross_entropy import base_cross_entropies, check_texts
from docmem.lm.forward import plain_arithmetic
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run


class Recall(NamedTuple):
    """How well a run's memory gives back what it was trained on."""

    recognition: Recognition
    """Cross entropies of each text read, under DocReps."""
    completion: Completion
    """Share of tokens continued correctly, 16 after 16."""
    base_ce: Float[Tensor, " texts"]
    """Cross entropy of each text read by the base LM, nats per token."""


Loader = Callable[[], LanguageModel]
VERSION = 3
"""What is measured: results of an earlier version are measured again."""


@checked
def measure(run: Run, lm: LanguageModel | Loader | None = None) -> Recall:
    """Recognition and completion of a run, on the text it was trained on; its base LM beside it.

    Of more than 60 documents 60 are read, drawn once and for all; of more than 20, each under the
    nearest 20 DocReps.

    Args:
        run: a finished run.
        lm: the run's LM, or what gives it if it is needed; None: `run.load_lm`.

    Raises:
        DocmemError: if the run has no memory, or the LM is another one.
    """
    texts, load = sampled(len(run.titles), TEXTS), _loader(run, lm)

    def results() -> dict[str, Tensor]:
        documents, memory = [run.documents[index] for index in texts.tolist()], run.load_memory()
        cache = cache_hidden_states(load(), documents, run.config)
        return {
            **recognition(cache, memory, texts, progress=len(texts) > DOC_REPS)._asdict(),
            "completion": torch.tensor(completion(cache, memory, texts=texts), dtype=torch.float64),
            "base_ce": base_cross_entropies(cache),
        }

    cached = _cached(run, "recall", results)
    known = Recognition(cached["ce"], cached["texts"], cached["doc_reps"])
    return Recall(known, Completion(*cached["completion"].tolist()), cached["base_ce"])


@checked
def first_segments(
    run: Run,
    lm: LanguageModel,
    tokens: Several | None = None,
    texts: Int[Tensor, " texts"] | None = None,
) -> HiddenStateCache:
    """The first segment of each of the run's documents: what maps of the plane are read with.

    Args:
        run: the run.
        lm: its LM.
        tokens: only that many of a segment's first tokens; None: all.
        texts: only these documents; None: all.

    Raises:
        DocmemError: if there is no such document.
    """
    if texts is not None:
        check_texts(texts, len(run.titles))
    longest = min(run.config.max_length, tokens or run.config.max_length)
    config = dataclasses.replace(run.config, max_segments=1, max_length=longest)
    read = range(len(run.documents)) if texts is None else texts.tolist()
    return cache_hidden_states(lm, [run.documents[index] for index in read], config)


@checked
def measure_plane(
    run: Run,
    lm: LanguageModel | Loader | None = None,
    points: Several = 61,
    tokens: Several | None = None,
) -> KeyPlane:
    """The DocRep plane of a run, as far as its DocReps reach.

    To take seconds and not minutes, each document is read by its first segment only; with an LM of
    a large vocabulary, better by its first `tokens` tokens. Of more than 60 documents 60 are read.

    Raises:
        DocmemError: as `measure`; or if there is no plane, as `key_plane`.
    """
    load = _loader(run, lm)

    def results() -> dict[str, Tensor]:
        texts, memory = sampled(len(run.titles), TEXTS), run.load_memory()
        cache = first_segments(run, load(), tokens, texts)
        plane = key_plane(cache, memory, points=points, texts=texts, progress=True)._asdict()
        return {part: values for part, values in plane.items() if values is not None}

    # What lies off the plane was once not said: such maps are measured again.
    kind = "key_plane" if run.config.key_dim == 2 else "projection"
    name = f"{kind}_{points}" + (f"_{tokens}" if tokens else "")
    return KeyPlane(**_cached(run, name, results))


def _loader(run: Run, lm: LanguageModel | Loader | None) -> Loader:
    """A function that returns the run's LM. A wrong `lm` is refused here, before measuring."""
    if isinstance(lm, nn.Module):  # which can be called, as a loader
        check_type("lm", lm, LanguageModel)
    if isinstance(lm, LanguageModel):
        run.check_lm(lm)
        return lambda: lm

    def load() -> LanguageModel:
        loaded = (lm or run.load_lm)()
        run.check_lm(loaded)
        return loaded

    return load


def _cached(run: Run, name: str, measure: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The cached results called `name`, if they are of the memory as it is now; else measured.

    In a folder that cannot be written, as a colleague's, they are measured each time.
    """
    path = run.path / "measured" / f"{name}.safetensors"
    memory = tensor_digest(run.load_memory().state_dict(), {"measured": VERSION})
    with suppress(DocmemError):  # none yet, or damaged
        results, metadata = load_tensors(path)
        if metadata.get("memory") == memory:
            return results
    with plain_arithmetic(), torch.no_grad():  # what is stored is what anybody measures
        results = measure()
    if os.access(run.path, os.W_OK):
        try:
            save_tensors(path, results, {"memory": memory})
        except DocmemError as error:  # what was measured is not lost with it
            warnings.warn(f"The results are not kept: {error}", stacklevel=2)
    return results
