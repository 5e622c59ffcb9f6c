"""Fixtures for all tests. Annotated shapes are checked, and no test writes into the project."""
# ruff: noqa: E402 - the import hook and the offline switch come before what they act on

import dataclasses
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import jaxtyping
from jaxtyping import install_import_hook

# PEP 484's tower: an int is a float.
install_import_hook("docmem", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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

PROJECT = Path(__file__).parent.parent
# What tests may write in the project: bytecode and caches; screenshots of tests/browser.
ALLOWED = ("__pycache__", "_cache", "outputs/browser")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Audited events that make or move a file or folder, and which of their arguments names it.
MAKES = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.symlink": 1, "os.link": 1}
written_in_project: list[str] = []


def note_writing(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook of Python's: keep the paths in the project that this process writes to."""
    if event not in MAKES or (event == "open" and not arguments[2] & WRITING):
        return
    path = arguments[MAKES[event]]
    if isinstance(path, (str, bytes, os.PathLike)):
        absolute = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - Path.resolve follows links
        if absolute.startswith(f"{PROJECT}{os.sep}") and not any(
            allowed in absolute for allowed in ALLOWED
        ):
            written_in_project.append(absolute)


sys.addaudithook(note_writing)


@pytest.fixture(autouse=True)
def outside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test runs in a folder of its own, and fails if it writes into the project."""
    monkeypatch.chdir(tmp_path)
    yield
    found, written_in_project[:] = sorted(set(written_in_project)), []
    assert not found, f"The test wrote into the project, not into tmp_path: {found}"


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
