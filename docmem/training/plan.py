"""What a training will take, before it starts: memory and time, from the shapes of things.

    print(plan(preset("pythia-1b")))

The LM's weights are not loaded, and of Pythia nothing is downloaded. The time is that of the
matrix products, at the speed at which the device is found to do the two largest, those of the head.
On two CPU cores it was within a fifth of what the embedded LM and SmolLM2-135M took. On an H200 an
epoch of Pythia-1B's shape took three times as long as estimated, as it waits on starting many small
operations, and a sixth more memory.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch.utils.benchmark import Timer

from docmem.core.blocks import find_blocks, resolve_layer, text_config
from docmem.documents import WIKITEXT_CONFIGS, Document, segments
from docmem.errors import DocmemError, checked, counted
from docmem.lm.loading import DTYPES, chosen_dtype, context_of, find_lm, placement
from docmem.training.config import TrainConfig
from docmem.training.muon import STEPS
from docmem.training.setup import check_negative, configured_documents, memory_of

ACTIVATIONS = 20
"""Numbers per token and width that a block keeps for the backward pass, about."""
ENGLISH = re.compile(r"[\x00-\x7f\u2000-\u206f]+")
"""What English is written with: ASCII, and dashes and quotation marks."""
# Width, blocks, heads and vocabulary, as the LMs' own configurations say.
PYTHIA = {
    "pythia-70m": (512, 6, 8, 50304),
    "pythia-160m": (768, 12, 12, 50304),
    "pythia-410m": (1024, 24, 16, 50304),
    "pythia-1b": (2048, 16, 8, 50304),
    "pythia-1.4b": (2048, 24, 16, 50304),
    "pythia-2.8b": (2560, 32, 32, 50304),
    "pythia-6.9b": (4096, 32, 32, 50432),
    "pythia-12b": (5120, 36, 40, 50688),
}


@dataclass(frozen=True)
class Plan:
    """What a training takes."""

    config: TrainConfig
    device: str
    """Where it runs."""
    dtype: str
    """Number format of the LM there."""
    memory: dict[str, float]
    """Bytes on the device, by what they are for."""
    trained: int
    """Weights of the document memory."""
    tokens: int
    """Tokens of all segments, estimated from their words and letters."""
    flops_once: float
    """Of the frozen blocks, which read the documents once."""
    flops_epoch: float
    """Of an epoch."""
    rate: float
    """FLOP per second of products as large as the head's, measured here."""

    @property
    def seconds_once(self) -> float:
        """Of the frozen pass."""
        return self.flops_once / self.rate

    @property
    def seconds_epoch(self) -> float:
        """Of an epoch."""
        return self.flops_epoch / self.rate

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        return self.seconds_once + self.config.num_epochs * self.seconds_epoch

    def __str__(self) -> str:
        sizes = [(what, f"{size / 1e9:.3f} GB") for what, size in self.memory.items()]
        rows = [
            ("device and number format", f"{self.device}, {self.dtype}"),
            ("tokens of all segments, about", f"{self.tokens:,}"),
            ("trained weights", f"{self.trained:,}"),
            *sizes,
            ("all of these together", f"{sum(self.memory.values()) / 1e9:.3f} GB"),
            ("speed of products, measured", f"{self.rate / 1e9:.0f} GFLOP/s"),
            ("the frozen blocks, once", f"{self.seconds_once:.1f} s"),
            ("an epoch", f"{self.seconds_epoch:.2f} s"),
            (counted(self.config.num_epochs, "epoch"), f"{self.seconds / 60:.1f} minutes"),
        ]
        return str(tabulate(rows, disable_numparse=True, tablefmt="plain"))


@checked
def plan(config: TrainConfig, documents: Sequence[Document] | None = None) -> Plan:
    """Estimate what `train(config)` takes on this machine.

    Args:
        config: all settings.
        documents: what will be read; None: what `config` names, or of WikiText, which may have to
            be downloaded, as many and as long documents as `config` allows.

    Raises:
        DocmemError: if the LM's shape is not known and cannot be read, there is no document, or the
            device or number format cannot be used; or where `train` would refuse the settings, as
            far as that is known without weights and texts.
    """
    if documents is not None and not documents:
        raise DocmemError("There are no documents to plan for; give some, or None.")
    place = placement(config.device, config.num_gpus)
    device = "cuda" if place["device_map"] == "balanced" else str(place["device_map"])
    dtype = chosen_dtype(config.lm, config.dtype, device)
    model = empty_lm(config)
    width, vocabulary = text_config(model).hidden_size, text_config(model).vocab_size
    if documents is None and config.source not in WIKITEXT_CONFIGS:
        documents = configured_documents(config)
    lengths = segment_tokens(config, documents, vocabulary)
    longest, context = max(map(max, lengths)), context_of(model)
    if context is not None and longest > context:
        raise DocmemError(
            f"A segment may have {longest} tokens, about, and the context of {config.lm} is "
            f"{context} tokens. Give a smaller max_length or segment_length."
        )
    check_negative(config, len(lengths))
    with torch.device("meta"):
        built = memory_of(config, width, len(lengths))
    trained = sum(parameter.numel() for parameter in built.parameters())
    tokens = sum(map(sum, lengths))
    blocks = find_blocks(model)
    layer = resolve_layer(config.hook_memory_layer, len(blocks))
    n_after = len(blocks) - 1 - layer
    before, after = (
        sum(p.numel() for block in part for p in block.parameters())
        for part in (blocks[: layer + 1], blocks[layer + 1 :])
    )
    memory_dim = config.hook_memory_dim
    batches = [rows[i : i + config.batch_size] for rows in lengths
               for i in range(0, len(rows), config.batch_size)]  # fmt: skip
    per_batch = [tokens_read(config, rows) for rows in batches]
    read, largest = sum(per_batch), max(per_batch)
    # Forward, and backward by the activations; of the memory, by its weights too.
    flops = read * (4 * width * vocabulary + 4 * after) + 3 * 2 * width * memory_dim * read * 2
    flops += len(batches) * 3 * 2 * width * width * memory_dim
    if config.optimizer == "muon":
        small_side, products = min(width, memory_dim), 3 * len(STEPS)
        steps = math.ceil(len(batches) / config.num_accumulation_steps)
        flops += steps * products * (2 * 2 * small_side**2 * width + 2 * width**3)
    number = torch.empty(0, dtype=DTYPES[dtype]).itemsize
    moments = 3 if config.optimizer == "muon" else 4
    memory = {
        "the LM's weights": float(number * model.num_parameters()),
        "hidden states": float(number * tokens * width),
        # In a short format the head's product lies beside its copy in float32.
        "logits of a step, at most": float((number + 4 * (number < 4)) * largest * vocabulary),
        "activations of a step after it": float(ACTIVATIONS * number * largest * width * n_after),
        "the document memory, in training": float(4 * moments * trained),
    }
    rate = product_rate(largest, width, vocabulary, dtype, device)
    return Plan(config, device, dtype, memory, trained, tokens, 2.0 * tokens * before, flops, rate)


def pythia_config(width: int, n_blocks: int, heads: int, vocabulary: int) -> Any:
    """The configuration of a GPT-NeoX as Pythia is one.

    Its rotary positions turn a quarter of each head, transformers' default.
    """
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=n_blocks,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        use_parallel_residual=True,
    )


def empty_lm(config: TrainConfig) -> Any:
    """The LM without its weights; DocmemError if its configuration cannot be read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if config.lm in PYTHIA:
        shape: Any = pythia_config(*PYTHIA[config.lm])
    else:
        repository, revision, _ = find_lm(config.lm, config.lm_cache_dir)
        try:
            shape = AutoConfig.from_pretrained(
                repository, revision=revision, cache_dir=config.lm_cache_dir
            )
        except (OSError, ValueError) as error:
            raise DocmemError(
                f"The shape of the LM {config.lm!r} could not be read from {repository}: {error}"
            ) from error
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(shape)
    except ValueError as error:
        raise DocmemError(f"{config.lm!r} is no causal LM that transformers knows.") from error


def tokens_per_word(vocabulary: int) -> float:
    """Tokens of an English word: 2.1 with 4,096 of them, 1.6 with 49,152, as measured here."""
    return max(1.2, 2.1 - 0.15 * math.log2(vocabulary / 4096))


def segment_tokens(
    config: TrainConfig, documents: Sequence[Document] | None, vocabulary: int
) -> list[list[int]]:
    """Estimated tokens of each segment, document by document."""
    if documents is None:
        count = len(config.titles) or config.max_labels
        texts = [["word " * config.segment_length] * config.max_segments] * count
    else:
        texts = [
            segments(document.text, config.segment_length, config.max_segments)
            for document in documents
        ]
    return [
        [min(config.max_length, math.ceil(tokens_of(text, vocabulary))) for text in rows]
        for rows in texts
    ]


def tokens_of(text: str, vocabulary: int) -> float:
    """Tokens of a text, about: by its words, and by the bytes of what is not in English.

    In scripts without spaces a word may be a whole segment. A byte there takes about one token
    with 4,096 of them, half of one with 49,152.
    """
    foreign = len(ENGLISH.sub("", text).encode())
    per_byte = max(0.3, 1 - 0.15 * math.log2(vocabulary / 4096))
    return tokens_per_word(vocabulary) * len(text.split()) + per_byte * foreign


def tokens_read(config: TrainConfig, rows: Sequence[int]) -> int:
    """How many tokens a batch of rows has after the hooked block, under both DocReps."""
    negative = len(rows) if config.negative_rows is None else config.negative_rows
    return sum(rows) + min(len(rows), negative) * max(rows)


def product_rate(rows: int, width: int, vocabulary: int, dtype: str, device: str) -> float:
    """FLOP per second of the head's two products, forward and backward, each tried for 0.1 s."""
    rows = min(rows, 512)  # more does not change the rate, and takes memory
    kind: dict[str, Any] = {"dtype": DTYPES[dtype], "device": device}
    x, weight = torch.randn(rows, width, **kind), torch.randn(vocabulary, width, **kind)
    logits = torch.randn(rows, vocabulary, **kind)
    seconds = 0.0
    for product in ("x @ weight.T", "logits @ weight"):
        timer = Timer(
            product,
            globals={"x": x, "weight": weight, "logits": logits},
            num_threads=torch.get_num_threads(),
        )
        seconds += timer.blocked_autorange(min_run_time=0.1).median
    return 2 * 2 * rows * width * vocabulary / seconds
