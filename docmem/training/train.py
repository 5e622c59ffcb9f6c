import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.core.files import is_partial
from docmem.core.memory import DocumentMemory
from docmem.documents import Document, check_titles, load_documents
from docmem.errors import DocmemError
from docmem.lm.forward import frozen
from docmem.lm.hidden_states import read_documents
from docmem.lm.loading import LanguageModel, load_lm
from docmem.training.config import TrainConfig
from docmem.training.run import ELSEWHERE, Run, settings_of
from docmem.training.trainer import OnEpoch, _Trainer, stopping_after_epoch


def train(
    config: TrainConfig,
    *,
    lm: LanguageModel | None = None,
    documents: Sequence[Document] | None = None,
    doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
    on_epoch: OnEpoch | None = None,
    progress: bool = True,
) -> Run:
    """Train a document memory, or go on with one; a finished run is simply opened.

    Ctrl-C ends the current epoch, saves, and returns the unfinished run; a second one stops
    at once, leaving the last checkpoint.

    Args:
        config: all settings.
        lm: the LM; None: the one that `config` names.
        documents: what to memorise; None: what `config` names.
        doc_reps: where the documents lie, in their order; None: orthogonal, by the seed.
        on_epoch: called after each epoch; returning False stops as Ctrl-C does.
        progress: show a bar with the losses.

    Raises:
        DocmemError: if a setting or `doc_reps` cannot work with this LM or these documents, the
            run's folder holds another run, a file cannot be written, or a loss is not a number.
    """
    if documents is None:
        documents = load_documents(
            config.source,
            None if config.titles else config.max_labels,
            titles=config.titles,
            seed=config.seed if config.source.startswith("wikitext-") else None,
            cache_dir=config.data_cache_dir,
        )
    check_titles([document.title for document in documents])
    if config.negative_key_type == "other" and len(documents) < 2:
        raise DocmemError(
            "The negative 'other' needs a second document; "
            "add one, or choose the negative_key_type random, zero or perturb."
        )
    if lm is None:
        lm = load_lm(
            config.lm,
            dtype=config.dtype,
            num_gpus=config.num_gpus,
            lm_cache_dir=config.lm_cache_dir,
        )
    memory = new_memory(config, lm, documents, doc_reps)
    folder = config.save_dir or default_folder(config, lm, documents, doc_reps)
    if (folder / "run.json").exists():
        run = Run.create(folder, config, lm, documents, doc_reps)
        if run.finished:
            return run
    prefix = read_documents(lm, documents, config)
    run = Run.create(folder, config, lm, documents, doc_reps)
    for leftover in filter(is_partial, folder.rglob("*")):
        leftover.unlink()
    with frozen(lm.model), stopping_after_epoch() as stop:
        _Trainer(run, prefix, memory.to(prefix.device)).run(stop, on_epoch, progress)
    return run


def new_memory(
    config: TrainConfig,
    lm: LanguageModel,
    documents: Sequence[Document],
    doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
) -> DocumentMemory:
    """The untrained memory of a configuration: a function of its seed.

    Given DocReps take the place of the seed's; the weights stay the seed's.

    Raises:
        DocmemError: if `doc_reps` has another shape than the memory's, or is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        titles = [document.title for document in documents]
        memory = DocumentMemory(config.memory_config(lm.d_model, len(documents)), titles)
    if doc_reps is not None:
        if doc_reps.shape != memory.doc_reps.shape:
            raise DocmemError(
                f"DocReps of shape {tuple(doc_reps.shape)} were given; {len(documents)} documents "
                f"with a key_dim of {config.key_dim} take {tuple(memory.doc_reps.shape)}."
            )
        if not doc_reps.isfinite().all():
            raise DocmemError("The given DocReps are not all finite numbers; give finite ones.")
        memory.doc_reps.copy_(doc_reps.detach())
    return memory


def default_folder(
    config: TrainConfig,
    lm: LanguageModel,
    documents: Sequence[Document],
    doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
) -> Path:
    """`outputs/LM/ACTIVATION-ENTRIES-DIGEST`: other settings go to another folder."""
    settings = {n: v for n, v in settings_of(config).items() if n not in ELSEWHERE}
    content: list[Any] = [settings, lm.name, [document.text for document in documents]]
    if doc_reps is not None:
        content.append(doc_reps.float().tolist())
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
    name = f"{config.key_activation}-{config.hook_memory_dim}-{digest}"
    return Path("outputs") / Path(lm.name).name / name
