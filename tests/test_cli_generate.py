"""`docmem generate` without a document recalls the one that the prompt points to, and names it."""

import shutil
from pathlib import Path

import pytest
import torch

from docmem.cli.main import main
from docmem.core.hook import attach
from docmem.evaluation import attribution
from docmem.lm.generation import ALL_ENTRIES, generate, generate_text
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

PROMPT = "Thornwick Light stands on the"


@pytest.fixture
def folder(
    trained: tuple[LanguageModel, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A finished run, its LM served by name."""
    lm, run = trained
    monkeypatch.setattr("docmem.training.run.load_lm", lambda *_, **__: lm)
    return Path(shutil.copytree(run.path, tmp_path / "run"))


def written(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    command = ["generate", str(folder), "--prompt", PROMPT, "--max_new_tokens", "6", *options]
    assert main(command) == 0
    return capsys.readouterr().out.splitlines()


def test_generate_names_and_recalls_the_document_of_the_prompt(
    trained: tuple[LanguageModel, Run], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", str(folder), "--prompt", PROMPT, "--max_new_tokens", "6"]
    assert main(command) == 0
    text, named = capsys.readouterr()
    assert "'Thornwick Light'" in named
    assert "base LM" not in named
    assert text.splitlines() == written(folder, capsys, "--document", "Thornwick Light")


def test_generate_says_where_the_base_lm_reads_a_prompt_better(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "base_cross_entropies", lambda _: torch.zeros(1))
    assert main(["generate", str(folder), "--prompt", PROMPT]) == 0
    named = capsys.readouterr().err
    assert "the base LM alone reads it better (--document none)" in named


def test_generate_writes_as_the_base_lm_for_document_none(
    trained: tuple[LanguageModel, Run], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm, _ = trained
    expected = PROMPT + generate_text(lm.model, lm.tokenizer, PROMPT, max_new_tokens=6)
    for name in ("none", "None", "(base LM)"):
        assert written(folder, capsys, "--document", name) == expected.splitlines()


def test_generate_opens_all_entries_for_document_all(
    trained: tuple[LanguageModel, Run], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm, run = trained
    with attach(lm.model, run.load_memory()) as hooked, hooked.document(0):
        expected = generate(hooked, lm.tokenizer, PROMPT, ALL_ENTRIES, max_new_tokens=6)
    for name in ("all", "all entries"):
        assert written(folder, capsys, "--document", name) == (PROMPT + expected).splitlines()


def test_a_prompt_of_one_token_points_to_no_document(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(folder), "--prompt", "T"]) == 1
    assert "one token" in capsys.readouterr().err
