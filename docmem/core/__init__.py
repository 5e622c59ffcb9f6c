"""The method: a document memory, its hook into a frozen LM, and the guidance loss.

Read `config`, then `memory` down to `forward`, `loss`, and in `hook` `Hooked._after_block`: that is
the method. The rest finds blocks, guards, and stores. It needs nothing of docmem but `errors`.
"""

from docmem.core.config import MemoryConfig
from docmem.core.hook import Hooked, attach
from docmem.core.loss import guidance_loss
from docmem.core.memory import DocumentMemory

__all__ = ["DocumentMemory", "Hooked", "MemoryConfig", "attach", "guidance_loss"]
