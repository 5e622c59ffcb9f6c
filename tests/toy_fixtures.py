"""What tests share: toy LMs, memories and runs. Every annotated shape of docmem is checked."""
# ruff: noqa: E402 - the import hook comes before what it acts on

import dataclasses
import functools
from importlib.util import find_spec
from pathlib import Path

import jaxtyping
from jaxtyping import install_import_hook

PACKAGE = Path(find_spec("docmem").origin).parent
SHAPED = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
"""Modules with shapes in them. Others mypy has checked; to check each call takes long."""
# PEP 484's tower: an int is a float.
install_import_hook(SHAPED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

from collections.abc import Callable

import jinja2
import pytest
import torch
from toys import DOCUMENTS, WIDTH, quick_config, toy_batch, toy_lm, toy_tokenizer
from transformers import PreTrainedTokenizerFast

from docmem.core.config import MemoryConfig
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.lm.forward import TokenBatch
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.run import Run
from docmem.training.train import train

torch.set_num_threads(1)
jinja2.Template = functools.lru_cache(jinja2.Template)  # that of the model card is always the same


@pytest.fixture(autouse=True)
def auto_is_float32_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device and number format `auto` are the same on every machine."""
    monkeypatch.setattr("docmem.lm.loading.best_device", lambda: "cpu")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types go unchecked, as for a user, so that docmem's own checks are on trial."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return toy_tokenizer()


@pytest.fixture
def lm() -> LanguageModel:
    """A random GPT-NeoX: 3 blocks, width 32, context 64."""
    return toy_lm()


@pytest.fixture
def documents() -> list[Document]:
    """Three titled texts of 43, 29 and 20 words."""
    return list(DOCUMENTS)


@pytest.fixture
def batch() -> TokenBatch:
    """Rows of 21, 13 and 17 random tokens, padded on the left."""
    return toy_batch()


@pytest.fixture
def memory(documents: list[Document]) -> DocumentMemory:
    """A fresh memory for `lm` and `documents`, with 24 entries."""
    torch.manual_seed(0)
    config = MemoryConfig(d_model=WIDTH, n_docs=len(documents), memory_dim=24)
    return DocumentMemory(config, [document.title for document in documents])


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A training of `lm` on `documents` that takes a second."""
    return quick_config(tmp_path / "run")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, Run]:
    """The toy LM and a finished run that knows its documents; read only."""
    lm = toy_lm()
    config = dataclasses.replace(
        quick_config(tmp_path_factory.mktemp("trained") / "run"), num_epochs=60, save_freq=20
    )
    return lm, train(config, lm=lm, documents=DOCUMENTS, progress=False)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of `config` that nothing interrupted; read only."""
    config = quick_config(tmp_path_factory.mktemp("whole") / "run")
    return train(config, lm=toy_lm(), documents=DOCUMENTS, progress=False)


@pytest.fixture
def go(lm: LanguageModel, config: TrainConfig) -> Callable[..., Run]:
    """Train `lm` on the toy documents as `config` says, or go on with it."""

    def go(on_epoch: Callable[[Epoch], bool | None] | None = None) -> Run:
        return train(config, lm=lm, documents=DOCUMENTS, on_epoch=on_epoch, progress=False)

    return go
