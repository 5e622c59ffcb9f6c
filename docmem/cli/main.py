"""The command line: `docmem train`, `plan`, `figures`, `generate` and others.

Errors are one sentence on stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

import docmem
from docmem.cli.commands import (
    Attribute,
    Experiment,
    Fetch,
    Figures,
    Generate,
    Plan,
    Pretrain,
    Runs,
    Train,
)
from docmem.errors import DocmemError
from docmem.training.config import PAPER_PROCEDURE, PRESETS, TrainConfig, check_effect
from docmem.training.settings_file import read_settings

Command = Train | Plan | Runs | Figures | Generate | Attribute | Experiment | Fetch | Pretrain


def commands(start: TrainConfig) -> Any:
    """All commands as the type that tyro parses; `train` and `plan` start from these settings."""
    named = tyro.conf.subcommand
    return (
        Annotated[Train, named("train", default=Train(start))]
        | Annotated[Plan, named("plan", default=Plan(start))]
        | Annotated[Runs, named("runs")]
        | Annotated[Figures, named("figures")]
        | Annotated[Generate, named("generate")]
        | Annotated[Attribute, named("attribute")]
        | Annotated[Experiment, named("experiment")]
        | Annotated[Fetch, named("fetch")]
        | Annotated[Pretrain, named("pretrain")]
    )


def starting_settings(arguments: Sequence[str]) -> TrainConfig:
    """What other flags start from: the preset that `--preset` names, or `tiny`, and `--config`.

    The authors' command sets AdamW's `--lr` and knows no other optimizer. A command that does the
    same, and names no preset, asks for their procedure.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--preset", "--lr", "--optimizer", "--config"):
        parser.add_argument(flag, nargs="?")
    given = parser.parse_known_args(arguments)[0]
    start = PRESETS.get(given.preset, PRESETS["tiny"])
    if given.config is not None:
        return read_settings(Path(given.config), start)
    if given.preset is None and given.optimizer is None and given.lr is not None:
        return dataclasses.replace(start, **PAPER_PROCEDURE)
    return start


def parse(arguments: Sequence[str]) -> Command:
    """The command that the arguments ask for."""
    # The authors' program spells this flag so.
    misspelt = re.compile("^--max_segements(?==|$)")
    arguments = [misspelt.sub("--max_segments", one) for one in arguments]
    command: Command = tyro.cli(
        commands(starting_settings(arguments)),
        args=arguments,
        prog="docmem",
        description="Document-wise memory in a frozen language model.",
        use_underscores=True,
    )
    if isinstance(command, Train | Plan):
        flags = [one.split("=")[0] for one in arguments if one.startswith("--")]
        check_effect(command.config, [flag[2:].replace("-", "_") for flag in flags])
    return command


def exit_status(job: Callable[[], int]) -> int:
    """What a job answers; 1 if something the reader can mend stopped it, 130 if Ctrl-C did."""
    try:
        return job()
    except DocmemError as error:
        print(f"docmem: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("docmem: interrupted; what was saved before is whole.", file=sys.stderr)
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:
        print(f"docmem {docmem.__version__}")
        return 0
    return exit_status(lambda: parse(given).run())
