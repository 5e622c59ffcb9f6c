"""Blocks skipped for one forward: the hooked one returns given hidden states."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from docmem.lm.forward import check_thread


class _SkippedBlock(nn.Module):
    """Stands in for a block: returns given hidden states, or else its input.

    Its attributes are the block's own: some LMs read, say, an attention type off their blocks.
    """

    def __init__(self, block: nn.Module, returned: int, hidden_states: Tensor | None) -> None:
        super().__init__()
        object.__setattr__(self, "_block", block)  # not registered as a submodule
        self.returned = returned
        self.hidden_states = hidden_states
        self.thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._block, name)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        check_thread(self.thread)
        output = hidden_states if self.hidden_states is None else self.hidden_states
        return (output, *[None] * (self.returned - 1)) if self.returned else output


@contextmanager
def skip_blocks(
    blocks: nn.ModuleList, layer: int, returned: int, hidden_states: Tensor | None
) -> Iterator[None]:
    """Within: blocks before `layer` return their input, and `layer` returns `hidden_states`.

    If these are None, `layer` returns its input too. `returned` is how many things the blocks
    return in a tuple, 0 without one; all but the hidden states are None.

    Raises:
        DocmemError: if another thread skips blocks of this LM now.
    """
    originals = list(blocks)[: layer + 1]
    for block in originals:
        if isinstance(block, _SkippedBlock):
            check_thread(block.thread)
    try:
        for index, block in enumerate(originals):
            given = hidden_states if index == layer else None
            blocks[index] = _SkippedBlock(block, returned, given)
        yield
    finally:
        for index, block in enumerate(originals):
            blocks[index] = block
