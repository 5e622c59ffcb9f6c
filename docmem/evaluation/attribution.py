"""Attribution: which document does a text come from?

attribute(lm, memory, -1, "a text")    # documents and the base LM, the likeliest first
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch

from docmem.core.memory import DocumentMemory
from docmem.errors import BASE_LM as BASE_LM
from docmem.errors import DocmemError, checked
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.forward import plain_arithmetic
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel


class Attribution(NamedTuple):
    """How well a text is explained by one document."""

    title: str
    """The document, or BASE_LM for the LM without memory."""
    ce: float
    """Cross entropy of the text under it, nats per token."""


@plain_arithmetic()
@torch.no_grad()
@checked
def attribute(
    lm: LanguageModel, memory: DocumentMemory, layer: int, text: str
) -> list[Attribution]:
    """Rank the documents, and the LM without memory, by the text's cross entropy, lowest first.

    Raises:
        DocmemError: if the text is blank, shorter than two tokens or longer than the LM's context,
            or the memory is of another LM or layer.
    """
    if not text.strip():
        raise DocmemError("The text is empty; give a sentence or more.")
    batch = lm.tokenize([text])
    if batch.input_ids.shape[1] < 2:
        raise DocmemError(
            "A text of one token says too little to point to a document; give a sentence or more."
        )
    cache = HiddenStateCache(lm, [batch], [0], layer)
    losses = cross_entropies_at(cache, memory, memory.doc_reps)[0].tolist()
    titles = memory.titles or [str(index) for index in range(memory.config.n_docs)]
    base = base_cross_entropies(cache)[0].item()
    ranked = [Attribution(title, ce) for title, ce in zip(titles, losses, strict=True)]
    return sorted([*ranked, Attribution(BASE_LM, base)], key=lambda one: one.ce)


class AttributionCounts(NamedTuple):
    """How many of several passages are attributed rightly."""

    right: int
    """Passages whose text is most likely under the document that they are from."""
    wrong: int
    """Passages most likely under another document."""
    base_lm: int
    """Passages most likely by the LM without memory."""


def count_attributions(
    lm: LanguageModel, memory: DocumentMemory, layer: int, passages: Iterable[tuple[str, str]]
) -> AttributionCounts:
    """Attribute passages, each a (title, text), and count how many are right.

    Raises:
        DocmemError: as `attribute`.
    """
    found = [(title, attribute(lm, memory, layer, text)[0].title) for title, text in passages]
    right = sum(title == best for title, best in found)
    base_lm = sum(best == BASE_LM for _, best in found)
    return AttributionCounts(right, len(found) - right - base_lm, base_lm)


def pointed_to(
    lm: LanguageModel, memory: DocumentMemory, layer: int, prompt: str
) -> tuple[str, bool]:
    """The document under which a prompt is most likely, and whether it is likelier by the base LM.

    With a single document nothing is read.

    Raises:
        DocmemError: as `attribute`.
    """
    if memory.config.n_docs == 1 and memory.titles:
        return memory.titles[0], False
    ranked = [one.title for one in attribute(lm, memory, layer, prompt)]
    return next(title for title in ranked if title != BASE_LM), ranked[0] == BASE_LM
