"""What a memory gives back: recognition and completion.

    recognition(cache, memory)      # own and other cross entropies, documents recognised
    completion(cache, memory)       # share of its texts that the LM completes right

Both are measured by reading or by greedy generation; nothing is sampled.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.errors import check_count, checked
from docmem.lm.cross_entropy import check_same_documents, cross_entropies_at, on_device_of
from docmem.lm.generation import greedy, read_prompts
from docmem.lm.hidden_states import HiddenStateCache

# Other DocReps under which each segment is continued.
OTHERS = 3
# Rows that are continued at once.
ROWS_AT_ONCE = 256


class LowestPair(NamedTuple):
    """The document and the other document's DocRep that are told apart worst."""

    ce: float
    """Cross entropy of the document's text under the other's DocRep, nats per token."""
    document: int
    """The document whose text is read."""
    doc_rep: int
    """The document under whose DocRep it is read."""


class Recognition(NamedTuple):
    """How well DocReps tell documents apart."""

    ce: Float[Tensor, "n_docs n_docs"]
    """Cross entropy of each document's text (down) under each DocRep (across), nats per token."""

    @property
    def own(self) -> float:
        """Mean cross entropy under the own DocRep, nats per token."""
        return self.ce.diagonal().mean().item()

    @property
    def other(self) -> float:
        """Mean cross entropy under the other documents' DocReps, nats per token."""
        n_docs = len(self.ce)
        if n_docs < 2:
            return math.nan
        return ((self.ce.sum() - self.ce.diagonal().sum()) / (n_docs * (n_docs - 1))).item()

    @property
    def lowest_pair(self) -> LowestPair:
        """The lowest cross entropy of any document under any other's DocRep, and of which two.

        The mean `other` hides a pair of documents that leak into each other; this does not. With a
        single document there is no pair, and the cross entropy is not a number.
        """
        others = self.others()
        document, doc_rep = divmod(int(others.argmin()), len(others))
        ce = others[document, doc_rep].item()
        return LowestPair(ce if len(others) > 1 else math.nan, document, doc_rep)

    @property
    def margin(self) -> float:
        """Worst over the documents: lowest cross entropy under another's DocRep less the own.

        In nats per token. Above zero, every document is recognised; not a number with a single one.
        """
        if len(self.ce) < 2:
            return math.nan
        return (self.others().min(1).values - self.ce.diagonal()).min().item()

    def others(self) -> Float[Tensor, "n_docs n_docs"]:
        """The cross entropies with infinity in place of each document's own."""
        return self.ce.clone().fill_diagonal_(math.inf)

    @property
    def recognised(self) -> int:
        """Documents whose text costs least under their own DocRep."""
        return int((self.ce.argmin(1) == torch.arange(len(self.ce))).sum())


@checked
def recognition(cache: HiddenStateCache, memory: DocumentMemory) -> Recognition:
    """Read every document of `cache` under every DocRep.

    Raises:
        DocmemError: if `cache` reads other documents than the memory holds.
    """
    check_same_documents(cache, memory)
    return Recognition(cross_entropies_at(cache, memory, memory.doc_reps))


class Completion(NamedTuple):
    """Completion accuracy: share of tokens that greedy generation gets right, over all segments."""

    own: float
    """Under the own DocRep."""
    other: float
    """Under another document's, averaged over the others."""
    none: float
    """By the base LM."""


@torch.no_grad()
@checked
def completion(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    prompt_tokens: int = 16,
    new_tokens: int = 16,
    others: int = OTHERS,
) -> Completion:
    """Give the LM the first tokens of every segment and count the next ones it gets right.

    Segments too short for it are left out; if all are, the shares are not numbers.

    Many rows are continued at once, each under a DocRep of its own. Where the memory is after the
    last block, a prompt is read once for all DocReps. Cost: segments · (2 + others) rows.

    Args:
        cache: the documents' segments.
        memory: the memory.
        prompt_tokens: tokens given.
        new_tokens: tokens written.
        others: under how many other DocReps each segment is continued. Segments take them in
            turn, so that together they are spread evenly over all other documents; with no more
            other documents than that, each segment is continued under all of them.

    Raises:
        DocmemError: as `recognition`, or if a number is below one (`others`: zero).
    """
    check_same_documents(cache, memory)
    for name, value in (("prompt_tokens", prompt_tokens), ("new_tokens", new_tokens)):
        check_count(name, value)
    check_count("others", others, 0)
    ids, wanted, own = prompts(cache, prompt_tokens, new_tokens)
    if not len(own):
        return Completion(math.nan, math.nan, math.nan)
    memory, model = on_device_of(cache, memory), cache.lm.model
    last = cache.layer == len(cache.blocks) - 1
    readers = readers_of(own, memory.config.n_docs, others)  # (segments, 1 + others)
    repeats = readers.shape[1]

    def right(ids: Tensor, wanted: Tensor, readers: Tensor) -> Tensor:
        """Share of right tokens, one row per segment, one column per reader."""
        past = read_prompts(model, ids, repeats) if last else None
        hooking = attach(model, memory, cache.layer)
        with hooking as hooked, hooked.document(memory.doc_reps[readers.flatten()]):
            written = greedy(hooked.model, ids.repeat_interleave(repeats, 0), new_tokens, past)
        return (written.unflatten(0, (-1, repeats)) == wanted[:, None]).float().mean(2)

    at_once = max(1, ROWS_AT_ONCE // repeats)
    parts = zip(*(tensor.split(at_once) for tensor in (ids, wanted, readers)), strict=True)
    shares = torch.cat([right(*part) for part in parts])
    return Completion(
        shares[:, 0].mean().item(),
        shares[:, 1:].mean().item(),  # not a number if there is no other document
        (greedy(model, ids, new_tokens) == wanted).float().mean().item(),
    )


def readers_of(own: Int[Tensor, " rows"], n_docs: int, others: int) -> Int[Tensor, "rows readers"]:
    """Under whose DocReps each segment is continued: its own document's, then `others` in turn.

    Over the rows all other documents take their turn equally often, counted from each own one.
    """
    taken = torch.arange(len(own) * min(others, n_docs - 1)).view(len(own), -1)
    steps = 1 + taken % max(1, n_docs - 1)
    return torch.cat([own[:, None], (own[:, None] + steps) % n_docs], dim=1)


def prompts(
    cache: HiddenStateCache, given: int, new: int
) -> tuple[Int[Tensor, "rows given"], Int[Tensor, "rows new"], Int[Tensor, " rows"]]:
    """The first tokens of every segment, the next ones, and whose they are, one row per segment.

    Segments too short for both are left out.
    """
    rows, doc_ids = [], []
    for doc_id, batch in zip(cache.doc_ids, cache.batches, strict=True):
        for ids, mask in zip(*batch, strict=True):
            if mask.sum() >= given + new:
                rows.append(ids[mask][: given + new])
                doc_ids.append(doc_id)
    if not rows:
        return torch.empty(0, given).long(), torch.empty(0, new).long(), torch.empty(0).long()
    both = torch.stack(rows)
    return both[:, :given], both[:, given:], torch.tensor(doc_ids)
