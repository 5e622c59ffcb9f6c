"""Train a document memory, or go on with one that was stopped.

    run = train(preset("tiny", key_activation="relu"))

Whatever stops it, the same call goes on from the last checkpoint and ends with the same weights.
More epochs in the same folder go on from where it ended. On several processes, each calls `train`
(`docmem.training.processes`).
"""

import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from docmem.checkpoint import load_checkpoint, save_checkpoint
from docmem.core.files import reading
from docmem.documents import Document
from docmem.errors import DocmemError, as_doc_reps, checked
from docmem.lm.bfloat16 import warn_if_slow
from docmem.lm.forward import frozen, plain_arithmetic
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training import setup
from docmem.training.callbacks import OnEpoch, check_watcher, tell
from docmem.training.config import TrainConfig
from docmem.training.description import check_own, describe
from docmem.training.executors import on_interrupt
from docmem.training.history import Epoch
from docmem.training.origin import measured
from docmem.training.processes import join, main_process
from docmem.training.run import Run, locked
from docmem.training.selection import Selection, memory_selection
from docmem.training.texts import check_in_no_run, what_is_read
from docmem.training.trainer import Trainer

SNAPSHOTS_PER_EPOCH = 10
"""At most, whatever `snapshot_freq` says."""


@plain_arithmetic()  # and so with gradients, also where the caller has turned them off
@checked
def train(
    config: TrainConfig,
    *,
    lm: LanguageModel | None = None,
    documents: Sequence[Document] | None = None,
    doc_reps: Any = None,
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
        doc_reps: where the documents lie, in their order: (n_docs, key_dim), a tensor, array or
            lists; None: as `config` says.
        on_epoch: called after each epoch, by the first process; returning False stops as Ctrl-C
            does. Or an object that hears of the start and the end too
            (`docmem.training.callbacks`).
        progress: show a bar with the losses.

    Raises:
        DocmemError: if an argument cannot be, or does not fit this LM or these documents, the
            run's folder holds another run or is in use, a file is damaged or cannot be written,
            or a loss is not a number; on several processes, if one of them ended.
    """
    doc_reps = None if doc_reps is None else as_doc_reps("doc_reps", doc_reps)
    check_watcher(on_epoch)
    processes = join(config)
    placed = processes.placed(config) if lm is None else config
    config = replace(config, num_accumulation_steps=config.num_accumulation_steps * processes.count)
    named = documents is None
    with processes.together():
        if documents is not None:
            setup.check_documents(config, documents)
        given = lm
        lm = setup.configured_lm(placed) if lm is None else lm  # first: documents may be downloaded
        if documents is None:
            documents = setup.configured_documents(config)
            setup.check_documents(config, documents)
        memory = setup.new_memory(config, lm, documents, doc_reps)
        folder = config.save_dir or setup.default_folder(config, lm, documents, doc_reps)
        if config.states_dir is not None:
            check_in_no_run(config.states_dir, folder)
        description = describe(config, lm, documents, doc_reps)
        run = Run.find(folder, description)
        if given is not None and run is None:  # a run opens on another device, too
            setup.check_given_lm(config, given)
        if run is None and lm.device.type == "cpu":
            warn_if_slow(lm.dtype)
    finished = run is not None and run.finished and run.is_readable()
    processes.check_same((description, folder, run is None, finished))
    if run is not None and finished:
        processes.alone(end_planned, run)
        return run
    with processes.together():
        cache = cache_hidden_states(
            lm, documents, config, processes.deal, progress and main_process()
        )
    if progress and main_process():
        told = description["documents"]
        chosen = None if doc_reps is None else memory.doc_reps
        tqdm.write(what_is_read(documents, told, config, cache.batches, named, chosen))
    run = run or Run(folder, description)
    run.config = replace(run.config, states_dir=config.states_dir)  # for what measures it next
    watcher = on_epoch if main_process() else None
    with ExitStack() as held, frozen(lm.model), stop_after_epoch() as stop:
        processes.alone(held.enter_context, locked(run.path))
        trainer = Trainer(config, cache, memory.to(cache.device), processes)
        with processes.together():
            resumed = resume(trainer, run)
        processes.alone(run.begin, documents)  # now: where one cannot go on, nothing is changed
        processes.alone(run.drop_snapshots_after, len(trainer.history))
        if not resumed:
            start = {0: selection_now(trainer)}
            processes.alone(run.save_snapshots, start, trainer.memory.doc_reps)
        try:
            tell(watcher, "on_start", run)
            fit(trainer, run, stop, watcher, progress)
        finally:
            tell(watcher, "on_end", run)
    return run


def end_planned(run: Run) -> None:
    """Write that a run has as many epochs as it has, where it was to have more; else nothing."""
    if not Run.open(run.path).finished:
        run.save_description()


@contextmanager
def stop_after_epoch() -> Iterator[threading.Event]:
    """Within: the first Ctrl-C sets the event, a second one interrupts as usual."""
    stop, usual = threading.Event(), signal.getsignal(signal.SIGINT)

    def request_stop(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, usual)
        if main_process():
            tqdm.write("Stopping after this epoch; press Ctrl-C again to stop now.")

    with on_interrupt(request_stop):
        yield stop


def resume(trainer: Trainer, run: Run) -> bool:
    """Put the trainer where the run's checkpoint is; False if the run has none yet.

    Raises:
        DocmemError: if the checkpoint is damaged, lost or another run's.
    """
    if not run.checkpoint.exists():
        if run.load_history() or (run.path / "memory").exists():
            raise DocmemError(
                f"{run.path} has a memory or a history, but no checkpoint to go on from. Restore "
                f"{run.checkpoint.name} from a copy, or choose another save_dir."
            )
        return False
    progress = load_checkpoint(
        run.checkpoint, trainer.memory, trainer.optimizer, trainer.generators
    )
    with reading(run.checkpoint):
        if "run" in progress:  # version 0.1 did not say
            check_own(run.checkpoint, progress["run"], run.description)
        trainer.history = [Epoch(*epoch) for epoch in progress.get("history", [])]
        wrong = progress["epoch"] != len(trainer.history) and "history" in progress
        if wrong or not isinstance(progress["epoch"], int):
            raise ValueError("its history does not have as many epochs as it says")
    if progress["epoch"] > trainer.config.num_epochs:
        raise DocmemError(
            f"{run.path} holds a run that has {progress['epoch']} epochs already, and num_epochs "
            f"is {trainer.config.num_epochs}. Give at least as many, or choose another save_dir."
        )
    if "history" not in progress:  # version 0.1 kept it in history.jsonl alone
        trainer.history = run.load_history()[: progress["epoch"]]
        if len(trainer.history) < progress["epoch"]:
            raise DocmemError(
                f"{run.path / 'history.jsonl'} has {len(trainer.history)} of the "
                f"{progress['epoch']} epochs that were trained. Restore it from a copy."
            )
    return True


def fit(
    trainer: Trainer, run: Run, stop: threading.Event, on_epoch: OnEpoch | None, progress: bool
) -> None:
    """Train to the last epoch or a stop, saving on the way."""
    config, processes = trainer.config, trainer.processes
    if len(trainer.history) == config.num_epochs:
        processes.alone(save, trainer, run, {})  # killed after the checkpoint, or files lost since
    taken: dict[float, Selection] = {}
    bar = tqdm(
        total=config.num_epochs,
        initial=len(trainer.history),
        unit="epoch",
        desc=config.key_activation,
        disable=not (progress and main_process()),
    )
    stopped = any(processes.gather(stop.is_set()))
    with bar:
        while len(trainer.history) < config.num_epochs and not stopped:
            epoch = run_epoch(trainer, run, taken)
            bar.update()
            bar.set_postfix(own=f"{epoch.positive_ce:.2f}", negative=f"{epoch.negative_ce:.2f}")
            answer = tell(on_epoch, "on_epoch", epoch)
            if isinstance(answer, torch.Tensor) and answer.dtype == torch.bool:
                answer = answer.all().item()
            if isinstance(answer, bool | np.bool_) and not answer:
                stop.set()
            stopped = any(processes.gather(stop.is_set()))
            due = epoch.epoch % config.save_freq == 0 or epoch.epoch == config.num_epochs
            if due:
                taken[epoch.epoch] = selection_now(trainer)
            if due or stopped:
                processes.alone(save, trainer, run, taken)
                taken.clear()


def run_epoch(trainer: Trainer, run: Run, taken: dict[float, Selection]) -> Epoch:
    """One epoch; snapshots within it are added to `taken`.

    An error says where the last good checkpoint is.
    """
    before, freq = len(trainer.history), trainer.config.snapshot_freq

    def after_step(step: int, steps: int) -> None:
        # A snapshot reads all documents: as many as there are steps would cost their square.
        every = max(freq or 0, math.ceil(steps / SNAPSHOTS_PER_EPOCH))
        if freq is not None and (before * steps + step) % every == 0:
            taken[before + step / steps] = selection_now(trainer)

    try:
        return trainer.epoch(after_step)
    except DocmemError as error:
        raise DocmemError(
            f"{error} Training stopped; {run.path} keeps the last good checkpoint, if one was "
            "saved. Other settings take a new save_dir."
        ) from error


def selection_now(trainer: Trainer) -> Selection:
    """The memory's selections as they are at this moment."""
    return memory_selection(trainer.memory, trainer.cache, trainer.processes.add_up)


def save(trainer: Trainer, run: Run, taken: Mapping[float, Selection]) -> None:
    """Snapshots, then the checkpoint; after it the others, which can be written anew from it."""
    if taken:
        run.save_snapshots(taken, trainer.memory.doc_reps)
    trainer.memory.origin = measured(trainer.memory.origin, trainer.history[-1])
    progress = {
        "epoch": len(trainer.history),
        "history": trainer.history,
        "snapshots": run.snapshots(),
        "run": run.description,
        "origin": trainer.memory.origin,
    }
    save_checkpoint(run.checkpoint, trainer.memory, trainer.optimizer, trainer.generators, progress)
    run.save_memory(trainer.memory)
    run.save_history(trainer.history)
