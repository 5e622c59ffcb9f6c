"""The method: a document memory, its hook into a frozen LM, and the guidance loss.

Read `config` (the shape), `memory` (the module), `blocks` and `hook` (its place in the LM), `loss`
(what trains it), `files` (how it is stored). All it needs of the rest of docmem is `errors`.

    memory = DocumentMemory(MemoryConfig(d_model=384, n_docs=10))
    with attach(model, memory, layer=-1) as hooked, hooked.document(3):
        logits = model(**batch).logits
"""

from docmem.core.config import MemoryConfig
from docmem.core.hook import Hooked, attach
from docmem.core.loss import guidance_loss
from docmem.core.memory import DocumentMemory

__all__ = ["DocumentMemory", "Hooked", "MemoryConfig", "attach", "guidance_loss"]
