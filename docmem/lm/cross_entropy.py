"""Cross entropies per document: under DocReps, and by the base LM, in nats per token."""

import copy
import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from docmem.core.blocks import check_width, text_config
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError, counted
from docmem.lm.head import chunk_bytes
from docmem.lm.hidden_states import HiddenStateCache


@torch.no_grad()
def document_mean(
    cache: HiddenStateCache, doc_id: int, read: Callable[[int], Float[Tensor, " readings"]]
) -> Float[Tensor, " readings"]:
    """Token-weighted mean of `read(batch)` over one document's batches, on the CPU.

    Args:
        cache: the batches.
        doc_id: the document's index.
        read: takes the index of a batch, returns its cross entropies, nats per token.

    Raises:
        DocmemError: if the cache has no batch of this document.
    """
    mine = [index for index, whose in enumerate(cache.doc_ids) if whose == doc_id]
    if not mine:
        raise DocmemError(
            f"The hidden-state cache has no text of document {doc_id}, as they are numbered from "
            "0; give its `doc_ids` without a gap."
        )
    ce = torch.stack([read(index).cpu() for index in mine])
    counts = torch.stack([cache.batches[index].predicted.sum().cpu() for index in mine])
    return (ce * counts[:, None]).sum(0) / counts.sum()


def document_means(
    cache: HiddenStateCache, n_docs: int, read: Callable[[int], Float[Tensor, " readings"]]
) -> Float[Tensor, "n_docs readings"]:
    """The `document_mean` of each of `n_docs` documents."""
    return torch.stack([document_mean(cache, doc_id, read) for doc_id in range(n_docs)])


def check_fits(cache: HiddenStateCache, memory: DocumentMemory) -> None:
    """Raise if the memory was trained at another layer than the cache's, or on another LM."""
    check_width(cache.lm.model, memory.config.d_model)
    trained = memory.origin
    if trained and trained["layer"] != cache.layer:
        raise DocmemError(
            f"The memory was trained at layer {trained['layer']}, and the hidden states are those "
            f"after layer {cache.layer}; give the layer where it was trained."
        )
    # In another number format the fingerprint differs, and the LM need not.
    same_format = trained and trained["dtype"] == cache.lm.dtype
    if same_format and trained["fingerprint"] != cache.fingerprint:
        raise DocmemError(
            f"The memory was trained on the LM {trained['lm']!r}, and {cache.lm.name!r} is another "
            "one, or has changed since; give the LM that it was trained on."
        )


def check_read_whole(epochs: int, steps: int, batches: int) -> None:
    """Raise unless the steps of so many epochs, one batch each, read a document's every batch."""
    if steps < batches:
        raise DocmemError(
            f"epochs is {epochs}, and in the {counted(steps, 'step')} that this makes not all of "
            f"the document's {counted(batches, 'batch', 'batches')} are read; give more epochs."
        )


def check_same_documents(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    texts: Int[Tensor, " texts"] | None = None,
    new: int = 0,
) -> None:
    """Raise unless the cache reads the memory's documents, and `new` more, by an LM that fits.

    With `texts`, those of the memory's documents only.
    """
    check_fits(cache, memory)
    read, known = set(cache.doc_ids), memory.config.n_docs
    if texts is not None:
        check_texts(texts, known)
        if len(texts) != len(read):
            raise DocmemError(
                f"texts names {len(texts)} documents and the hidden-state cache reads {len(read)}; "
                "give the index of each that it reads."
            )
    elif read != set(range(known + new)):
        raise DocmemError(
            f"The hidden-state cache reads {len(read)} documents and the memory holds {known}; "
            "give it those in their order"
            + (f", and then the new one: {known + new}." if new else ".")
        )
    if cache.titles and memory.titles:
        check_order(cache, memory, texts, new)


def check_texts(texts: Int[Tensor, " texts"], n_docs: int) -> None:
    """Raise unless these are indices of documents."""
    for index in texts.tolist():
        if not 0 <= index < n_docs:
            raise DocmemError(
                f"texts names document {index}; documents are numbered from 0 to {n_docs - 1}."
            )


def check_readable(
    cache: HiddenStateCache, memory: DocumentMemory, texts: Int[Tensor, " texts"] | None = None
) -> None:
    """Raise if the cache should read the memory's documents in its order, and does not.

    Without `texts` it may read any others, or a few of them.
    """
    check_fits(cache, memory)
    read = cache.titles or []
    if texts is not None:
        check_same_documents(cache, memory, texts)
    elif len(read) >= memory.config.n_docs and set(read) & set(memory.titles or []):
        check_order(cache, memory)


def check_order(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    texts: Int[Tensor, " texts"] | None = None,
    new: int = 0,
) -> None:
    """Raise unless the titles of the cache's documents are those of the memory's, in its order."""
    read, known = cache.titles or [], memory.titles or []
    indices = range(min(len(read) - new, len(known))) if texts is None else texts.tolist()
    wanted = [known[index] for index in indices]
    for mine, its in itertools.zip_longest(read[: len(read) - new], wanted):
        if mine != its:
            there = "no more documents" if its is None else repr(its)
            raise DocmemError(
                f"The hidden-state cache reads {mine!r} where the memory has {there}; give both "
                "the same documents in one order."
            )


def on_device_of(cache: HiddenStateCache, memory: DocumentMemory) -> DocumentMemory:
    """The memory in float32 on the device of the hidden states, a copy if need be; `check_fits`."""
    check_fits(cache, memory)
    if memory.doc_reps.device == cache.device and memory.doc_reps.dtype == torch.float32:
        return memory
    return copy.deepcopy(memory).to(cache.device, torch.float32)


def cross_entropies_of(
    cache: HiddenStateCache,
    memory: DocumentMemory,
    doc_id: int,
    doc_reps: Float[Tensor, "points key_dim"],
) -> Float[Tensor, " points"]:
    """Cross entropy of one document of `cache` under each DocRep, nats per token, on the CPU.

    The memory lies on the device of the cached hidden states.
    """
    vocabulary = text_config(cache.lm.model).vocab_size
    numbers = chunk_bytes(cache.device) // 8  # half as many as the head makes at once

    def read(index: int) -> Tensor:
        at_once = max(1, numbers // (cache.batches[index].input_ids.numel() * vocabulary))
        parts = doc_reps.split(at_once)
        return torch.cat([cache.cross_entropies(index, memory, part) for part in parts])

    return document_mean(cache, doc_id, read)


def cross_entropies_at(
    cache: HiddenStateCache, memory: DocumentMemory, doc_reps: Float[Tensor, "points key_dim"]
) -> Float[Tensor, "n_docs points"]:
    """Cross entropy of each document of `cache` under each DocRep, nats per token, on the CPU."""
    memory = on_device_of(cache, memory)
    documents = range(max(cache.doc_ids) + 1)
    return torch.stack([cross_entropies_of(cache, memory, one, doc_reps) for one in documents])


def base_cross_entropies(cache: HiddenStateCache) -> Float[Tensor, " doc_ids"]:
    """Cross entropy of each document of `cache` by the base LM, nats per token."""
    n_docs = max(cache.doc_ids) + 1
    return document_means(cache, n_docs, lambda index: cache.base_cross_entropy(index)[None])[:, 0]
