"""The loop: documents in turn, each read under its own DocRep and under a negative one.

    run = train(preset("tiny", key_activation="relu"))

follows the paper's program: one step a batch of one document, AdamW at a constant rate, the
gradient norm clipped, snapshots on the way. Its two full passes through the LM become one
resumption after the hooked block (`docmem.replay`). Whatever stops it, the same call goes on
from the last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from docmem.checkpoint import load_checkpoint, save_checkpoint
from docmem.config import TrainConfig
from docmem.documents import Document, check_titles, load_documents
from docmem.files import DocmemError, is_partial
from docmem.loss import guidance_term, negative_doc_rep
from docmem.memory import DocumentMemory
from docmem.models import LanguageModel, frozen, load_lm
from docmem.replay import Prefix, read_documents
from docmem.runs import ELSEWHERE, Epoch, Run, settings_of
from docmem.selection import memory_selection

OnEpoch = Callable[[Epoch], bool | None]


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


@contextmanager
def stopping_after_epoch() -> Iterator[threading.Event]:
    """Within: the first Ctrl-C sets the event, a second one interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    usual = signal.getsignal(signal.SIGINT)

    def ask(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, usual)
        tqdm.write("Stopping after this epoch; press Ctrl-C again to stop now.")

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, usual)


class _Trainer:
    """The state of one training: what a checkpoint holds, and how an epoch changes it."""

    def __init__(self, run: Run, prefix: Prefix, memory: DocumentMemory) -> None:
        self.run_ = run
        self.config = run.config
        self.prefix = prefix
        self.memory = memory
        self.optimizer = torch.optim.AdamW(memory.parameters(), lr=self.config.lr)
        self.generator = torch.Generator().manual_seed(self.config.seed)
        self.history: list[Epoch] = []

    def run(self, stop: threading.Event, on_epoch: OnEpoch | None, progress: bool) -> None:
        """Go on from the checkpoint, if there is one, to the last epoch or a stop."""
        generators = {"negatives": self.generator}
        if self.run_.checkpoint.exists():
            done = load_checkpoint(self.run_.checkpoint, self.memory, self.optimizer, generators)[
                "epoch"
            ]
            self.history = self.run_.history[:done]
            if done == self.config.num_epochs:
                self._save()  # killed after the checkpoint, or files lost since
        else:
            self._snapshot(0)
        total = self.config.num_epochs
        bar = tqdm(total=total, initial=len(self.history), unit="epoch", disable=not progress)
        bar.set_description(self.config.key_activation)
        with bar:
            while len(self.history) < total and not stop.is_set():
                epoch = self._epoch(len(self.history) + 1)
                self.history.append(epoch)
                bar.update()
                bar.set_postfix(own=f"{epoch.positive_ce:.2f}", negative=f"{epoch.negative_ce:.2f}")
                if on_epoch is not None and on_epoch(epoch) is False:
                    stop.set()
                due = epoch.epoch % self.config.save_freq == 0 or epoch.epoch == total
                if due:
                    self._snapshot(epoch.epoch)
                if due or stop.is_set():
                    self._save()

    def _epoch(self, number: int) -> Epoch:
        """Every batch once, in order; a step every `num_accumulation_steps` batches."""
        started = time.perf_counter()
        sums = [0.0, 0.0, 0.0]
        count = len(self.prefix.owners)
        for index, owner in enumerate(self.prefix.owners):
            losses = self._losses(index, owner)
            for place, loss in enumerate(losses):
                value = loss.item()
                self._require_finite("loss", value, number, owner)
                sums[place] += value / count
            ((losses[0] + losses[2]) / self.config.num_accumulation_steps).backward()
            if (index + 1) % self.config.num_accumulation_steps == 0 or index + 1 == count:
                norm = torch.nn.utils.clip_grad_norm_(
                    self.memory.parameters(), self.config.grad_clip_coeff
                )
                self._require_finite("gradient", norm.item(), number, owner)
                self.optimizer.step()
                self.optimizer.zero_grad()
        positive_ce, negative_ce, guidance = sums
        seconds = time.perf_counter() - started
        return Epoch(number, positive_ce, negative_ce, guidance, seconds)

    def _require_finite(self, what: str, value: float, epoch: int, owner: int) -> None:
        """Raise, before anything is saved, if a loss or gradient is no number any more."""
        if not math.isfinite(value):
            title = self.memory.titles[owner] if self.memory.titles else str(owner)
            raise DocmemError(
                f"The {what} is {value} in epoch {epoch}, document {title!r}. Training stopped; "
                f"{self.run_.path} keeps the last good checkpoint, if one was saved. "
                "Try a smaller lr or guidance in a new save_dir."
            )

    def _losses(self, index: int, owner: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Positive and negative cross entropy of one batch, and the guidance term."""
        config, doc_reps = self.config, self.memory.doc_reps
        negative = negative_doc_rep(
            config.negative_key_type, doc_reps, owner, self.generator, config.negative_delta
        )
        both = torch.stack([doc_reps[owner], negative])
        positive_ce, negative_ce = self.prefix.cross_entropies(index, self.memory, both)
        term = guidance_term(
            positive_ce,
            negative_ce,
            alpha=config.guidance,
            tau=config.target_negative_ce,
            form=config.loss_form,
        )
        return positive_ce, negative_ce, term

    def _snapshot(self, epoch: int) -> None:
        selection = memory_selection(self.memory, self.prefix)
        self.run_.save_snapshot(epoch, selection, self.memory.doc_reps)

    def _save(self) -> None:
        """The memory before the history, which says how far it is; the checkpoint last."""
        self.run_.save_memory(self.memory)
        self.run_.save_history(self.history)
        save_checkpoint(
            self.run_.checkpoint,
            self.memory,
            self.optimizer,
            {"negatives": self.generator},
            {"epoch": len(self.history)},
        )
