"""One prompt, continued under a document's DocRep, under others, and by the base LM.

    docmem.recall(run, "Cyclone Odalys")           # what the memory gives back of a document
    docmem.compare(run, "Cyclone Odalys")          # the same prompt under four conditions

Both print as text and show as a table in a notebook: what the LM writes, which parts stand word
for word in the document, and the cross entropy of the document's true continuation.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch

from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document, heading, segments
from docmem.errors import EVERYTHING, Count, DocmemError, check_count, check_type, checked, counted
from docmem.evaluation.attribution import BASE_LM
from docmem.evaluation.recalled import Comparison, Recalled
from docmem.lm.forward import TokenBatch, check_bare, forward_inputs, owned, without_dropout
from docmem.lm.generation import ALL_ENTRIES, generate_text
from docmem.lm.head import token_losses
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

NEW_TOKENS = 32
PROMPT_WORDS = 10
LONGEST = 40
"""Characters of a word that a prompt is not cut in: some scripts have no spaces."""


@checked
def opening(
    document: Document, segment: int = 0, words: Count = PROMPT_WORDS, segment_length: int = 64
) -> str:
    """The first words of a document's segment, without its title line: a prompt to recall it by.

    The title itself is the prompt where nothing follows it.

    Args:
        document: the document.
        segment: index of the segment, from 0.
        words: how many words.
        segment_length: words per segment, as in the run's configuration.

    Raises:
        DocmemError: if the document has no such segment, or `words` is below one.
    """
    pieces = segments(document.text, segment_length)
    if not 0 <= segment < len(pieces):
        known = "segment 0" if len(pieces) == 1 else f"a segment from 0 to {len(pieces) - 1}"
        raise DocmemError(
            f"{document.title!r} has {counted(len(pieces), 'segment')} of {segment_length} words; "
            f"give {known}, not {segment}."
        )
    title, piece = heading(document.text), pieces[segment]
    rest = piece.removeprefix(" ".join(title[0].split())) if title else piece
    first = (rest or piece).split()[:words]
    cut = next((n for n, word in enumerate(first) if len(word) > LONGEST), words)
    return " ".join(word[:LONGEST] for word in first[: cut + 1])


@checked
def recall(
    run: Run,
    document: str | int,
    prompt: str | None = None,
    *,
    lm: LanguageModel | None = None,
    segment: int = 0,
    max_new_tokens: int = NEW_TOKENS,
) -> Recalled:
    """Continue a prompt under a document's own DocRep, and compare with its true continuation.

    Args:
        run: a trained run.
        document: the document's title or index.
        prompt: what the LM is given; None: the first words of segment `segment`.
        lm: the run's LM; None: loaded.
        segment: index of the segment that gives the prompt, from 0.
        max_new_tokens: tokens to write.

    Raises:
        DocmemError: as `compare`.
    """
    title = run.titles[run.load_memory().index_of(document)]
    options: dict[str, Any] = {"segment": segment, "max_new_tokens": max_new_tokens}
    return compare(run, document, prompt, lm=lm, under={title: title}, **options)[0]


@checked
def compare(
    run: Run,
    document: str | int,
    prompt: str | None = None,
    *,
    lm: LanguageModel | None = None,
    under: Mapping[str, Any] | None = None,
    memory: DocumentMemory | None = None,
    segment: int = 0,
    max_new_tokens: int = NEW_TOKENS,
) -> Comparison:
    """Continue one prompt under several conditions, and compare each with a document's text.

    Args:
        run: a trained run.
        document: title or index of the document to compare with.
        prompt: what the LM is given; None: the first words of segment `segment`, as far as the
            LM's context allows.
        lm: the run's LM; None: loaded.
        under: name of each condition to what is in force: a title or index of the memory, a
            DocRep, `docmem.ALL_ENTRIES` or `docmem.BASE_LM`. None: the document's own DocRep, the
            next document's (neither, if the memory lacks it), all entries, and the base LM.
        memory: another memory for the run's LM, such as one after forgetting; None: the run's.
        segment: index of the segment that gives the prompt, from 0.
        max_new_tokens: tokens to write.

    Raises:
        DocmemError: if the run has no memory, `lm` or `memory` is of another LM, there is no such
            document, segment or condition, or the prompt is empty or too long for the LM.
    """
    trained, layer = run.load_memory(), run.config.hook_memory_layer
    source = run.documents[trained.index_of(document)]
    chosen = trained if memory is None else memory
    if lm is None:
        lm = run.load_lm()
    with owned(lm.model):  # a training in another thread changes it for itself
        run.check_lm(lm)
    if prompt is None:
        prompt = opening(source, segment, segment_length=run.config.segment_length)
        prompt = lm.prompt(prompt, max_new_tokens)
    if under is None:
        known = chosen.titles or run.titles[: chosen.config.n_docs]
        under = {}
        if source.title in known:  # it may have been dropped
            own = known.index(source.title)
            following = (own + 1) % len(known)
            under = {known[own]: own, known[following]: following}
        under |= {EVERYTHING: ALL_ENTRIES, BASE_LM: BASE_LM}
    return continuations(lm, chosen, layer, source, prompt, under, max_new_tokens=max_new_tokens)


@torch.no_grad()
def continuations(
    lm: LanguageModel,
    memory: DocumentMemory,
    layer: int,
    document: Document,
    prompt: str,
    under: Mapping[str, Any],
    *,
    max_new_tokens: int = NEW_TOKENS,
) -> Comparison:
    """What `compare` does, for an LM, a memory, a layer (from 0) and a document given one by one.

    Raises:
        DocmemError: as `compare`.
    """
    check_type("prompt", prompt, str)
    check_count("max_new_tokens", max_new_tokens)
    if not under:
        raise DocmemError("under names no condition; name at least one, or give None.")
    prompt = " ".join(prompt.split())
    source = " ".join(document.text.split())  # words with one space between, as segments are read
    batch, given = _with_truth(lm, source, prompt, max_new_tokens)
    pieces = [] if batch is None else _pieces(lm, batch.input_ids[0].tolist(), given)
    rows = []
    with owned(lm.model):  # so that no other thread attaches a memory beside this one
        check_bare(lm.blocks)
        for name, whose in under.items():
            losses = torch.empty(0)
            with _in_force(lm, memory, layer, whose):
                text = generate_text(lm.model, lm.tokenizer, prompt, max_new_tokens=max_new_tokens)
                if batch is not None:
                    with without_dropout(lm.model):
                        logits = lm.model(**forward_inputs(lm.model, batch)).logits
                    losses = token_losses(logits, batch)[0, given - 1 :].cpu()
            rows.append(Recalled(document, prompt, name, text, pieces, losses))
    return Comparison(rows)


def _with_truth(
    lm: LanguageModel, source: str, prompt: str, most: int
) -> tuple[TokenBatch | None, int]:
    """A prompt and what follows it in a text, at most so many tokens; and the prompt's tokens.

    Where it stands as whole words, there; else where it begins a word. None if nothing follows
    that has tokens of its own.
    """
    if not prompt:
        return None, 0
    found = list(re.finditer(rf"(?<!\S){re.escape(prompt)}", source))
    own = lm.tokenize([prompt]).input_ids
    given = own.shape[1]
    longest = min(given + most, lm.context or given + most)
    for one in sorted(found, key=lambda match: source[match.end() : match.end() + 1].isalnum()):
        rest = source[one.end() :].split(" ")[: most + 1]
        batch = lm.tokenize([prompt + " ".join(rest)], longest)
        if batch.input_ids.shape[1] > given and torch.equal(batch.input_ids[:, :given], own):
            return batch, given
    return None, given


@contextmanager
def _in_force(lm: LanguageModel, memory: DocumentMemory, layer: int, whose: Any) -> Iterator[None]:
    """Within: the LM reads and writes under a DocRep, all entries, or without memory."""
    if isinstance(whose, str) and whose == BASE_LM:
        yield
        return
    document = None if whose is ALL_ENTRIES else whose
    with attach(lm.model, memory, layer) as hooked, hooked.document(document):
        yield


def _pieces(lm: LanguageModel, ids: list[int], given: int) -> list[str]:
    """The text of each token from number `given` on; together they are the whole text.

    A character of several tokens is the last one's.
    """
    texts = [
        cast(str, lm.tokenizer.decode(ids[:count], skip_special_tokens=True)).rstrip("\ufffd")
        for count in range(given, len(ids) + 1)
    ]
    return [longer[len(shorter) :] for shorter, longer in itertools.pairwise(texts)]
