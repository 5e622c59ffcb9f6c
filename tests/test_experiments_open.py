"""Studies layers, capacity, baselines, attribution, forgetting: numbers, drawings, claims."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from drawn import through_json
from matplotlib.figure import Figure

from docmem.documents import Document
from docmem.editing.forget import forget
from docmem.experiments import load_study, pool
from docmem.experiments.pool import RunPool
from docmem.experiments.studies import attribution, baselines, capacity, forgetting

NAMES = ("layers", "capacity", "baselines", "attribution", "forgetting")
KINDS = tuple(baselines.KINDS)


class CountedPool(RunPool):
    """A pool that gives as many documents as asked for, though it is fast."""

    def documents(self, count: int | None = None) -> list[Document]:
        """The first documents."""
        return super().documents()[:count]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPool]:
    """A pool for tests, with short segments and few entries, passages, points and epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "FAST", {**pool.FAST, "segment_length": 24, "hook_memory_dim": 16})
        patch.setattr(capacity, "DOCUMENTS", (2, 3))
        patch.setattr(capacity, "ENTRIES", (8, 16))
        patch.setattr(attribution, "LATER", 2)
        patch.setattr(attribution, "DESCENT", {"points": 3, "steps": 2})
        patch.setattr(baselines, "PROMPT", 6)
        patch.setattr(baselines, "NEW", 4)
        patch.setattr(forgetting, "POINTS", 3)
        patch.setattr(forgetting, "forget", functools.partial(forget, epochs=2))
        yield RunPool(fast=True, seeds=1, folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def sized(small: RunPool) -> Iterator[RunPool]:
    """A pool whose memories have the size asked for, with two seeds; the LM is shared."""
    with pytest.MonkeyPatch.context() as patch:
        fast = {name: value for name, value in pool.FAST.items() if name != "hook_memory_dim"}
        patch.setattr(pool, "FAST", fast)
        same = CountedPool(fast=True, seeds=2, folder=small.folder)
        same.__dict__["lm"] = small.lm
        yield same


@pytest.fixture(scope="module")
def results(small: RunPool) -> dict[str, Any]:
    """What the studies measure, through JSON; capacity has its own fixture."""
    return {
        name: through_json(name, load_study(name).measure(small))
        for name in NAMES
        if name != "capacity"
    }


@pytest.fixture(scope="module")
def cells(sized: RunPool) -> Any:
    """What the study capacity measures, through JSON."""
    return through_json("capacity", load_study("capacity").measure(sized))


def panel(figure: Figure, title: str) -> Any:
    """The Axes whose title begins so."""
    (found,) = [axes for axes in figure.axes if axes.get_title("left").startswith(title)]
    return found


def verdicts(name: str, results: Any) -> list[str]:
    """The verdicts of a study's claims, none of which speaks of what is not a number."""
    claims = load_study(name).claims(results)
    assert not any("nan" in claim.ours for claim in claims)
    return [claim.verdict for claim in claims]


def test_setup_time(small, sized, results, cells):
    pass
