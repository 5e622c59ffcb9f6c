"""The memory inside the LM: attached after one block, a document chosen, detached again.

    with attach(lm.model, memory, layer=-1) as hooked:
        with hooked.document("Cyclone Odalys"):
            hooked.model.generate(**lm.tokenizer("The storm", return_tensors="pt"))

The hook is in place inside the `with` and gone after it. Outside `document`, all entries are open.
The LM itself is not touched. Hidden states that it records may lack the memory's output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from numbers import Integral
from traceback import walk_stack
from typing import Any

import numpy as np
from torch import Tensor, compiler, nn

from docmem.core.blocks import check_width, find_blocks, lm_fingerprint, resolve_layer, text_config
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError, as_doc_reps, checked

DocumentLike = str | int | Tensor | Sequence[Any] | np.ndarray | None


def hidden_states_of(output: Any) -> Tensor:
    """The hidden states in what a block returned: a tensor, or the first of several things."""
    return output[0] if isinstance(output, tuple | list) else output


def rows_each(rows: int, given: int, block: nn.Module) -> int:
    """How many of the LM's rows each DocRep is for: its generate() makes several of each prompt."""
    if given == rows and compiler.is_compiling():
        return 1  # who calls cannot be seen there
    frames = (f for f, _ in walk_stack(None) if f.f_code.co_qualname == "GenerationMixin.generate")
    here = (f.f_locals for f in frames if any(block is m for m in f.f_locals["self"].modules()))
    made: Any = next((frame["generation_config"] for frame in here), None)
    if made is None:
        return 1
    prompts = rows // max(made.num_beams, made.num_return_sequences)
    if given != prompts and (made.num_beams > 1 or given % prompts or rows % given):
        raise DocmemError(f"There are {prompts} prompts and {given} DocReps; give one per prompt.")
    return rows // given


class Hooked:
    """An LM with a memory in it, for the length of a `with`; `attach` makes one."""

    def __init__(self, model: nn.Module, block: nn.Module, memory: DocumentMemory, layer: int):
        self._model, self._block, self.memory, self.layer = model, block, memory, layer
        self._handle: Any = None  # of the hook, while attached
        self.doc_rep: Tensor | None = None  # in force; None: all entries
        self.read: Callable[[Tensor, Tensor | None], Tensor] | None = None  # quicker: lm/folding

    def __enter__(self) -> Hooked:
        there = (getattr(hook, "__self__", None) for hook in self._block._forward_hooks.values())
        if any(isinstance(one, Hooked) and one.memory is self.memory for one in there):
            raise DocmemError("This memory is attached already; to use it again, leave its `with`.")
        self.memory.to(next(self._block.parameters()).device)
        self._handle = self._block.register_forward_hook(self._after_block)
        return self

    def __exit__(self, *_: object) -> None:
        _ = self.model  # refuses where nothing is attached
        self._handle.remove()
        self._handle = self.doc_rep = None

    def __reduce_ex__(self, _: Any) -> Any:
        raise DocmemError("What attach gives cannot be copied: leave its `with`, then copy the LM.")

    @property
    def model(self) -> Any:
        """The LM with the memory in it; DocmemError outside the `with`, where it has none."""
        if self._handle is None:
            raise DocmemError("The memory is not attached: use it inside its `with attach(…)`.")
        return self._model

    def resolve(self, document: DocumentLike) -> Tensor | None:
        """The DocRep of a document as `document` takes it; DocmemError if there is none such."""
        if document is None:
            return None
        if isinstance(document, str | Integral):
            return self.memory.doc_reps[self.memory.index_of(document)]
        doc_reps, key_dim = as_doc_reps("document", document), self.memory.config.key_dim
        if doc_reps.dim() not in (1, 2) or doc_reps.shape[-1] != key_dim:
            raise DocmemError(
                f"A DocRep has shape ({key_dim},), or (rows, {key_dim}), not {(*doc_reps.shape,)}."
            )
        return doc_reps.to(self.memory.doc_reps)

    @checked
    def document(self, document: DocumentLike) -> AbstractContextManager[Hooked]:
        """Within: the LM reads and writes under `document`; after: as it was before.

        Args:
            document: a title, an index, a DocRep (key_dim,), one per row (batch, key_dim), both
                as tensor, array or list (of prompts, where generate() writes); None: all entries.

        Raises:
            DocmemError: as `resolve`; or if the memory is no longer attached.
        """
        return _Under(self, self.resolve(document))

    def _after_block(self, block: nn.Module, _: Any, output: Any) -> Any:
        if block.training and getattr(block, "gradient_checkpointing", False):
            raise DocmemError(
                "Gradient checkpointing would read the text again, perhaps under another document. "
                "The LM is frozen: call model.eval(), or model.gradient_checkpointing_disable()."
            )
        h = hidden_states_of(output)  # (batch, seq, d_model)
        doc_rep = None if self.doc_rep is None else self.doc_rep.to(self.memory.doc_reps)
        if doc_rep is not None and doc_rep.dim() == 2:
            doc_rep = doc_rep.repeat_interleave(rows_each(len(h), len(doc_rep), block), dim=0)
        h = (self.read or self.memory)(h, doc_rep)
        return (h, *output[1:]) if isinstance(output, tuple | list) else h


class _Under(AbstractContextManager[Hooked]):
    def __init__(self, hooked: Hooked, doc_rep: Tensor | None):
        self._hooked, self._doc_rep, self._before = hooked, doc_rep, list[Tensor | None]()

    def __enter__(self) -> Hooked:
        _ = self._hooked.model  # refuses where nothing is attached
        self._before.append(self._hooked.doc_rep)
        self._hooked.doc_rep = self._doc_rep
        return self._hooked

    def __exit__(self, *_: object) -> None:
        self._hooked.doc_rep = self._before.pop()


@checked
def attach(
    model: nn.Module, memory: DocumentMemory, layer: int = -1, *, check: bool = True
) -> Hooked:
    """Hook `memory` after block `layer` of a causal LM, for the length of a `with`.

    Args:
        model: any causal LM of transformers.
        memory: moved to the hooked block's device.
        layer: the block's index, from 0, or negative from the end.
        check: False: also another LM or layer than the memory was trained on.

    Raises:
        DocmemError: if text has no such block, widths differ, or it is another LM's or layer's.
    """
    blocks = find_blocks(model)
    index, trained = resolve_layer(layer, len(blocks)), memory.origin
    if index in (getattr(text_config(model), "cross_attention_layers", None) or ()):
        raise DocmemError(f"Layer {index} of this LM is run for images alone; give another layer.")
    check_width(model, memory.config.d_model)
    here = {"layer": index, "fingerprint": lm_fingerprint(model)}
    if check and trained and here != {name: trained.get(name) for name in here}:
        raise DocmemError(
            f"The memory was trained at layer {trained.get('layer')} of the LM "
            f"{trained.get('lm')!r} in {trained.get('dtype')}, not at layer {index} of this LM "
            f"(fingerprint {trained.get('fingerprint')}, here {here['fingerprint']}; a wrapper "
            "has another). Attach it where it was trained, or here with check=False."
        )
    return Hooked(model, blocks[index], memory, index)
