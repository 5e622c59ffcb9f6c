"""The project stays small: the core reads in ten minutes, and no file does two things."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for path in (ROOT / "docmem").rglob("*") if path.suffix in (".py", ".js", ".css")
)


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_core_has_at_most_700_lines() -> None:
    core = [path for path in SOURCES if path.parent == ROOT / "docmem/core"]
    assert {"config.py", "memory.py", "hook.py", "loss.py"} <= {path.name for path in core}
    assert sum(map(lines, core)) <= 700


def test_the_readme_has_at_most_160_lines() -> None:
    assert lines(ROOT / "README.md") <= 160


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_the_package_has_at_most_400_lines(path: Path) -> None:
    assert lines(path) <= 400
