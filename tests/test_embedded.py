"""What ships with the package: the embedded LM and what it can and cannot do."""

import json
import re

import pytest
import torch

from docmem.documents import load_documents, segments
from docmem.lm.forward import forward_inputs
from docmem.lm.head import cross_entropy
from docmem.lm.loading import TINY, load_lm


def test_embedded_lm_is_a_small_gpt_neox_in_fp16() -> None:
    settings = json.loads((TINY / "config.json").read_text())
    assert settings["model_type"] == "gpt_neox"
    assert sum(path.stat().st_size for path in TINY.glob("*.safetensors")) <= 20_000_000
    lm = load_lm("tiny")
    assert lm.context == 512
    assert len(lm.blocks) == 4
    assert lm.model.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())


def test_model_card_gives_the_logged_held_out_loss() -> None:
    card = (TINY / "README.md").read_text(encoding="utf-8")
    told = float(re.search(r"held-out cross entropy \| ([\d.]+)", card)[1])
    lines = (TINY / "pretraining.jsonl").read_text().splitlines()
    assert abs(told - json.loads(lines[-1])["held_out_ce"]) < 0.01
    assert told <= 3.8


@pytest.mark.slow
def test_embedded_lm_does_not_know_the_encyclopedia() -> None:
    """Memorised text costs well under one nat a token, unread prose several."""
    lm = load_lm("tiny")
    for document in load_documents("encyclopedia"):
        batch = lm.tokenize(segments(document.text, 64, 4))
        with torch.no_grad():
            logits = lm.model(**forward_inputs(lm.model, batch)).logits
        assert cross_entropy(logits, batch).item() > 3.5, document.title


def test_text_survives_its_tokenizer() -> None:
    lm = load_lm("tiny")
    for text in (
        "Cyclone Odalys, 934 millibars.",
        "naïve — “quoted” 北 🌊",
        " two  spaces\nand a line",
    ):
        assert lm.tokenizer.decode(lm.tokenizer(text)["input_ids"]) == text
