"""What a memory gives back: recognition, continuation, attribution.

    recognition(prefix, memory)            # own and other cross entropies, documents recognised
    continuation(prefix, memory)           # how much of the text it goes on with correctly
    attribute(lm, memory, -1, "a text")    # which document does this come from?
    without_address(memory, "a title")     # the document uncalled, and not forgotten

All of it is measured by reading or by greedy generation; nothing is sampled.
"""

import copy
import dataclasses
import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from docmem.files import DocmemError
from docmem.hook import attach
from docmem.keyspace import bare_cross_entropies, cross_entropies_at
from docmem.memory import DocumentMemory
from docmem.models import LanguageModel
from docmem.replay import Prefix


class Recognition(NamedTuple):
    """How well DocReps tell documents apart."""

    ce: Float[Tensor, "n_docs n_docs"]
    """Cross entropy of each document's text (down) under each DocRep (across), nats a token."""

    @property
    def own(self) -> float:
        """Mean cross entropy under the own DocRep, nats a token."""
        return self.ce.diagonal().mean().item()

    @property
    def other(self) -> float:
        """Mean cross entropy under the other documents' DocReps, nats a token."""
        n_docs = len(self.ce)
        if n_docs < 2:
            return float("nan")
        return ((self.ce.sum() - self.ce.diagonal().sum()) / (n_docs * (n_docs - 1))).item()

    @property
    def recognised(self) -> int:
        """Documents whose text costs least under their own DocRep."""
        return int((self.ce.argmin(1) == torch.arange(len(self.ce))).sum())


def recognition(prefix: Prefix, memory: DocumentMemory) -> Recognition:
    """Read every document of `prefix` under every DocRep."""
    return Recognition(cross_entropies_at(prefix, memory, memory.doc_reps))


class Continuation(NamedTuple):
    """Share of the following tokens that greedy generation gets right, over all segments."""

    own: float
    """Under the own DocRep."""
    other: float
    """Under another document's, averaged over the others."""
    none: float
    """By the LM without memory."""


def continuation(
    prefix: Prefix, memory: DocumentMemory, prompt_tokens: int = 16, new_tokens: int = 16
) -> Continuation:
    """Give the LM the first tokens of every segment and count the next ones it gets right.

    Segments too short for it are passed over; if all are, the shares are not numbers.
    """
    ids, wanted, own = prompts(prefix, prompt_tokens, new_tokens)
    if not len(own):
        return Continuation(math.nan, math.nan, math.nan)

    def right(doc_reps: Tensor | None) -> float:
        if doc_reps is None:
            written = greedy(prefix.lm.model, ids, new_tokens)
        else:
            hooking = attach(prefix.lm.model, memory, prefix.layer)
            with hooking as hooked, hooked.document(doc_reps):
                written = greedy(hooked.model, ids, new_tokens)
        return (written == wanted).float().mean().item()

    n_docs = memory.config.n_docs
    others = [right(memory.doc_reps[(own + step) % n_docs]) for step in range(1, n_docs)]
    return Continuation(
        right(memory.doc_reps[own]),
        sum(others) / len(others) if others else float("nan"),
        right(None),
    )


def prompts(
    prefix: Prefix, given: int, new: int
) -> tuple[Int[Tensor, "rows given"], Int[Tensor, "rows new"], Int[Tensor, " rows"]]:
    """The first tokens of every segment, the next ones, and whose they are, a row a segment.

    Segments too short for both are passed over.
    """
    rows, owners = [], []
    for owner, batch in zip(prefix.owners, prefix.batches, strict=True):
        for ids, mask in zip(*batch, strict=True):
            if mask.sum() >= given + new:
                rows.append(ids[mask][: given + new])
                owners.append(owner)
    if not rows:
        return torch.empty(0, given).long(), torch.empty(0, new).long(), torch.empty(0).long()
    both = torch.stack(rows)
    return both[:, :given], both[:, given:], torch.tensor(owners)


@torch.no_grad()
def greedy(model: Any, ids: Int[Tensor, "rows given"], new: int) -> Int[Tensor, "rows new"]:
    """What an LM goes on with, most likely token by most likely token, to the full length."""
    written = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )
    return written[:, ids.shape[1] :]


class Attribution(NamedTuple):
    """How well a text is explained by one document."""

    title: str
    """The document, or `(no memory)` for the bare LM."""
    ce: float
    """Cross entropy of the text under it, nats a token."""


@torch.no_grad()
def attribute(
    lm: LanguageModel, memory: DocumentMemory, layer: int, text: str
) -> list[Attribution]:
    """Rank the documents, and the LM without memory, by the text's cross entropy, lowest first.

    Raises:
        DocmemError: if the text is shorter than two tokens or longer than the LM's context.
    """
    batch = lm.tokenize([text])
    if batch.input_ids.shape[1] < 2:
        raise DocmemError("A text of one token says too little; give a sentence or more.")
    prefix = Prefix(lm, [batch], [0], layer)
    memory = memory.to(prefix.device)
    losses = cross_entropies_at(prefix, memory, memory.doc_reps)[0].tolist()
    titles = memory.titles or [str(index) for index in range(memory.config.n_docs)]
    bare = bare_cross_entropies(prefix)[0].item()
    ranked = [Attribution(title, ce) for title, ce in zip(titles, losses, strict=True)]
    return sorted([*ranked, Attribution("(no memory)", bare)], key=lambda one: one.ce)


def without_address(memory: DocumentMemory, document: str | int) -> DocumentMemory:
    """A copy of the memory that cannot call a document: its DocRep and title are gone.

    This is not forgetting. The other weights stay, so whoever gives the same point of the plane
    still reads the text there.

    Raises:
        DocmemError: if there is no such document, or no other.
    """
    index = memory.index_of(document)
    kept = [other for other in range(memory.config.n_docs) if other != index]
    if not kept:
        raise DocmemError("This memory holds one document; without it there is none to call.")
    smaller = copy.deepcopy(memory)
    smaller.config = dataclasses.replace(memory.config, n_docs=len(kept))
    smaller.doc_reps = memory.doc_reps[kept]
    if memory.titles is not None:
        smaller.titles = [memory.titles[other] for other in kept]
    return smaller
