"""How tests run: offline, each in a folder of its own. Fixtures: toy_fixtures.py."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
gc.disable()  # what is imported stays: to look for garbage in it takes a quarter of the time

PROJECT = Path(__file__).parent.parent
# What tests may write in the project: bytecode and caches; screenshots of tests/browser.
ALLOWED = ("__pycache__", "_cache", "outputs/browser")
OUTPUTS = str(PROJECT / "outputs")  # the folder itself, which may have to be made for these
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Audited events that make or move a file or folder, and which of their arguments names it.
MAKES = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.symlink": 1, "os.link": 1}
written_in_project: list[str] = []


def note_writing(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook of Python's: keep the paths in the project that this process writes to."""
    if event not in MAKES or (event == "open" and not arguments[2] & WRITING):
        return
    path = arguments[MAKES[event]]
    if isinstance(path, (str, bytes, os.PathLike)):
        absolute = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - Path.resolve follows links
        inside = absolute.startswith(f"{PROJECT}{os.sep}")
        if inside and absolute != OUTPUTS and not any(one in absolute for one in ALLOWED):
            written_in_project.append(absolute)


sys.addaudithook(note_writing)


@pytest.fixture(autouse=True)
def outside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test runs in a folder of its own, and fails if it writes into the project."""
    monkeypatch.chdir(tmp_path)
    yield
    found, written_in_project[:] = sorted(set(written_in_project)), []
    assert not found, f"The test wrote into the project, not into tmp_path: {found}"


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole experiments, though on toys, are slow; claims of numbers made up for a test are not."""
    for item in items:
        given = getattr(item, "fixturenames", ())
        if item.path.name.startswith("test_experiments") and {"small", "pool", "toys"} & {*given}:
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """All is imported: garbage is collected again, but not among modules."""
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, and torch with them, but not in the process that only hands out tests."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("toy_fixtures")
