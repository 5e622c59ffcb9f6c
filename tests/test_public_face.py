"""The public face: names and signatures that other people's programs are written against."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import PAPER, parsed

import docmem

NAMES = {
    "ALL_ENTRIES", "DocmemError", "Document", "DocumentMemory", "LanguageModel", "MemoryConfig",
    "Run", "TrainConfig", "__version__", "attach", "generate", "guidance_loss", "load_documents",
    "load_lm", "preset", "preset_for", "segments", "train",
}  # fmt: skip
REQUIRED = inspect.Parameter.empty

# Function to its parameters, in order, with their defaults; after "*" by name alone.
SIGNATURES: dict[Callable[..., Any], dict[str, Any]] = {
    docmem.load_documents: {
        "source": "encyclopedia", "max_documents": None, "*": None, "titles": (), "seed": None,
        "cache_dir": None,
    },
    docmem.load_lm: {
        "name": "tiny", "*": None, "dtype": "auto", "device": "auto", "num_gpus": None,
        "lm_cache_dir": None,
    },
    docmem.train: {
        "config": REQUIRED, "*": None, "lm": None, "documents": None, "doc_reps": None,
        "on_epoch": None, "progress": True,
    },
    docmem.preset: {"name": REQUIRED, "**changes": None},
    docmem.attach: {
        "model": REQUIRED, "memory": REQUIRED, "layer": -1, "*": None, "check": True,
    },
    docmem.generate: {
        "hooked": REQUIRED, "tokenizer": REQUIRED, "prompt": REQUIRED, "document": None,
        "*": None, "max_new_tokens": 40, "**options": None,
    },
    docmem.guidance_loss: {
        "positive_ce": REQUIRED, "negative_ce": REQUIRED, "alpha": 0.1, "tau": 4.5,
        "form": "squared",
    },
    docmem.segments: {"text": REQUIRED, "segment_length": REQUIRED, "max_segments": None},
    docmem.Run.open: {"path": REQUIRED},
}  # fmt: skip
MEMORY_CONFIG = {
    "d_model": MISSING, "n_docs": MISSING, "memory_dim": 32, "key_dim": 2,
    "key_activation": "tanh", "lm_act": "gelu", "document_key_module_type": "linear",
    "key_internal_dim": None, "key_internal_activation": None, "key_internal_layers": None,
}  # fmt: skip


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters in order, each with its default."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found[f"**{name}"] = None
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found.setdefault("*", None)
        found[name] = parameter.default
    return found


def test_public_names() -> None:
    assert set(docmem.__all__) >= NAMES
    assert all(getattr(docmem, name) is not None for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = docmem.colour


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_signature(function: Callable[..., Any]) -> None:
    found, expected = parameters(function), SIGNATURES[function]
    assert list(found.items()) == list(expected.items())


def test_memory_config_fields_in_order() -> None:
    fields = dataclasses.fields(docmem.MemoryConfig)
    assert [(field.name, field.default) for field in fields] == list(MEMORY_CONFIG.items())
    assert docmem.MemoryConfig(8, 3) == docmem.MemoryConfig(d_model=8, n_docs=3)


@pytest.mark.parametrize(
    ("settings", "document_key"),
    [
        ({}, {"": (5, 2)}),
        ({"document_key_module_type": "nonlinear"}, {"0.": (5, 2), "2.": (5, 5), "4.": (5, 5)}),
    ],
)
def test_memory_state_dict(settings: dict[str, Any], document_key: dict[str, tuple]) -> None:
    memory = docmem.DocumentMemory(docmem.MemoryConfig(8, 3, 5, **settings))
    weights = {
        "token_key.": (5, 8), "values.": (8, 5), "output.": (8, 8),
        **{f"document_key.{part}": shape for part, shape in document_key.items()},
    }  # fmt: skip
    expected: dict[str, tuple] = {"doc_reps": (3, 2)}
    for name, shape in weights.items():
        expected |= {f"{name}weight": shape, f"{name}bias": shape[:1]}
    assert {name: tuple(x.shape) for name, x in memory.state_dict().items()} == expected


def test_memory_takes_one_doc_rep_one_per_row_or_none() -> None:
    memory = docmem.DocumentMemory(docmem.MemoryConfig(8, 3, 5))
    h = torch.randn(2, 4, 8)
    for doc_rep in (memory.doc_reps[0], memory.doc_reps[:2], None):
        assert memory(h, doc_rep).shape == h.shape
    assert torch.equal(memory(h), memory(h, None))


def test_memory_is_saved_and_loaded(tmp_path: Path) -> None:
    memory = docmem.DocumentMemory(docmem.MemoryConfig(8, 3, 5), ["A", "B", "C"])
    memory.save_pretrained(tmp_path)
    loaded = docmem.DocumentMemory.from_pretrained(str(tmp_path))
    assert (loaded.config, loaded.titles) == (memory.config, memory.titles)
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in memory.state_dict().items())


@pytest.mark.parametrize("place", range(1, len(PAPER), 2), ids=lambda place: PAPER[place][2:])
def test_train_takes_every_flag_of_the_original_program(place: int) -> None:
    flag, value = PAPER[place : place + 2]
    assert flag.startswith("--")
    lm = ["--lm_name", "pythia"] if flag == "--lm_size" else []  # without it a size says nothing
    config = parsed(["train", *lm, flag, value])
    name = flag[2:].replace("segements", "segments")
    assert str(getattr(config, name)) == str(getattr(parsed(PAPER), name))
