"""The method: a document memory, its hook into a frozen LM, and the guidance loss.

Read `config` (the shape), `memory` (the module), `blocks` and `hook` (its place in the LM), `loss`
(what trains it), `files` (how it is stored). All it needs of the rest of docmem is `errors`.
"""

from docmem.core.config import MemoryConfig
from docmem.core.hook import Hooked, attach
from docmem.core.loss import guidance_loss
from docmem.core.memory import DocumentMemory

__all__ = ["DocumentMemory", "Hooked", "MemoryConfig", "attach", "guidance_loss"]
