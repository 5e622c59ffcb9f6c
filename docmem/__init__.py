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

if TYPE_CHECKING:  # `as` tells type checkers that a name is public
    from docmem.core.config import MemoryConfig as MemoryConfig
    from docmem.core.hook import attach as attach
    from docmem.core.loss import guidance_loss as guidance_loss
    from docmem.core.memory import DocumentMemory as DocumentMemory
    from docmem.documents import Document as Document
    from docmem.documents import load_documents as load_documents
    from docmem.documents import segments as segments
    from docmem.errors import DocmemError as DocmemError
    from docmem.evaluation.attribution import BASE_LM as BASE_LM
    from docmem.evaluation.attribution import attribute as attribute
    from docmem.evaluation.continuations import compare as compare
    from docmem.evaluation.continuations import opening as opening
    from docmem.evaluation.continuations import recall as recall
    from docmem.lm.generation import ALL_ENTRIES as ALL_ENTRIES
    from docmem.lm.generation import generate as generate
    from docmem.lm.loading import LanguageModel as LanguageModel
    from docmem.lm.loading import load_lm as load_lm
    from docmem.training.config import TrainConfig as TrainConfig
    from docmem.training.config import preset as preset
    from docmem.training.config import preset_for as preset_for
    from docmem.training.run import Run as Run
    from docmem.training.train import train as train

    __version__: str

_NAMES = {
    "core.config": "MemoryConfig",
    "core.hook": "attach",
    "core.loss": "guidance_loss",
    "core.memory": "DocumentMemory",
    "documents": "Document load_documents segments",
    "errors": "DocmemError",
    "evaluation.attribution": "BASE_LM attribute",
    "evaluation.continuations": "compare opening recall",
    "lm.generation": "ALL_ENTRIES generate",
    "lm.loading": "LanguageModel load_lm",
    "training.config": "TrainConfig preset preset_for",
    "training.run": "Run",
    "training.train": "train",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name == "__version__":
        metadata = importlib.import_module("importlib.metadata")
        try:
            value: Any = metadata.version("docmem")
        except metadata.PackageNotFoundError:  # it runs from a folder
            value = "not installed"
    elif name in _MODULES:
        value = getattr(importlib.import_module(f"docmem.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported already or not."""
    return sorted({*globals(), *__all__})
