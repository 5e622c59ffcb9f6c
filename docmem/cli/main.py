"""The command line: `docmem train`, `plan`, `figures`, `generate` and others.

Errors are one sentence on stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import itertools
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import tyro

import docmem
from docmem.cli.commands import (
    Attribute,
    Check,
    Experiment,
    Fetch,
    Figures,
    Generate,
    Page,
    Plan,
    Pretrain,
    Runs,
    Sweep,
    Train,
)
from docmem.errors import DocmemError
from docmem.training.config import PAPER_PROCEDURE, PRESETS, TrainConfig, check_effect
from docmem.training.processes import leave, main_process
from docmem.training.settings_file import MISSPELT, read_settings
from docmem.training.sweep import combinations

NARROWEST = 20
"""Columns of a terminal, at least: in five or fewer tyro's help never ends."""
TEXTS = ("--document", "--prompt", "--prompts", "--titles", "--text")
"""Flags whose values are texts."""


def commands(start: TrainConfig) -> Any:
    """All commands as the type that tyro parses; `train` and `plan` start from these settings."""
    named = tyro.conf.subcommand
    train = Annotated[Train, named(default=Train(start))]
    plan = Annotated[Plan, named(default=Plan(start))]
    return (
        train | Sweep | plan | Runs | Check | Figures | Page | Generate | Attribute | Experiment
        | Fetch | Pretrain
    )  # fmt: skip


def starting_settings(arguments: Sequence[str]) -> tuple[TrainConfig, list[str]]:
    """What other flags start from: the preset that `--preset` names, or `tiny`, and `--config`.

    The names are those of the settings in that file.

    The authors' command sets AdamW's `--lr` and knows no other optimizer. A command that does the
    same, and names no preset and no file, asks for their procedure.
    """
    given = flags_in(arguments)
    start = PRESETS.get(given.preset, PRESETS["tiny"])
    if given.config is not None and arguments[0] in ("train", "plan", "sweep"):
        others = given.documents is not None or given.max_labels is not None
        return read_settings(Path(given.config), start, given.preset, not others)
    if by_lr_alone(given):
        return dataclasses.replace(start, **PAPER_PROCEDURE), []
    return start, []


def flags_in(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags that decide what others start from; None where one is not given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--preset", "--lr", "--optimizer", "--config", "--documents"):
        parser.add_argument(flag, nargs="?")
    parser.add_argument("--max_labels", "--max-labels", nargs="?")
    parser.add_argument("--muon_lr", "--muon-lr", nargs="?")
    given = parser.parse_known_args(arguments)[0]
    if given.config in ("none", "None"):
        given.config = None
    return given


def by_lr_alone(given: argparse.Namespace) -> bool:
    """Whether a command asks for the authors' procedure, as theirs does: by `--lr` alone."""
    named = given.preset or given.optimizer or given.muon_lr or given.config
    return given.lr is not None and not named


def parse(arguments: Sequence[str]) -> Any:
    """The command that the arguments ask for."""
    misspelt = re.compile(f"^--{MISSPELT}(?==|$)")
    arguments = [misspelt.sub("--max_segments", one) for one in arguments]
    for flag, following in itertools.pairwise([*arguments, "--"]):
        if flag in ("--titles", "--prompts") and following.startswith("--"):
            raise DocmemError(f"{flag} stands without a value; give one or more, or leave it out.")
    check_none_is_empty(arguments)
    arguments = [*absent(arguments)]
    start, named = starting_settings(arguments)
    several = arguments[:1] == ["sweep"]
    options: dict[str, Any] = {"return_unknown_args": True} if several else {}
    command: Any = tyro.cli(
        commands(start),
        args=arguments,
        prog="docmem",
        description="Document-wise memory in a frozen language model.",
        use_underscores=True,
        console_outputs=main_process(),
        **options,
    )
    if several:
        return dataclasses.replace(command[0], trainings=trainings(command[1]))
    if isinstance(command, Train | Plan):
        flags = [one.split("=")[0] for one in arguments if one.startswith("--")]
        named += [flag[2:].replace("-", "_") for flag in flags]
        check_effect(command.config, named)
    return command


def absent(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments with `none`, an absent value in the help, replaced by tyro's `None`.

    Values of flags that take texts stay as they are.
    """
    for flag, argument in by_flag(arguments):
        as_it_is = flag in ("", *TEXTS)
        yield argument if as_it_is else re.sub("(^|=)none$", r"\1None", argument)


def check_none_is_empty(arguments: Sequence[str]) -> None:
    """Raise if a value is empty, as of a shell's variable that is not set.

    tyro would take the current folder for such a path. Texts may be empty, but for the prose of
    `pretrain`, which is a path.
    """
    for flag, argument in by_flag(arguments):
        is_text = flag in TEXTS and arguments[0] != "pretrain"
        if argument in ("", f"{flag}=") and not is_text:
            what = flag or "An argument"
            raise DocmemError(f"{what} is ''; give a value, or leave it out.")


def by_flag(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each argument with the flag that it belongs to, or is; '' before the first."""
    flag = ""
    for argument in arguments:
        flag = argument.partition("=")[0] if argument.startswith("--") else flag
        yield flag, argument


def trainings(arguments: Sequence[str]) -> tuple[TrainConfig, ...]:
    """What a sweep trains: flags of `train` with one value or more, in every combination.

    Raises:
        DocmemError: if values stand without a flag. A flag that `train` does not know ends the
            program as there.
    """
    values: dict[str, list[str]] = {}
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            values.setdefault(name, []).extend([value] if value else [])
            if name in ("--log", "--quiet", "--no_quiet"):
                raise DocmemError(f"A sweep is quiet, and logs nowhere; leave out {name}.")
        elif values:
            values[name].append(argument)
        else:
            raise DocmemError(f"{argument!r} stands without a flag, as in --seed 1 2 3.")
    several = {name: found for name, found in values.items() if found and name != "--titles"}
    alone = [word for name in values.keys() - several for word in (name, *values[name])]
    flags = (itertools.chain(*one.items(), alone) for one in combinations(several))
    configs = [cast(Train, parse(["train", *one])).config for one in flags]
    return tuple(dict.fromkeys(configs))  # a value given twice is one training


def exit_status(job: Callable[[], int]) -> int:
    """The job's exit status; 1 after an error that the user can correct, 130 after Ctrl-C."""
    try:
        status = job()
        sys.stdout.flush()  # what fails is said here
        return status
    except KeyboardInterrupt:
        if main_process():
            print("docmem: interrupted; what was saved before is whole.", file=sys.stderr)
        return 130
    except (Exception, SystemExit) as error:
        said = sentence(error)
        if said is None and not isinstance(error, SystemExit):
            raise
        if not main_process():
            # Of an error of all, the first process speaks and ends, and the launcher ends the rest.
            time.sleep(30)
        if isinstance(error, SystemExit):
            raise  # tyro has said why
        if said:
            print(f"docmem: {said}", file=sys.stderr)
        return 1


def sentence(error: BaseException) -> str | None:
    """The message for an error that the user can act on, perhaps empty; None for any other."""
    if isinstance(error, DocmemError):
        return str(error)
    if isinstance(error, OSError):
        if error.filename is None:  # nobody reads what is still to be printed
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # as `head`, which has seen enough
            return ""
        return f"{error.filename or 'What was to be printed'}: {error.strerror or error}."
    said = str(error).partition("\n")[0]
    if isinstance(error, torch.cuda.OutOfMemoryError):
        tried = said.partition(" GPU ")[0]  # numbers and torch's own advice follow
        return f"{tried} Give a smaller batch_size or max_length, or a smaller LM."
    if isinstance(error, MemoryError) or re.search("allocate memory|[Oo]verflow", said):
        tried = f" ({said})" if said else ""
        return f"That takes more memory than there is{tried}. Give smaller numbers."
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, io.StringIO())
    if isinstance(sys.stdout, io.TextIOWrapper):  # titles have characters that not all can show
        sys.stdout.reconfigure(errors="backslashreplace")
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files, whatever windows there are
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:
        print(f"docmem {docmem.__version__}")
        return 0
    if arguments is None:  # this process is ours
        warnings.showwarning = functools.partial(show_warning, warnings.showwarning)
    status = exit_status(lambda: run(given))
    if arguments is None and leave():
        # Once in a while threads of torch's group abort the interpreter's end: all is written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def run(given: Sequence[str]) -> int:
    """Run the command that the arguments ask for."""
    command = parse(given)
    if given[0] in ("train", "plan", "sweep") and by_lr_alone(flags_in(given)) and main_process():
        print(
            "docmem: --lr without --preset or --optimizer begins with the authors' procedure: "
            "AdamW, orthogonal DocReps, all rows under one negative, the squared term.",
            file=sys.stderr,
        )
    return int(command.run())


def show_warning(usual: Callable[..., None], message: Warning, kind: Any, *where: Any) -> None:
    """A warning of docmem's own as one line; those of others as `usual`."""
    if kind is UserWarning and Path(where[0]).is_relative_to(Path(docmem.__file__).parent):
        print(f"docmem: {message}", file=sys.stderr)
    else:
        usual(message, kind, *where)
