"""docs/real_lm.md says what figures/real_lm.json holds."""

import shutil
from pathlib import Path

import pytest
import real
from toys import toy_lm

from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

ROOT = Path(__file__).parent.parent


def test_page_is_that_of_the_stored_numbers() -> None:
    assert real.PAGE.read_text(encoding="utf-8") == real.page(real.load())


def test_run_is_measured_and_stored_once(
    trained: tuple[LanguageModel, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained[1].path, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    monkeypatch.setattr(real, "STORED", tmp_path / "real_lm.json")
    monkeypatch.setattr(real, "PAGE", tmp_path / "real_lm.md")
    monkeypatch.setattr(Run, "load_lm", lambda _: toy_lm())
    for _ in range(2):
        real.main((run.path,), texts="some | texts")
    (row,) = real.load()
    assert row.seconds == sum(epoch.seconds for epoch in run.load_history())
    assert (row.lm, row.titles, row.entries) == ("toy-gpt_neox", run.titles, 24)
    page = (tmp_path / "real_lm.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| toy-gpt_neox"))
    cells = [cell.strip() for cell in line.split(" | ")]
    assert f"{row.known.own:.2f}" in cells and f"{row.known.lowest_pair.ce:.2f}" in cells
    for number, title in enumerate(run.titles):
        assert f"| {title} | {row.base[number]:.2f} |" in " ".join(page.split())
