"""Document-wise memory in a frozen causal LM (Park and Choi, IJCAI 2024, arXiv 2406.15996).

    docs = docmem.load_documents("encyclopedia", max_documents=10)
    lm = docmem.load_lm("tiny")
    run = docmem.train(docmem.preset("tiny"), lm=lm, documents=docs)
    with docmem.attach(lm.model, run.load_memory(), layer=-1) as hooked:
        print(docmem.generate(hooked, lm.tokenizer, "The storm", document=docs[0].title))

Names are imported at first use, so that `import docmem` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docmem.core.config import MemoryConfig
    from docmem.core.hook import attach
    from docmem.core.loss import guidance_loss
    from docmem.core.memory import DocumentMemory
    from docmem.documents import Document, load_documents, segments
    from docmem.errors import DocmemError
    from docmem.evaluation.attribution import BASE_LM, attribute
    from docmem.evaluation.continuations import compare, opening, recall
    from docmem.lm.generation import ALL_ENTRIES, generate
    from docmem.lm.loading import LanguageModel, load_lm
    from docmem.training.config import TrainConfig, preset, preset_for
    from docmem.training.run import Run
    from docmem.training.train import train

    __version__: str

__all__ = [
    "ALL_ENTRIES",
    "BASE_LM",
    "DocmemError",
    "Document",
    "DocumentMemory",
    "LanguageModel",
    "MemoryConfig",
    "Run",
    "TrainConfig",
    "__version__",
    "attach",
    "attribute",
    "compare",
    "generate",
    "guidance_loss",
    "load_documents",
    "load_lm",
    "opening",
    "preset",
    "preset_for",
    "recall",
    "segments",
    "train",
]

_MODULES = {
    "ALL_ENTRIES": "lm.generation",
    "BASE_LM": "evaluation.attribution",
    "DocmemError": "errors",
    "Document": "documents",
    "DocumentMemory": "core.memory",
    "LanguageModel": "lm.loading",
    "MemoryConfig": "core.config",
    "Run": "training.run",
    "TrainConfig": "training.config",
    "attach": "core.hook",
    "attribute": "evaluation.attribution",
    "compare": "evaluation.continuations",
    "generate": "lm.generation",
    "guidance_loss": "core.loss",
    "load_documents": "documents",
    "load_lm": "lm.loading",
    "opening": "evaluation.continuations",
    "preset": "training.config",
    "preset_for": "training.config",
    "recall": "evaluation.continuations",
    "segments": "documents",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("docmem")
    elif name in _MODULES:
        value = getattr(importlib.import_module(f"docmem.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported already or not."""
    return sorted({*globals(), *__all__})
