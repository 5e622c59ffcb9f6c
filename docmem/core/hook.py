"""The memory inside the LM: attached after one block, a document chosen, detached again.

    with attach(lm.model, memory, layer=-1) as hooked:
        with hooked.document("Cyclone Odalys"):
            hooked.model.generate(**lm.tokenizer("The storm", return_tensors="pt"))

The hook is in place inside the `with` and gone after it, whatever happens within. Outside
`document`, all entries are open. Parameters, configuration and code of the LM are not touched.
Hidden states that the LM itself records (`output_hidden_states`) may lack the memory's output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from docmem.core.blocks import find_blocks, resolve_layer, text_config
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError

DocumentLike = str | int | Tensor | None


def hidden_states_of(output: Any) -> Tensor:
    """The hidden states in what a block returned: a tensor, or the first item of a tuple."""
    return output[0] if isinstance(output, tuple) else output


def with_hidden_states(output: Any, hidden_states: Tensor) -> Any:
    """What a block returned, with other hidden states."""
    return (hidden_states, *output[1:]) if isinstance(output, tuple) else hidden_states


class Hooked:
    """An LM with a memory in it; made by `attach`."""

    def __init__(self, model: nn.Module, memory: DocumentMemory, layer: int) -> None:
        self.model: Any = model
        self.memory = memory
        self.layer = layer
        self._doc_rep: Tensor | None = None

    def resolve(self, document: DocumentLike) -> Tensor | None:
        """The DocRep of a document given by title, index or DocRep; None stays None.

        Raises:
            DocmemError: if there is no such document, or the tensor is no DocRep.
        """
        if document is None:
            return None
        if isinstance(document, Tensor):
            key_dim = self.memory.config.key_dim
            if document.dim() not in (1, 2) or document.shape[-1] != key_dim:
                raise DocmemError(
                    f"A DocRep has shape ({key_dim},), or (batch, {key_dim}) for one a row; "
                    f"this tensor has {tuple(document.shape)}."
                )
            return document.to(self.memory.doc_reps)
        return self.memory.doc_reps[self.memory.index_of(document)]

    @contextmanager
    def document(self, document: DocumentLike) -> Iterator[Hooked]:
        """Within: the LM reads and writes under `document`; after: as it was before.

        Args:
            document: a title, an index, a DocRep (key_dim,), one a row (batch, key_dim), or
                None for all memories. Where a batch has a multiple of the rows, as generate()
                makes it for beams and several return sequences, each DocRep serves that many
                rows in a row.

        Raises:
            DocmemError: as `resolve`.
        """
        before = self._doc_rep
        self._doc_rep = self.resolve(document)
        try:
            yield self
        finally:
            self._doc_rep = before

    def _after_block(self, block: nn.Module, _: Any, output: Any) -> Any:
        if block.training and getattr(block, "gradient_checkpointing", False):
            raise DocmemError(
                "Gradient checkpointing would read the text again in the backward pass, when "
                "another document may be chosen. The LM is frozen: call model.eval() or "
                "model.gradient_checkpointing_disable()."
            )
        h = hidden_states_of(output)
        doc_rep = self._doc_rep
        if doc_rep is not None and doc_rep.dim() == 2 and len(h) % len(doc_rep) == 0:
            # generate() repeats each row for beams and for several return sequences.
            doc_rep = doc_rep.repeat_interleave(len(h) // len(doc_rep), dim=0)
        return with_hidden_states(output, self.memory(h, doc_rep))


@contextmanager
def attach(model: nn.Module, memory: DocumentMemory, layer: int = -1) -> Iterator[Hooked]:
    """Hook `memory` after block `layer` of a causal LM, for the length of a `with`.

    Args:
        model: any causal LM of transformers.
        memory: moved to the hooked block's device.
        layer: the block's index, from 0, or negative from the end.

    Raises:
        DocmemError: if there is no such block, or memory and LM differ in width.
    """
    blocks = find_blocks(model)
    index = resolve_layer(layer, len(blocks))
    d_model = text_config(model).hidden_size
    if d_model != memory.config.d_model:
        raise DocmemError(
            f"The memory is made for hidden states of width {memory.config.d_model}, "
            f"but this LM's have {d_model}."
        )
    memory.to(next(blocks[index].parameters()).device)
    hooked = Hooked(model, memory, index)
    handle = blocks[index].register_forward_hook(hooked._after_block)
    try:
        yield hooked
    finally:
        handle.remove()
