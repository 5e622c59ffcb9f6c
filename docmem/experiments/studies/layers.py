"""Layer sweep: the memory after each block of the LM, at equal epochs and at equal seconds.

The paper puts it after the last block. An earlier one gives the later blocks a say in what the
memory adds, but every step has to go forward and back through them.
"""

from typing import Any

from matplotlib.figure import Figure

from docmem.core.blocks import find_blocks, resolve_layer
from docmem.evaluation.recall import recognition
from docmem.experiments.drawing import band, dots, shade
from docmem.experiments.pool import Claim, RunPool, all_hold, spread, verdict
from docmem.experiments.stats import clearly_above
from docmem.plots.style import FAINT, headline, styled

QUESTION = "After which block should the memory stand?"
MOST_SEEDS = 3


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each block and seed: own cross entropy at every epoch, its fastest epoch, recognition.

    The fastest epoch is the one that other work on the machine disturbed least. `budget_s` is
    the time that the last block's whole training takes at its fastest.
    """
    config, count = pool.config(), len(find_blocks(pool.lm.model))
    usual = resolve_layer(config.hook_memory_layer, count)
    blocks: dict[str, list[dict[str, Any]]] = {}
    for block in range(count):
        change: dict[str, Any] = {} if block == usual else {"hook_memory_layer": block}
        seeds = []
        for seed in pool.seed_numbers(MOST_SEEDS):
            run = pool.run(seed, **change)
            known = recognition(pool.cache_hidden_states(run), run.load_memory())
            seeds.append(
                {
                    "curve": [epoch.positive_ce for epoch in run.load_history()],
                    "epoch_s": min(epoch.seconds for epoch in run.load_history()),
                    "own": known.own,
                    "other": known.other,
                    "recognised": known.recognised,
                }
            )
        blocks[str(block + 1)] = seeds
    budget = config.num_epochs * fastest(blocks[str(count)])
    return {"blocks": blocks, "budget_s": budget, "n_docs": len(run.documents)}


def fastest(seeds: list[dict[str, Any]]) -> float:
    """Seconds of an epoch, the fastest of all seeds."""
    return min(seed["epoch_s"] for seed in seeds)


def epochs_within(seeds: list[dict[str, Any]], budget: float) -> int:
    """Whole epochs that fit into `budget` seconds; at least the first, at most all."""
    # A hair more, so that the budget of a run holds that run.
    fitting = int(budget / fastest(seeds) + 1e-6)
    return min(max(fitting, 1), len(seeds[0]["curve"]))


def at_equal_seconds(results: dict[str, Any], block: str) -> list[float]:
    """Own cross entropy of a block's runs when the budget is spent, one a seed."""
    seeds = results["blocks"][block]
    last = epochs_within(seeds, results["budget_s"]) - 1
    return [seed["curve"][last] for seed in seeds]


def at_equal_epochs(results: dict[str, Any], block: str) -> list[float]:
    """Own cross entropy of a block's runs after all epochs, one a seed."""
    return [seed["curve"][-1] for seed in results["blocks"][block]]


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """Own cross entropy against epochs and against seconds; what is left at equal ones."""
    grid = figure.add_gridspec(2, 6)
    left, right = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])
    blocks = results["blocks"]
    for place, (block, seeds) in enumerate(blocks.items()):
        color = shade(place, len(blocks))
        curves = [seed["curve"] for seed in seeds]
        epochs = [float(epoch) for epoch in range(1, len(curves[0]) + 1)]
        band(left, epochs, curves, color, f"after block {block}")
        band(right, [epoch * fastest(seeds) for epoch in epochs], curves, color, "")
    right.axvline(results["budget_s"], color=FAINT, lw=1.2, ls=(0, (4, 3)))
    for axes, label in ((left, "epoch"), (right, "seconds (epochs × the fastest epoch)")):
        axes.set_ylim(0)
        axes.set_xlim(0)
        axes.set_xlabel(label)
        axes.set_ylabel("own cross entropy\nin training (nats per token)")
    left.legend(frameon=False)
    for column, (label, values) in enumerate(
        (
            ("own cross entropy after\nas many epochs", at_equal_epochs),
            ("own cross entropy after\nas many seconds", at_equal_seconds),
            ("seconds an epoch\n(fastest)", None),
        )
    ):
        axes = figure.add_subplot(grid[1, 2 * column : 2 * column + 2])
        dots(
            axes,
            {
                block: values(results, block) if values else [seed["epoch_s"] for seed in seeds]
                for block, seeds in blocks.items()
            },
        )
        axes.set_ylim(0)
        axes.set_xlabel("memory after block")
        axes.set_ylabel(label)
    title = "The memory after each block: what an epoch brings, and what a second brings"
    if all_hold(claims(results)[0]):
        title = "For the same seconds, a memory after the last block learns most"
    headline(
        figure,
        title,
        f"Mean in a band of one standard deviation; at most {MOST_SEEDS} seeds; dashed: the "
        f"seconds in which the last block's memory is trained. {note}",
    )
    return figure


SIZE = (12, 7)
ALT = (
    "Own cross entropy of a memory after each block, against epochs and against seconds; below, "
    "what it is after as many epochs, after as many seconds, and seconds an epoch, one dot per seed."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """The last block learns most in a given time; in a given number of epochs too."""
    *earlier, last = results["blocks"]

    def text(values: Any) -> str:
        return ", ".join(f"{b}: {spread(values(results, b))}" for b in results["blocks"])

    def last_below(values: Any) -> list[bool]:
        return [clearly_above(values(results, b), values(results, last)) for b in earlier]

    seconds = ", ".join(f"{b}: {fastest(seeds):.2f}" for b, seeds in results["blocks"].items())
    return [
        Claim(
            "After as many seconds, the memory after the last block has learned most",
            "last block only",
            f"own cross entropy, by block {text(at_equal_seconds)}; seconds an epoch {seconds}",
            verdict(*last_below(at_equal_seconds)),
        ),
        Claim(
            "After as many epochs, the memory after the last block has learned most",
            "last block only",
            f"own cross entropy, by block {text(at_equal_epochs)}",
            verdict(*last_below(at_equal_epochs)),
        ),
    ]
