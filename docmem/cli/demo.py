"""The main job from one command: `python -m docmem.cli.demo`, or `make demo`.

Trains a relu and a tanh memory on ten embedded documents with the embedded LM, draws the
figures into `figures/`, and prints a table. Interrupted, the same command goes on.
"""

import sys
from pathlib import Path

from docmem.cli.main import exit_status
from docmem.documents import load_documents
from docmem.lm.loading import load_lm
from docmem.plots.figures import draw_figures, table
from docmem.training.config import TrainConfig, preset
from docmem.training.train import train


def demo_configs() -> dict[str, TrainConfig]:
    """The settings of the two runs, by activation: the preset `tiny`, and its relu twin.

    Their folders are named after the settings, so that another version's runs are in no one's way.
    """
    return {
        activation: preset("tiny", key_activation=activation) for activation in ("relu", "tanh")
    }


def demo() -> int:
    """Train, draw, print; returns 0, or 130 if Ctrl-C ended a training."""
    lm, documents = load_lm("tiny"), load_documents("encyclopedia", 10)
    runs = []
    for config in demo_configs().values():
        runs.append(train(config, lm=lm, documents=documents))
        if not runs[-1].finished:
            print("Stopped and saved; run the same command to go on.", file=sys.stderr)
            return 130
    results = draw_figures(runs, Path("figures"), lm=lm)
    print(f"\n{table(results)}\n\nThe figures are in figures/.")
    return 0


def main() -> int:
    """Run the demo; returns its exit status."""
    return exit_status(demo)


if __name__ == "__main__":
    sys.exit(main())
