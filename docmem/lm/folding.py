"""A memory at rest, multiplied out: what generation reads with, a token at a time.

    with hooked.document("Cyclone Odalys"), folded(hooked):
        hooked.model.generate(...)

Of one token, most of the memory's time goes into starting its many small products. While neither
the memory nor the document changes, values, output and document key are one matrix (section 3):

    W_o (W_d (k_tok ⊙ k_doc) + b_d) + b_o  =  (W_o W_d diag(k_doc)) k_tok + (W_o b_d + b_o)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from docmem.core.hook import Hooked


@contextmanager
def folded(hooked: Hooked) -> Iterator[None]:
    """Within: the LM reads with the memory as it is now, folded for the document in force now.

    Under another document, or with a DocRep for each row, the memory reads as ever.
    """
    memory, doc_rep = hooked.memory, hooked.doc_rep
    if doc_rep is not None and doc_rep.dim() == 2:
        yield
        return
    with torch.no_grad():
        weight = memory.output.weight @ memory.values.weight  # (d_model, memory_dim)
        if doc_rep is not None:
            weight = weight * memory.select(doc_rep)
        bias = memory.output(memory.values.bias)

    def read(h: Tensor, now: Tensor | None) -> Tensor:
        if now is not doc_rep:
            return memory(h, now)
        out = functional.linear(memory.token_keys(h), weight, bias)
        return h + memory.act_lm(out).to(h.dtype)

    hooked.read = read
    try:
        yield
    finally:
        hooked.read = None
