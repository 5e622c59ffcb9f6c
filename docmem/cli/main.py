"""The command line: `docmem train`, `figures`, `generate`, `attribute`, `experiment`, `pretrain`.

Each command is a frozen dataclass; tyro turns its fields and their docstrings into flags and
help. Errors are one sentence on stderr and exit status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from docmem import experiments
from docmem.errors import DocmemError, check_at_least
from docmem.lm.pretraining import PretrainConfig
from docmem.training.config import PRESETS, TrainConfig


@dataclass(frozen=True)
class Train:
    """Memorise documents: train a memory, or go on with one that was stopped."""

    config: OmitArgPrefixes[TrainConfig]
    preset: Literal["tiny", "pythia-1b"] = "tiny"
    """Where the settings below start from: the embedded LM and encyclopedia, or the paper's
    Pythia-1B and WikiText-103. Any flag changes one of them."""

    def run(self) -> int:
        """Train, and say where the run is."""
        from docmem.training.train import train

        run = train(self.config)
        if not run.finished:
            print(
                f"Stopped after epoch {len(run.history)} of {run.config.num_epochs} and saved. "
                "The same command goes on from there.",
                file=sys.stderr,
            )
            return 130
        last = run.history[-1]
        print(
            f"{run.path}: {last.epoch} epochs, own DocRep {last.positive_ce:.2f}, "
            f"negative {last.negative_ce:.2f} nats a token."
        )
        return 0


@dataclass(frozen=True)
class Figures:
    """Draw the figures of one or more runs on the same documents, and print their table."""

    runs: Positional[tuple[Path, ...]]
    """Folders that `docmem train` wrote."""
    out: Path = Path("figures")
    """Folder for the figures."""
    points: int = 21
    """Grid points a side of the maps of the DocRep plane."""
    lm: str | None = None
    """Where the run's LM is now, if not under the name it had in training."""

    def run(self) -> int:
        """Measure, draw, print."""
        from docmem.plots.figures import draw_figures, table
        from docmem.training.run import Run

        runs = [Run.open(path) for path in self.runs]
        lm = runs[0].load_lm(self.lm) if runs and self.lm else None
        results = draw_figures(runs, self.out, lm=lm, points=self.points)
        print(f"\n{table(results, len(runs[0].titles))}\n\nThe figures are in {self.out}.")
        return 0


@dataclass(frozen=True)
class Generate:
    """Let the LM write on from a prompt, under a document's memory."""

    path: Annotated[Positional[Path], tyro.conf.arg(name="run")]
    """Folder that `docmem train` wrote."""
    prompt: str
    """What to go on from."""
    document: str | None = None
    """Title of the document to recall; none: all memories."""
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
        from docmem.lm.generation import generate
        from docmem.training.run import Run

        run = Run.open(self.path)
        lm = run.load_lm(self.lm)
        check_at_least("temperature", self.temperature, 0)
        options = {"do_sample": True, "temperature": self.temperature} if self.temperature else {}
        torch.manual_seed(self.seed)
        with attach(lm.model, run.memory, run.config.hook_memory_layer) as hooked:
            text = generate(
                hooked,
                lm.tokenizer,
                self.prompt,
                self.document,
                max_new_tokens=self.max_new_tokens,
                **options,
            )
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
            run.load_lm(self.lm), run.memory, run.config.hook_memory_layer, self.text
        )
        print("nats a token")
        for one in ranking:
            print(f"{one.ce:12.3f}  {one.title}")
        return 0


@dataclass(frozen=True)
class Experiment:
    """Perform an experiment: train what it needs, measure, draw. Goes on if it was stopped."""

    name: Positional[Literal["all", experiments.Name]]
    """Which one; all performs each that has no results in `out` yet."""
    preset: Literal["tiny", "pythia-1b"] = "tiny"
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
        from docmem.experiments.pool import Lab
        from docmem.experiments.runner import perform, redraw, stored

        lab = Lab(self.preset, self.seeds, self.fast)
        out = self.out or Path("outputs/experiments") / ("fast" if self.fast else self.preset)
        for name in experiments.NAMES if self.name == "all" else (self.name,):
            if self.fresh or self.name != "all" or stored(name, out) is None:
                seconds = perform(name, lab, out)["seconds"]
                print(f"{name}: {seconds:.0f} s")
        redraw(out, out)
        print(f"Results, figures and claims.md are in {out}.")
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


def commands(start: TrainConfig) -> Any:
    """All commands as the type that tyro parses; `train` starts from these settings."""
    named = tyro.conf.subcommand
    return (
        Annotated[Train, named("train", default=Train(start))]
        | Annotated[Figures, named("figures")]
        | Annotated[Generate, named("generate")]
        | Annotated[Attribute, named("attribute")]
        | Annotated[Experiment, named("experiment")]
        | Annotated[Pretrain, named("pretrain")]
    )


def named_preset(arguments: Sequence[str]) -> TrainConfig:
    """The preset that `--preset` names among the arguments, so that other flags start from it."""
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--preset":
            value = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            return PRESETS.get(value, PRESETS["tiny"])
    return PRESETS["tiny"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        command: Train | Figures | Generate | Attribute | Experiment | Pretrain = tyro.cli(
            commands(named_preset(arguments)),
            args=arguments,
            prog="docmem",
            description="Document-wise memory in a frozen language model.",
            use_underscores=True,
        )
        return command.run()
    except DocmemError as error:
        print(f"docmem: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("docmem: interrupted; what was saved before is whole.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
