"""The loop: documents in turn, each read under its own DocRep and under a negative one.

    run = train(preset("tiny", key_activation="relu"))

follows the paper's program: one step a batch of one document, AdamW at a constant rate, the
gradient norm clipped, snapshots on the way. Its two full passes through the LM become one
resumption after the hooked block (`docmem.lm.hidden_states`). Whatever stops it, the same call goes on
from the last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from tqdm.auto import tqdm

from docmem.checkpoint import load_checkpoint, save_checkpoint
from docmem.core.loss import guidance_term, negative_doc_rep
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.lm.hidden_states import Prefix
from docmem.training.run import Epoch, Run
from docmem.training.selection import memory_selection

OnEpoch = Callable[[Epoch], bool | None]


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
