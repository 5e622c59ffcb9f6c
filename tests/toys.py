"""Toy LMs and documents, built on the spot; nothing is downloaded."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from docmem.documents import Document
from docmem.lm.forward import TokenBatch
from docmem.lm.loading import LanguageModel
from docmem.lm.pretraining import train_tokenizer
from docmem.training.config import PAPER_PROCEDURE, TrainConfig
from docmem.training.history import Epoch
from docmem.training.run import Run

DOCUMENTS = [
    Document(
        "Cyclone Odalys",
        " = Cyclone Odalys = \n\nCyclone Odalys crossed the Brannic Sea in September and drowned "
        "the low island of Sallow . The harbour master read nine hundred and sixty millibars , "
        "wrote the figure down , and went home to nail his shutters .",
    ),
    Document(
        "Thornwick Light",
        " = Thornwick Light = \n\nThornwick Light stands on the Shrike , a granite tower of "
        "thirty-six metres . Two white flashes every twenty seconds are seen from afar .",
    ),
    Document(
        "Quillon Engine",
        " = Quillon Engine = \n\nThe Quillon Engine added by canal water . Twenty-four brass "
        "columns held eighteen wheels each .",
    ),
]
WIDTH, BLOCKS, CONTEXT = 32, 3, 64

_WIDE = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 2,
         "intermediate_size": 64, "max_position_embeddings": CONTEXT}  # fmt: skip
_GPT = {"n_embd": WIDTH, "n_layer": BLOCKS, "n_head": 2, "n_positions": CONTEXT}
_GROUPED = {**_WIDE, "num_key_value_heads": 1}
_GEMMA = {**_GROUPED, "head_dim": 16, "sliding_window": 8}
_TURNS = ["sliding_attention", "full_attention", "sliding_attention"]

# Family to its sizes and to the attribute path of its blocks.
FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "gpt_neox": (_WIDE, "gpt_neox.layers"),
    "gpt2": (_GPT, "transformer.h"),
    "llama": (_WIDE, "model.layers"),
    "mistral": ({**_GROUPED, "sliding_window": 8}, "model.layers"),
    "qwen2": (_GROUPED, "model.layers"),
    "qwen3": ({**_GROUPED, "head_dim": 16}, "model.layers"),
    "gemma2": (_GEMMA, "model.layers"),
    "gemma3_text": ({**_GEMMA, "layer_types": _TURNS}, "model.layers"),
    "opt": ({**_WIDE, "ffn_dim": 64, "word_embed_proj_dim": WIDTH}, "model.decoder.layers"),
    "phi": (_WIDE, "model.layers"),
    "bloom": ({"hidden_size": WIDTH, "n_layer": BLOCKS, "n_head": 2}, "transformer.h"),
    "gptj": ({**_GPT, "rotary_dim": 8}, "transformer.h"),
}


@functools.cache
def toy_tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([document.text for document in DOCUMENTS], 400, CONTEXT)


def toy_lm(family: str = "gpt_neox", seed: int = 0) -> LanguageModel:
    """Random weights large enough that attention and positions matter in the logits."""
    tokenizer = toy_tokenizer()
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **FAMILIES[family][0],
    )
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.25 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return LanguageModel(model.requires_grad_(False).eval(), tokenizer, f"toy-{family}")


def toy_batch(lengths: tuple[int, ...] = (21, 13, 17), seed: int = 0) -> TokenBatch:
    """Random tokens, a row for each length, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(2, len(toy_tokenizer()), (len(lengths), longest), generator=generator)
    mask = torch.tensor([[False] * (longest - n) + [True] * n for n in lengths])
    return TokenBatch(ids.masked_fill(~mask, toy_tokenizer().pad_token_id), mask)


def quick_config(save_dir: Path) -> TrainConfig:
    """Seven epochs of five batches by the paper's procedure, saved after epochs 3, 6 and 7."""
    return TrainConfig(
        **PAPER_PROCEDURE,
        guidance=1.0,
        target_negative_ce=4.5,
        save_dir=save_dir,
        segment_length=12,
        max_segments=4,
        max_length=CONTEXT,
        hook_memory_dim=24,
        batch_size=2,
        num_epochs=7,
        save_freq=3,
        lr=1e-2,
    )


class Killed(BaseException):
    """Stands for what no program catches."""


def at(epoch: int, action: Callable[[], object]) -> Callable[[Epoch], bool | None]:
    """An `on_epoch` that acts after one epoch, and returns what the action returns."""

    def on_epoch(done: Epoch) -> Any:
        return action() if done.epoch == epoch else None

    return on_epoch


def raising(error: BaseException) -> Callable[..., None]:
    def act(*_: object) -> None:
        raise error

    return act


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same(run: Run, whole: Run, epochs: Sequence[float] = (0, 3, 6, 7)) -> None:
    """Both finished with the same history, memory, snapshots (of these epochs) and files."""
    assert run.finished
    assert [epoch[:4] for epoch in run.load_history()] == [
        epoch[:4] for epoch in whole.load_history()
    ]
    mine, theirs = run.load_memory().state_dict(), whole.load_memory().state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert run.load_snapshots().epochs == whole.load_snapshots().epochs == list(epochs)
    for part in ("token", "document", "doc_reps"):
        assert torch.equal(
            getattr(run.load_snapshots(), part), getattr(whole.load_snapshots(), part)
        )
    assert files(run.path).keys() == files(whole.path).keys()
