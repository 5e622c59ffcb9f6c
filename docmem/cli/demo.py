"""The main job from one command: `python -m docmem.cli.demo`, or `make demo`.

Trains a relu and a tanh memory on ten documents of the embedded encyclopedia, draws the figures,
and prints a table: with the embedded LM, or with another preset (`make real`). Interrupted, the
same command goes on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from docmem.cli.main import exit_status
from docmem.documents import load_documents
from docmem.plots.figures import draw_figures, table
from docmem.training.config import PresetName, TrainConfig, preset
from docmem.training.setup import configured_lm
from docmem.training.sweep import STATES
from docmem.training.train import train

FAST: dict[str, Any] = {"max_labels": 3, "max_segments": 1, "num_epochs": 1}


def demo_configs(name: PresetName = "tiny", fast: bool = False) -> dict[str, TrainConfig]:
    """The settings of the two runs, by activation: a preset, and its relu twin.

    Their folders are named after the settings, so that another version's runs are in no one's way.
    They share their hidden states: the documents pass the frozen blocks once.
    """
    changes: dict[str, Any] = {"states_dir": STATES, **(FAST if fast else {})}
    return {
        activation: preset(name, key_activation=activation, **changes)
        for activation in ("relu", "tanh")
    }


def demo(
    preset: PresetName = "tiny",
    out: Path = Path("figures"),
    points: int = 61,
    map_tokens: int | None = None,
    fast: bool = False,
) -> int:
    """Train, draw, print; returns 0, or 130 if Ctrl-C ended a training.

    Args:
        preset: the LM and its settings.
        out: folder for the figures.
        points: grid points per side of the map of the DocRep plane.
        map_tokens: tokens of each document that this map reads; none: its first segment.
        fast: one epoch of three documents, to see that all runs: the numbers mean nothing.
    """
    configs = demo_configs(preset, fast)
    lm = configured_lm(configs["tanh"])
    documents = load_documents("encyclopedia", configs["tanh"].max_labels)
    runs = []
    for config in configs.values():
        runs.append(train(config, lm=lm, documents=documents))
        if not runs[-1].finished:
            print("Stopped and saved; run the same command to go on.", file=sys.stderr)
            return 130
    results = draw_figures(runs, out, lm=lm, points=points, map_tokens=map_tokens)
    print(f"\n{table(results)}\n\nThe figures are in {out}/.")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit status."""
    return exit_status(lambda: tyro.cli(demo, args=arguments, use_underscores=True))


if __name__ == "__main__":
    sys.exit(main())
