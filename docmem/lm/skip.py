"""Blocks skipped for one forward: those before a layer do nothing, the layer gives given states."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class _SkippedBlock(nn.Module):
    """Takes a block's place for one forward: answers with given hidden states, or its input.

    Attributes that the LM reads off its blocks (an attention type, say) are the block's own.
    """

    def __init__(self, block: nn.Module, returns_tuple: bool, hidden_states: Tensor | None) -> None:
        super().__init__()
        object.__setattr__(self, "_block", block)  # not registered: no parameter changes doc_id
        self.returns_tuple = returns_tuple
        self.hidden_states = hidden_states

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._block, name)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        answer = hidden_states if self.hidden_states is None else self.hidden_states
        return (answer,) if self.returns_tuple else answer


@contextmanager
def skip_blocks(
    blocks: nn.ModuleList, layer: int, returns_tuple: bool, hidden_states: Tensor | None
) -> Iterator[None]:
    """Within: blocks before `layer` do nothing, and `layer` answers with `hidden_states`.

    With None for the hidden states, `layer` does nothing either.
    """
    originals = list(blocks)[: layer + 1]
    try:
        for index, block in enumerate(originals):
            answer = hidden_states if index == layer else None
            blocks[index] = _SkippedBlock(block, returns_tuple, answer)
        yield
    finally:
        for index, block in enumerate(originals):
            blocks[index] = block
