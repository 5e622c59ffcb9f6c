"""Making the embedded LM: a small GPT-NeoX (the class of Pythia) from a folder of plain prose.

    pretrain(PretrainConfig(text=Path("my_prose"), out=Path("my_lm")))

leaves in `out` a model folder that `load_lm` opens: fp16 safetensors, tokenizer and a model
card whose every number was measured here. Killed at any moment, the same call continues from
the last checkpoint and ends with the same weights. Memory: four times the parameters in fp32,
and the token stream (8 bytes per token).
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch.nn import functional
from tqdm.auto import tqdm

from docmem.checkpoint import load_checkpoint, save_checkpoint
from docmem.core.files import reading, write_json, write_text
from docmem.documents import Document, read_files
from docmem.errors import (
    Count,
    DocmemError,
    Natural,
    NotNegative,
    Rate,
    check_count,
    check_fields,
    check_folder,
    checked,
)
from docmem.lm.bfloat16 import warn_if_slow
from docmem.lm.loading import TINY

if TYPE_CHECKING:  # the command line knows PretrainConfig, and most commands need no transformers
    from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerBase

MODEL_CARD = TINY.parent / "model_card.md"
# Prose set for print has curly quotes and dashes; encyclopedias and keyboards have ASCII.
PLAIN_PUNCTUATION = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "—": " - ", "–": "-", "\u2060": "", "\u00a0": " "}
)


Vocabulary = Annotated[int, partial(check_count, least=258)]


@checked
@dataclass(frozen=True)
class PretrainConfig:
    """What is pretrained, on what, and for how long."""

    text: Path
    """Folder of .txt files, one paragraph per line."""
    out: Path = Path("outputs/tiny")
    """Folder for the model; its `work` subfolder holds the checkpoint."""
    vocab_size: Vocabulary = 4096
    """Entries of the byte-level BPE, the 256 bytes and two special tokens included."""
    d_model: Count = 384
    """Width of the residual stream."""
    layers: Count = 4
    """Blocks."""
    heads: Count = 6
    """Attention heads per block."""
    context: Count = 512
    """Tokens per sequence, and the longest the LM can read."""
    tokens: Count = 12_000_000
    """Tokens to train on, repeats included."""
    batch_size: Count = 4
    """Sequences per step."""
    lr: Rate = 1.2e-3
    """Peak learning rate: 2 % warm-up, then linear to zero."""
    weight_decay: NotNegative = 0.1
    """AdamW's decay of every matrix."""
    held_out: float = 0.02
    """Share of the paragraphs kept for the held-out cross entropy."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Matmuls in bf16 (autocast) are faster where the processor has them."""
    seed: Natural = 1
    """Seeds the split, the initial weights and the order of the data."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("text", "out"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        if self.d_model % (2 * self.heads):
            raise DocmemError(
                f"d_model is {self.d_model}; it must be a multiple of twice the {self.heads} heads."
            )
        if not 0 < self.held_out < 1:
            raise DocmemError(f"held_out is {self.held_out}; it must lie between 0 and 1.")


def read_paragraphs(documents: Sequence[Document]) -> list[str]:
    """The lines of some texts that are not empty, in ASCII punctuation."""
    lines = [line.strip() for document in documents for line in document.text.splitlines()]
    return [line.translate(PLAIN_PUNCTUATION) for line in lines if line]


def split_paragraphs(
    paragraphs: list[str], held_out: float, seed: int
) -> tuple[list[str], list[str]]:
    """Training and held-out paragraphs, each kept in reading order; the choice is by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(paragraphs), generator=generator)
    held = set(chosen[: max(1, round(len(paragraphs) * held_out))].tolist())
    training = [text for index, text in enumerate(paragraphs) if index not in held]
    return training, [paragraphs[index] for index in sorted(held)]


def train_tokenizer(
    paragraphs: list[str], vocab_size: int, context: int
) -> PreTrainedTokenizerBase:
    """A byte-level BPE like the embedded LM's (and Pythia's), fitted to the training paragraphs."""
    from transformers import AutoTokenizer

    like = AutoTokenizer.from_pretrained(TINY)
    tokenizer = like.train_new_from_iterator(paragraphs, vocab_size, show_progress=False)
    tokenizer.model_max_length = context
    return tokenizer


def token_stream(tokenizer: PreTrainedTokenizerBase, paragraphs: list[str]) -> torch.Tensor:
    """All paragraphs as one stream of token ids, (n_tokens,), each ended by the end-of-text id."""
    encoded = tokenizer(paragraphs, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in (*ids, tokenizer.eos_token_id)])


def batch_at(
    stream: torch.Tensor, step: int, batch_size: int, context: int, seed: int
) -> torch.Tensor:
    """The sequences of one step, (batch_size, context + 1): a function of seed and step alone.

    Each pass over the stream cuts it at another offset and visits the cuts in another order.
    """
    per_pass = (len(stream) - context - 1) // context
    rows = []
    for index in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(index, per_pass)
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        offset = int(torch.randint(context, (1,), generator=generator))
        start = offset + int(torch.randperm(per_pass, generator=generator)[place]) * context
        start = min(start, len(stream) - context - 1)
        rows.append(stream[start : start + context + 1])
    return torch.stack(rows)


def next_token_ce(model: GPTNeoXForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the tokens (batch, length), each given those before, nats per token."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits.float()
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def held_out_ce(
    model: GPTNeoXForCausalLM, stream: torch.Tensor, context: int, batch_size: int
) -> float:
    """Cross entropy, nats per token, over `stream` cut into consecutive full contexts."""
    windows = stream.unfold(0, context + 1, context)
    losses = [
        next_token_ce(model, batch).item() * len(batch) for batch in windows.split(batch_size)
    ]
    return math.fsum(losses) / len(windows)


def learning_rate(config: PretrainConfig, step: int, steps: int) -> float:
    """Linear warm-up over 2 % of the steps, then linear decay to zero."""
    warm_up = max(1, steps // 50)
    return config.lr * min((step + 1) / warm_up, (steps - step) / (steps - warm_up + 1))


def build_lm(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> GPTNeoXForCausalLM:
    """A GPT-NeoX of the configured shape with Pythia's choices, but embedding and head tied.

    Tying is what lets four blocks of width 384 fit in 20 MB of fp16.
    """
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.d_model,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.d_model,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # a GPU's generators are the caller's
        return GPTNeoXForCausalLM(shape)


def build_optimizer(config: PretrainConfig, model: GPTNeoXForCausalLM) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves norms and biases alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(0.9, 0.95),
        fused=True,
    )


@checked
def pretrain(config: PretrainConfig) -> Path:
    """Train tokenizer and LM, write the model folder, and return its path.

    Raises:
        DocmemError: if the text is unusable, the folder belongs to another configuration or a run,
            or the precision is beyond this processor.
    """
    if config.precision == "bf16":
        warn_if_slow("bfloat16")
    check_folder("out", config.out)
    if (config.out / "run.json").exists():
        raise DocmemError(f"{config.out} is a run of docmem; choose another --out for the LM.")
    work = config.out / "work"
    foreign = {path.name for path in config.out.glob("[!.]*")} - {"work"}
    if foreign and not (work / "config.json").exists():
        raise DocmemError(
            f"{config.out} holds files that are no pretraining of docmem; choose an empty or new "
            "folder."
        )
    if not config.text.is_dir():
        raise DocmemError(f"There is no folder {str(config.text)!r}; give one of .txt files.")
    works = [*read_files(config.text).values()]
    check_same(work / "config.json", config, works)
    training, held = split_paragraphs(read_paragraphs(works), config.held_out, config.seed)
    if not training:
        raise DocmemError(
            f"The text has {len(held)} paragraphs (lines), and with a held_out of "
            f"{config.held_out} none is left to train on. Give more text, or a smaller --held_out."
        )
    tokenizer = train_tokenizer(training, config.vocab_size, config.context)
    stream, held_stream = token_stream(tokenizer, training), token_stream(tokenizer, held)
    if len(stream) < 2 * (config.context + 1):
        raise DocmemError(
            f"The text has {len(stream)} tokens, fewer than two contexts of {config.context}. "
            "Give more text."
        )
    if len(held_stream) <= config.context:
        raise DocmemError(
            f"The paragraphs held out have {len(held_stream)} tokens, fewer than a context of "
            f"{config.context}. Give more text, or a larger --held_out."
        )
    model = build_lm(config, tokenizer)
    write_json(work / "config.json", settings_of(config, works))
    history = fit(config, model, stream, held_stream, work / "checkpoint.safetensors")
    model.half().float()  # what the files will hold
    ce = held_out_ce(model, held_stream, config.context, config.batch_size)
    if not math.isfinite(ce):
        raise diverged(config, ce)
    model.half().save_pretrained(config.out)
    tokenizer.save_pretrained(config.out)
    lines = "".join(json.dumps(entry) + "\n" for entry in history)
    write_text(config.out / "pretraining.jsonl", lines)
    default = PretrainConfig(text=config.text, out=config.out)
    changed = [f"--{k} {v}" for k, v in vars(config).items() if v != getattr(default, k)]
    card = ModelCard.from_template(
        ModelCardData(library_name="transformers", pipeline_tag="text-generation", license="mit"),
        str(MODEL_CARD),
        config=config,
        changed=" ".join(changed),
        works=[work.title for work in works],
        parameters=model.num_parameters(),
        training_tokens=len(stream),
        held_out_tokens=len(held_stream),
        ce=ce,
        last=history[-1],
        processor=f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}",
        threads=torch.get_num_threads(),
        torch_version=torch.__version__,
    )
    write_text(config.out / "README.md", str(card))
    return config.out


def settings_of(config: PretrainConfig, works: Sequence[Document]) -> dict[str, str]:
    """What decides the weights: the settings and the texts, wherever they lie."""
    settings = {name: str(value) for name, value in asdict(config).items()}
    del settings["text"], settings["out"]
    texts = json.dumps([(work.title, work.text) for work in works])
    return {**settings, "texts": hashlib.sha256(texts.encode()).hexdigest()}


def check_same(path: Path, config: PretrainConfig, works: Sequence[Document]) -> None:
    """Raise if `path` says that other settings or texts were begun with."""
    advice = "Choose another --out, or delete that folder to start anew."
    if not path.exists():
        return
    with reading(path, advice):
        before = dict(json.loads(path.read_text("utf-8")))
    now = settings_of(config, works)
    for name in sorted(now.keys() | before.keys()):
        if before.get(name) != now.get(name):
            what = "of other texts" if name == "texts" else f"with another {name}"
            raise DocmemError(f"{path.parents[1]} holds a pretraining {what}. {advice}")


def diverged(config: PretrainConfig, ce: float) -> DocmemError:
    """What is said of a loss that is no number."""
    return DocmemError(
        f"The cross entropy came to {ce}, so no LM was written. Give a smaller --lr than "
        f"{config.lr:g} (with a weight_decay of {config.weight_decay:g}), and another --out."
    )


def fit(
    config: PretrainConfig,
    model: GPTNeoXForCausalLM,
    stream: torch.Tensor,
    held_stream: torch.Tensor,
    checkpoint: Path,
) -> list[dict[str, float]]:
    """Train to the last step, from the checkpoint if there is one; the losses on the way."""
    optimizer = build_optimizer(config, model)
    steps = math.ceil(config.tokens / (config.batch_size * config.context))
    progress: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": []}
    if checkpoint.exists():
        anew = "Delete it, and the same command begins anew."
        progress = load_checkpoint(checkpoint, model, optimizer, {}, anew)
    started = time.perf_counter() - progress["seconds"]
    bar = tqdm(range(progress["step"], steps), initial=progress["step"], total=steps, unit="step")
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, steps)
        batch = batch_at(stream, step, config.batch_size, config.context, config.seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            loss = next_token_ce(model, batch)
        optimizer.zero_grad()
        if not loss.isfinite():
            raise diverged(config, loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}")
        done = step + 1
        if done % max(1, steps // 40) == 0 or done == steps:
            held_out = held_out_ce(model, held_stream, config.context, config.batch_size)
            if not math.isfinite(held_out):
                raise diverged(config, held_out)
            seconds = time.perf_counter() - started
            entry = {
                "step": done,
                "tokens": done * config.batch_size * config.context,
                "training_ce": round(loss.item(), 4),
                "held_out_ce": round(held_out, 4),
                "seconds": round(seconds, 1),
            }
            bar.write(json.dumps(entry))
            history = [*progress["history"], entry]
            progress = {"step": done, "seconds": seconds, "history": history}
            save_checkpoint(checkpoint, model, optimizer, {}, progress)
    return progress["history"]
