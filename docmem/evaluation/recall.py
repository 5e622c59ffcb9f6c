"""What a memory gives back: recognition and completion.

    recognition(cache, memory)      # own and other cross entropies, documents recognised
    completion(cache, memory)       # share of its texts that the LM completes right

Both are measured by reading or by greedy generation; no token is sampled. Of more than 20 documents
a text is read under the nearest 20 DocReps, of more than 60 documents 60 are read.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.errors import Count, Natural, checked
from docmem.lm.cross_entropy import check_same_documents, cross_entropies_of, on_device_of
from docmem.lm.forward import plain_arithmetic
from docmem.lm.generation import greedy, read_prompts
from docmem.lm.hidden_states import HiddenStateCache

# Texts that recognition and completion read of a run, at most, and DocReps under which a text is
# read: so many documents are read as a whole; of more, a sample, which the table says.
TEXTS, DOC_REPS = 60, 20
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

    ce: Float[Tensor, "texts doc_reps"]
    """Cross entropy of each document's text (down) under DocReps (across), nats per token."""
    texts: Int[Tensor, " texts"]
    """Whose text each row is: all documents, or those that were sampled."""
    doc_reps: Int[Tensor, "texts doc_reps"]
    """Whose DocRep each is: all documents', or the own and the nearest ones."""

    @classmethod
    def of_all(cls, ce: Float[Tensor, "n_docs n_docs"]) -> "Recognition":
        """Of every document's text (down) under every document's DocRep (across)."""
        everyone = torch.arange(len(ce))
        return cls(ce, everyone, everyone.expand(len(ce), -1))

    @property
    def is_own(self) -> Bool[Tensor, "texts doc_reps"]:
        """Which cross entropies are under the own DocRep: one in each row."""
        return self.doc_reps == self.texts[:, None]

    @property
    def own_ce(self) -> Float[Tensor, " texts"]:
        """Cross entropy of each text under its own DocRep, nats per token."""
        return self.ce[self.is_own]

    @property
    def own(self) -> float:
        """Mean cross entropy under the own DocRep, nats per token."""
        return self.own_ce.mean().item()

    @property
    def other(self) -> float:
        """Mean cross entropy under the other DocReps, nats per token."""
        return self.ce[~self.is_own].mean().item()  # not a number with a single document

    @property
    def lowest_pair(self) -> LowestPair:
        """The lowest cross entropy of any document under any other's DocRep, and of which two.

        The mean `other` hides a pair of documents that leak into each other; this does not. With a
        single document there is no pair, and the cross entropy is not a number.
        """
        others = self.others()
        row, column = divmod(int(others.argmin()), others.shape[1])
        ce = others[row, column].item() if others.shape[1] > 1 else math.nan
        return LowestPair(ce, int(self.texts[row]), int(self.doc_reps[row, column]))

    @property
    def margin(self) -> float:
        """Worst over the documents: lowest cross entropy under another's DocRep less the own.

        In nats per token. Above zero, every document is recognised; not a number with a single one.
        """
        if self.ce.shape[1] < 2:
            return math.nan
        return (self.others().min(1).values - self.own_ce).min().item()

    def others(self) -> Float[Tensor, "texts doc_reps"]:
        """The cross entropies with infinity in place of each document's own."""
        return self.ce.masked_fill(self.is_own, math.inf)

    @property
    def recognised(self) -> int:
        """Documents whose text costs least under their own DocRep."""
        best = self.doc_reps.gather(1, self.ce.argmin(1, keepdim=True))[:, 0]
        return int((best == self.texts).sum())


def sampled(n_docs: int, most: int) -> Int[Tensor, " texts"]:
    """Indices of the documents that are read: all, or `most` of them, the same in every call."""
    drawn = torch.randperm(n_docs, generator=torch.Generator().manual_seed(0), device="cpu")
    return drawn[:most].sort().values


@plain_arithmetic()
@torch.no_grad()
@checked
def recognition(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    texts: Int[Tensor, " texts"] | None = None,
    *,
    doc_reps: Count = DOC_REPS,
    progress: bool = False,
) -> Recognition:
    """Read documents under their own DocRep and others': the cost grows with the documents only.

    Args:
        cache: the texts.
        memory: the memory.
        texts: the documents whose texts these are; None: `cache` holds every document.
        doc_reps: under how many DocReps a text is read, at most: its own and the nearest to it,
            where documents are mistaken for each other first.
        progress: show a bar.

    Raises:
        DocmemError: if `cache` reads other documents than the memory holds.
    """
    check_same_documents(cache, memory, texts)
    memory, places = on_device_of(cache, memory), memory.doc_reps.cpu()
    texts = torch.arange(len(places)) if texts is None else texts
    nearest = torch.arange(len(places)).expand(len(texts), -1)
    if len(places) > doc_reps:
        distance = torch.cdist(places[texts], places)
        distance.scatter_(1, texts[:, None], -1.0)  # the own one is among them, whoever shares it
        nearest = distance.topk(doc_reps, largest=False).indices.sort().values
    bar = tqdm(nearest, desc="recognition", unit="document", disable=not progress)
    rows = [cross_entropies_of(cache, memory, row, places[under]) for row, under in enumerate(bar)]
    return Recognition(torch.stack(rows), texts, nearest)


class Completion(NamedTuple):
    """Completion accuracy: share of tokens that greedy generation gets right, over all segments."""

    own: float
    """Under the own DocRep."""
    other: float
    """Under another document's, averaged over the others."""
    none: float
    """By the base LM."""

    def __str__(self) -> str:
        if math.isnan(self.own):
            return "not measured, since every segment is too short"
        other = "–" if math.isnan(self.other) else f"{self.other:.0%}"
        return f"own DocRep {self.own:.0%}, another's {other}, base LM {self.none:.0%}"


@plain_arithmetic()
@torch.no_grad()
@checked
def completion(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    prompt_tokens: Count = 16,
    new_tokens: Count = 16,
    others: Natural = OTHERS,
    texts: Int[Tensor, " texts"] | None = None,
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
        texts: the documents whose texts these are; None: `cache` holds every document.

    Raises:
        DocmemError: as `recognition`, or if a number is below one (`others`: zero).
    """
    check_same_documents(cache, memory, texts)
    ids, wanted, own = prompts(cache, prompt_tokens, new_tokens)
    own = own if texts is None else texts[own]
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
    base = [greedy(model, part, new_tokens) for part in ids.split(ROWS_AT_ONCE)]
    return Completion(
        shares[:, 0].mean().item(),
        shares[:, 1:].mean().item(),  # not a number if there is no other document
        (torch.cat(base) == wanted).float().mean().item(),
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
    both = torch.stack(rows) if rows else torch.empty(0, given + new).long()
    return both[:, :given], both[:, given:], torch.tensor(doc_ids).long()
