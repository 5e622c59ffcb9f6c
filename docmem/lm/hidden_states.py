"""The hidden-state cache: frozen blocks run once, and the LM's own forward resumed after them.

Blocks up to the hooked one are frozen, so their hidden states are the same in every epoch.
`HiddenStateCache` computes them once. `HiddenStateCache.logits` runs the LM's own forward with
those blocks skipped; in place of the hooked block stand the cached hidden states plus the memory's
output. Rotary embeddings, masks, norms and head are the LM's own, so the logits equal those of the
hooked LM, for any layer.

Each batch is read alone, not joined with others of its length: in the last digits, hidden states
depend on what is read with them, and another training, of other documents, finds them on disk.

Cost: batch · seq · d_model numbers per batch, kept on the GPU, in CPU memory or on disk.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from docmem.core.blocks import find_blocks, lm_fingerprint, resolve_layer
from docmem.core.hook import hidden_states_of
from docmem.core.memory import DocumentMemory
from docmem.documents import Document, segments
from docmem.errors import DocmemError, checked, counted
from docmem.lm.forward import (
    TokenBatch,
    check_bare,
    check_reading,
    forward_inputs,
    forward_until,
    frozen,
    plain_arithmetic,
    rounding,
    without_dropout,
)
from docmem.lm.head import before_head, head_losses, plain_head, token_losses
from docmem.lm.loading import LanguageModel
from docmem.lm.shared_states import SharedStates
from docmem.lm.skip import skip_blocks
from docmem.lm.store import HiddenStateStore

Read = Callable[[int], Float[Tensor, "batch seq width"]]
# How many things a block returns in a tuple, by its layer, where the LM can be read from there on.
_RETURNED: WeakKeyDictionary[Any, dict[int, int]] = WeakKeyDictionary()
AddUp = Callable[[Sequence[Tensor]], None]


class HiddenStateCache:
    """The hidden states after block `layer` for some batches, and the way from there to logits.

    Args:
        lm: the frozen LM.
        batches: what to read, once; every batch holds one document's text.
        doc_ids: the document's index, one for each batch.
        layer: the hooked block, from 0 or negative from the end.
        gpu_gb, cpu_gb: the budget, as in `HiddenStateStore`.
        own: the batches that this process reads; None: all. Of others there are the tokens alone.
        shared: folder of `SharedStates`, where other trainings find them; None: they go with this
            process.
        progress: show a bar, if it takes more than some seconds.
        titles: the documents', by their indices; None: not known.

    Raises:
        DocmemError: if there is no batch, or no such layer; if a memory is attached to the LM, it
            reads a row in a batch otherwise than alone, or cannot be read from that layer on.
    """

    @plain_arithmetic()
    @checked
    def __init__(
        self,
        lm: LanguageModel,
        batches: Sequence[TokenBatch],
        doc_ids: Sequence[int],
        layer: int,
        gpu_gb: float = 8.0,
        cpu_gb: float = 8.0,
        own: Sequence[int] | None = None,
        shared: Path | None = None,
        progress: bool = False,
        titles: Sequence[str] | None = None,
    ) -> None:
        if not batches:
            raise DocmemError("There are no batches to read; give at least one.")
        if len(doc_ids) != len(batches):
            raise DocmemError(
                f"There are {len(batches)} batches and {len(doc_ids)} doc_ids; give one for each."
            )
        self.lm, self.titles = lm, titles
        self.batches = list(batches)
        self.predicted = [batch.predicted.cpu() for batch in self.batches]
        """Which tokens are predicted; on the CPU, since a GPU waits when it is asked for counts."""
        if not all(some.any() for some in self.predicted):
            raise DocmemError(
                "A batch has one token in each row, so nothing in it can be predicted from what "
                "stands before; leave it out, or give more text."
            )
        self.doc_ids = list(doc_ids)
        self.own = range(len(self.batches)) if own is None else own
        self.blocks = find_blocks(lm.model)
        check_bare(self.blocks)
        self.layer = resolve_layer(layer, len(self.blocks))
        self.device = next(self.blocks[self.layer].parameters()).device
        self.store = HiddenStateStore(gpu_gb, cpu_gb)
        states = SharedStates(shared, lm.model, self.layer) if shared else None
        bar = tqdm(self.own, desc="reading", unit="batch", delay=5, disable=not progress)
        with frozen(lm.model):
            check_reading(lm.model, self.batches)
            known = _RETURNED.setdefault(lm.model, {})
            if self.layer not in known:
                known[self.layer] = self._check_resuming()
            self.returned = known[self.layer]
            for index in bar:
                batch = self.batches[index]
                if states is None:
                    self.store.add(self._read(batch))
                else:
                    self.store.add(states.get(batch, self._read), self.device, mapped=True)
            with skip_blocks(self.blocks, len(self.blocks) - 1, self.returned, None):
                self.head = plain_head(lm.model, self.batches[0])

    @torch.no_grad()
    def _read(self, batch: TokenBatch) -> Tensor:
        """One forward up to the hooked block; what follows is not run."""
        block = self.blocks[self.layer]
        output = forward_until(self.lm.model, batch, block.register_forward_hook)
        self.returned = len(output) if isinstance(output, tuple | list) else 0
        states = hidden_states_of(output).detach()
        if states.shape != (*batch.input_ids.shape, self.lm.d_model):
            raise DocmemError(
                f"The blocks of {self.lm.name} give {tuple(states.shape)} for tokens of shape "
                f"{tuple(batch.input_ids.shape)}; it takes (batch, seq, d_model). Give another LM."
            )
        return states

    @torch.no_grad()
    def _check_resuming(self) -> int:
        """How many things a block returns in a tuple; 0: no tuple.

        Raises unless a few tokens, read from the hooked block on, have the LM's own logits. Some
        blocks use more of those before them than hidden states: keys and values, or what a router
        kept. After the last block there is none.
        """
        some = self.batches[0]
        ids = some.input_ids[some.attention_mask][None, :8]
        batch = TokenBatch(ids, torch.ones_like(ids).bool())
        states = self._read(batch)
        if self.layer == len(self.blocks) - 1:
            return self.returned
        whole = self.lm.model(**forward_inputs(self.lm.model, batch)).logits.float()
        error: Exception | None = None
        try:
            resumed = self._resume(batch, states).float()
        except Exception as caught:  # of whatever the blocks that follow miss
            error, resumed = caught, whole * math.nan
        if not (resumed - whole).norm() <= rounding(self.lm.model) * whole.norm():
            raise DocmemError(
                f"Blocks of {self.lm.name} after layer {self.layer} use more of those before them "
                "than their hidden states, such as keys and values; give layer -1."
            ) from error
        return self.returned

    @functools.cached_property
    def fingerprint(self) -> str:
        """`lm_fingerprint` of the LM."""
        return lm_fingerprint(self.lm.model)

    def states(self, index: int) -> Float[Tensor, "batch seq d_model"]:
        """The hidden states of one batch, on the hooked block's device."""
        return self.store[self.own.index(index)].to(self.device)

    def token_means(
        self, n_docs: int, read: Read, add_up: AddUp | None = None
    ) -> Float[Tensor, "n_docs width"]:
        """Mean of `read(batch)` over each document's tokens, pads left out; float64, on the CPU.

        Args:
            n_docs: documents; the mean of one without text is 0.
            read: takes the index of a batch, returns a vector for each of its tokens.
            add_up: adds to tensors those of the processes that read the other batches.
        """
        sums = []
        for index in self.own:
            vectors = read(index)
            real = self.batches[index].attention_mask.to(vectors.device)
            summed = vectors[real].cpu().double().sum(0)  # MPS has no float64
            sums.append(torch.cat([summed, real.sum()[None].cpu().double()]))
        of_batch = torch.zeros(len(self.batches), len(sums[0]), dtype=torch.float64)
        of_batch[list(self.own)] = torch.stack(sums)
        if add_up is not None:
            add_up([of_batch])
        of_doc = of_batch.new_zeros(n_docs, of_batch.shape[1])
        of_doc.index_add_(0, torch.tensor(self.doc_ids), of_batch)
        return of_doc[:, :-1] / of_doc[:, -1:].clamp_min(1)

    def logits(
        self, index: int, memory: DocumentMemory, doc_rep: Tensor | None
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits of one batch under a DocRep: equal to those of the LM with the memory attached.

        Gradients flow to the memory; none to the LM, if it is frozen.
        """
        return self._resume(self.batches[index], memory(self.states(index), doc_rep))

    def cross_entropies(
        self,
        index: int,
        memory: DocumentMemory,
        doc_reps: Float[Tensor, "points key_dim"],
        rows: Sequence[Int[Tensor, "_"]] | None = None,
    ) -> Float[Tensor, " points"]:
        """Mean cross entropy of one batch under each of several DocReps, nats per token.

        All of them share one forward: a row is repeated for each DocRep that reads it, and token
        keys are computed once. If the head is a plain Linear, `docmem.lm.head` computes its losses.

        Args:
            index: the batch.
            memory: on the cache's device.
            doc_reps: the DocReps.
            rows: for each DocRep the rows of the batch that it reads; None: all of them.
        """
        batch, states = self.batches[index], self.states(index)
        if rows is None:
            rows = [torch.arange(len(batch.input_ids))] * len(doc_reps)
        read = torch.cat([*rows])
        under = torch.repeat_interleave(torch.tensor([len(some) for some in rows]))
        selections = memory.select(doc_reps.to(memory.doc_reps))  # (points, memory_dim)
        taken, under = read.to(self.device), under.to(self.device)
        # (read, seq, memory_dim)
        keys = memory.token_keys(states).index_select(0, taken)
        keys = keys * selections.index_select(0, under)[:, None]
        hidden_states = memory.residual_update(states.index_select(0, taken), keys)
        repeated = TokenBatch(*(tensor[read.to(tensor.device)] for tensor in batch))
        predicted = self.predicted[index]
        wanted = predicted[read].flatten().nonzero()[:, 0]
        losses = self._token_losses(repeated, hidden_states, wanted)
        sizes = [int(predicted[some].sum()) for some in rows]
        return torch.stack([part.mean() for part in losses.split(sizes)])

    def base_cross_entropy(self, index: int) -> Float[Tensor, ""]:
        """Mean cross entropy of one batch by the base LM, nats per token."""
        wanted = self.predicted[index].flatten().nonzero()[:, 0]
        return self._token_losses(self.batches[index], self.states(index), wanted).mean()

    def _token_losses(self, batch: TokenBatch, hidden_states: Tensor, wanted: Tensor) -> Tensor:
        """Cross entropies from the hooked block on, of wanted places of (batch, predicted)."""

        def pick(values: Tensor) -> Tensor:
            return values.flatten(0, 1).index_select(0, wanted.to(values.device))

        if self.head is None:
            return pick(token_losses(self._resume(batch, hidden_states), batch))
        with self._after_block(hidden_states):
            x = before_head(self.lm.model, batch)
        return head_losses(pick(x[:, :-1]), self.head, pick(batch.input_ids[:, 1:]))

    def _resume(self, batch: TokenBatch, hidden_states: Tensor) -> Tensor:
        """The LM's own forward from given hidden states after the hooked block, to logits."""
        with self._after_block(hidden_states):
            return self.lm.model(**forward_inputs(self.lm.model, batch)).logits

    @contextmanager
    def _after_block(self, hidden_states: Tensor) -> Iterator[None]:
        """Within: the LM's forward begins with given hidden states after the hooked block."""
        check_bare(self.blocks)
        with (
            without_dropout(self.lm.model),
            skip_blocks(self.blocks, self.layer, self.returned, hidden_states),
        ):
            yield


@checked
def cache_hidden_states(
    lm: LanguageModel,
    documents: Sequence[Document],
    config: Any,
    deal: Callable[[int], Sequence[int]] | None = None,
    progress: bool = False,
) -> HiddenStateCache:
    """Segment and tokenise documents as a TrainConfig says, and cache their hidden states.

    Batches hold up to `config.batch_size` segments of one document, documents in turn. A batch of
    segments of one token each is left out: nothing in it can be predicted.

    Args:
        lm: the frozen LM.
        documents: what to read.
        config: a TrainConfig (a type that this folder may not import).
        deal: takes the number of batches, says which are this process's; None: all.
        progress: show a bar, if it takes more than some seconds.

    Raises:
        DocmemError: if a document is empty, a segment too long, or the layer out of range.
    """
    if not hasattr(config, "segment_length"):
        raise DocmemError("config says nothing of segments; give a TrainConfig, as run.config.")
    batches, doc_ids = [], []
    for doc_id, document in enumerate(documents):
        if not document.text.split():
            raise DocmemError(f"The document {document.title!r} is empty; give it some text.")
        texts = segments(document.text, config.segment_length, config.max_segments)
        for start in range(0, len(texts), config.batch_size):
            chunk = texts[start : start + config.batch_size]
            batch = lm.tokenize(chunk, config.max_length)
            if batch.predicted.any():
                batches.append(batch)
                doc_ids.append(doc_id)
        if doc_ids[-1:] != [doc_id]:
            raise DocmemError(
                f"The document {document.title!r} is read as {counted(len(texts), 'segment')} of a "
                "single token, so nothing in it can be predicted from what stands before; give it "
                "more text, or a larger segment_length."
            )
    return HiddenStateCache(
        lm,
        batches,
        doc_ids,
        config.hook_memory_layer,
        config.gpu_cache_gb,
        config.cpu_cache_gb,
        None if deal is None else deal(len(batches)),
        config.states_dir,
        progress,
        [document.title for document in documents],
    )
