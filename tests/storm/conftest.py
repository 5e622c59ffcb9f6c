"""Runs that the storm damages copies of."""

from pathlib import Path
from typing import Any

import pytest
from storm import command, go, named_lm, outcome, readings, result_of
from toys import at

from docmem.evaluation.cached import measure
from docmem.training.run import Run


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy LM in it."""
    folder = tmp_path_factory.mktemp("storm")
    named_lm(folder / "lm")
    return folder


@pytest.fixture(scope="session")
def finished(home: Path) -> Run:
    """A finished run, with an evaluation; read only."""
    run = go(home / "finished", named_lm(home / "lm"))
    measure(run, lambda: named_lm(home / "lm"))
    assert command("check", str(run.path))[0] == 0
    return run


@pytest.fixture(scope="session")
def unfinished(home: Path, finished: Run) -> Run:
    """A run stopped after its third epoch, with an evaluation; read only."""
    run = go(home / "unfinished", named_lm(home / "lm"), on_epoch=at(3, lambda: False))
    measure(run, lambda: named_lm(home / "lm"))
    return run


@pytest.fixture(scope="session")
def whole(finished: Run) -> dict[str, Any]:
    """What every training has to end with."""
    return result_of(finished)


@pytest.fixture(scope="session")
def good(finished: Run, unfinished: Run) -> dict[str, dict[str, Any]]:
    """What every reading gives of the two runs."""
    return {
        run.path.name: {name: outcome(read) for name, read in readings(run.path).items()}
        for run in (finished, unfinished)
    }
