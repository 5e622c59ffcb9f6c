"""What a configuration stands for: its documents, its LM, its untrained memory, its folder."""

import json
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.core.blocks import lm_fingerprint
from docmem.core.memory import DocumentMemory
from docmem.documents import PAPER_TITLES, WIKITEXT_CONFIGS, Document, is_folder, load_documents
from docmem.errors import DocmemError, check_text, check_titles
from docmem.lm.loading import LanguageModel, load_lm
from docmem.training.config import TrainConfig
from docmem.training.description import RESUME_IGNORES, to_dict
from docmem.training.doc_reps import spread_doc_reps
from docmem.training.origin import origin_of
from docmem.training.texts import digest_of

_SEEDING = threading.Lock()  # weights are drawn by a generator that all threads share
LINES = ("Cc", "Zl", "Zp")
"""What Unicode calls control characters, and ends of lines and paragraphs."""


def configured_documents(config: TrainConfig) -> list[Document]:
    """The documents that a configuration names; of WikiText, a choice by its seed.

    Seed 1 chooses the pages of WikiText-103 that the authors' seed 1 drew, up to twenty.
    """
    titles, count = config.titles, config.max_labels
    if config.source == "wikitext-103" and config.seed == 1 and count <= len(PAPER_TITLES):
        titles = titles or PAPER_TITLES[:count]
    return load_documents(
        config.source,
        None if titles else count,
        titles=titles,
        seed=config.seed if config.source in WIKITEXT_CONFIGS else None,
        cache_dir=config.data_cache_dir,
    )


def configured_lm(config: TrainConfig) -> LanguageModel:
    """The LM that a configuration names; DocmemError as `load_lm`."""
    return load_lm(
        config.lm,
        dtype=config.dtype,
        device=config.device,
        num_gpus=config.num_gpus,
        lm_cache_dir=config.lm_cache_dir,
    )


def check_given_lm(config: TrainConfig, lm: LanguageModel) -> None:
    """Raise if the configuration asks for another number format or device than this LM has."""
    if config.dtype not in ("auto", lm.dtype):
        raise DocmemError(
            f"dtype is {config.dtype}, and the LM that was given is in {lm.dtype}. Leave dtype "
            "out, or load the LM with it."
        )
    wanted = {None: config.device, 0: "cpu"}.get(config.num_gpus, "cuda")
    if wanted not in ("auto", lm.device.type, str(lm.device)):
        raise DocmemError(
            f"device is {config.device} and num_gpus {config.num_gpus}, and the LM that was "
            f"given is on {lm.device}. Leave them out, or load the LM there."
        )


def check_documents(config: TrainConfig, documents: Sequence[Document]) -> None:
    """Raise if these documents cannot be memorised.

    There is none, a title is not unique or not one line, a text is empty, `titles` names others, or
    a single document cannot have another as its negative.
    """
    if not documents:
        raise DocmemError("There are no documents to train on; give at least one.")
    titles = [document.title for document in documents]
    for document in documents:
        check_text(f"The text of the document {document.title!r}", document.text)
        title = document.title
        if title != title.strip() or any(unicodedata.category(c) in LINES for c in title):
            raise DocmemError(
                f"A document is called {title!r}; a title is one line, with no white space around "
                "it and no control character in it."
            )
    check_titles(titles)
    if config.titles and titles != [*config.titles]:
        raise DocmemError(
            "titles names other documents than those given; leave titles out, or give the "
            "documents that it names, in its order."
        )
    check_negative(config, len(documents))


def check_negative(config: TrainConfig, n_docs: int) -> None:
    """Raise if so few documents have no negative DocReps of the configured kind."""
    if config.negative_key_type == "other" and n_docs < 2:
        raise DocmemError(
            "The negative 'other' needs a second document; "
            "add one, or choose the negative_key_type random, zero or perturb."
        )


def memory_of(
    config: TrainConfig, d_model: int, n_docs: int, titles: Sequence[str] | None = None
) -> DocumentMemory:
    """An untrained memory of these settings; DocmemError if it is larger than what is free."""
    shape = config.memory_config(d_model, n_docs)
    try:
        return DocumentMemory(shape, titles)
    except DocmemError:
        raise
    except (RuntimeError, TypeError) as error:  # torch's, of sizes beyond memory and numbers
        raise DocmemError(
            f"No memory can have {shape.memory_dim} entries and a key_dim of {shape.key_dim} for "
            f"an LM of width {d_model}: it does not fit here ({str(error).splitlines()[0]}). Give "
            "a smaller hook_memory_dim or key_dim."
        ) from error


def new_memory(
    config: TrainConfig,
    lm: LanguageModel,
    documents: Sequence[Document],
    doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
) -> DocumentMemory:
    """The untrained memory of a configuration: a function of its seed.

    Given DocReps take the place of the configuration's; the weights stay the seed's.

    Raises:
        DocmemError: if `doc_reps` has another shape than the memory's, or is not finite; or if the
            memory is larger than what is free.
    """
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # a GPU's generators are the caller's
        titles = [document.title for document in documents]
        memory = memory_of(config, lm.d_model, len(documents), titles)
    memory.origin = origin_of(lm, config.hook_memory_layer, documents)
    if doc_reps is None and config.doc_rep_init == "spread":
        doc_reps = spread_doc_reps(len(documents), config.key_dim, config.seed)
    if doc_reps is not None:
        if doc_reps.shape != memory.doc_reps.shape:
            raise DocmemError(
                f"DocReps of shape {tuple(doc_reps.shape)} were given; {len(documents)} documents "
                f"with a key_dim of {config.key_dim} take {tuple(memory.doc_reps.shape)}."
            )
        memory.doc_reps.copy_(doc_reps.detach())
    return memory


def default_folder(
    config: TrainConfig,
    lm: LanguageModel,
    documents: Sequence[Document],
    doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
) -> Path:
    """`outputs/LM/ACTIVATION-ENTRIES-DIGEST`: other settings go to another folder.

    The number of epochs is no part of the digest, so that a run can be extended. An LM or documents
    from a folder, or from a repository of the hub, count by what they are, not where they lie.
    """
    settings = {n: v for n, v in to_dict(config).items() if n not in RESUME_IGNORES}
    settings["dtype"] = lm.dtype  # what `auto` came to
    lm_name = lm.name
    if "/" in lm_name or Path(lm_name).is_dir():
        lm_name = lm_fingerprint(lm.model)
        settings |= {"lm_name": None, "lm_size": None}
    if is_folder(config.source):
        settings["documents"] = None
    content: list[Any] = [settings, lm_name, [document.text for document in documents]]
    if doc_reps is not None:
        content.append(doc_reps.float().tolist())
    digest = digest_of(json.dumps(content))[:8]
    name = f"{config.key_activation}-{config.hook_memory_dim}-{digest}"
    trained = sorted(Path("outputs").glob(f"*/{name}"))  # also under another name of this LM
    lms = Path(lm.name).name.strip(".") or "lm"  # `..` is another folder
    return trained[0] if trained else Path("outputs") / lms / name
