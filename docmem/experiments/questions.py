"""Questions about the embedded encyclopedia, each with a right answer and three wrong ones.

What is asked stands in the first 150 words of an article; no three words in a row of it do.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from docmem.errors import DocmemError
from docmem.lm.forward import forward_inputs
from docmem.lm.head import token_losses
from docmem.lm.loading import LanguageModel

QUESTIONS = Path(__file__).parents[1] / "assets" / "encyclopedia" / "questions.jsonl"


@dataclass(frozen=True)
class Question:
    """About the document of this title; an answer follows the prompt and a space."""

    title: str
    prompt: str
    answer: str
    wrong: list[str]
    form: str  # cloze or question


def load_questions(title: str) -> list[Question]:
    """The questions about a document; DocmemError if there are none."""
    lines = map(json.loads, QUESTIONS.read_text(encoding="utf-8").splitlines())
    if not (found := [Question(**line) for line in lines if line["title"] == title]):
        raise DocmemError(f"There are no questions about {title!r}: they are of the encyclopedia.")
    return found


@torch.no_grad()
def read_answers(
    lm: LanguageModel, model: Any, asked: Sequence[Question], text: str = ""
) -> Float[Tensor, "questions answers"]:
    """Cross entropy of each answer after its prompt, nats per token of it; the right one's first.

    `model` is the LM's, or one with a memory or adapters; it reads `text` before every prompt.
    """
    answers = [(one.prompt, answer) for one in asked for answer in (one.answer, *one.wrong)]
    batch = lm.tokenize([" ".join(pair) for pair in answers])
    given = lm.tokenize([prompt for prompt, _ in answers]).attention_mask.sum(1, keepdim=True)
    inputs = forward_inputs(lm.model, batch)
    if text:  # read once, for all rows
        before = lm.tokenize([text]).input_ids
        inputs["past_key_values"] = model(before, use_cache=True).past_key_values
        inputs["past_key_values"].batch_repeat_interleave(len(answers))
        inputs["attention_mask"] = pad(inputs["attention_mask"], (before.shape[1], 0), value=1)
        inputs["position_ids"] = inputs["position_ids"] + before.shape[1]
    losses = token_losses(model(**inputs).logits, batch)
    answer = (batch.attention_mask.cumsum(1)[:, 1:] > given).to(losses.device)  # of (rows, seq-1)
    return ((losses * answer).sum(1) / answer.sum(1)).view(len(asked), -1).cpu()
