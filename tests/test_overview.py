"""`docmem runs`: every run below a folder, with what tells it from the others."""

from dataclasses import replace
from pathlib import Path

import pytest
from toys import DOCUMENTS, at, quick_config, toy_lm

from docmem.cli.main import main
from docmem.training.train import train


def lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["runs", str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_runs_are_listed_with_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, changes, stop in (("a", {}, 99), ("b", {"key_activation": "relu", "seed": 2}, 2)):
        config = replace(quick_config(tmp_path / "runs" / name), **changes)
        train(config, lm=toy_lm(), documents=DOCUMENTS, on_epoch=at(stop, lambda: False),
              progress=False)  # fmt: skip
    first, second = (line for line in lines(tmp_path / "runs", capsys) if "toy-gpt_neox" in line)
    assert first.split()[:6] == ["a", "toy-gpt_neox", "3", "7", "of", "7"]
    assert "finished" in first and "key_activation=tanh seed=1" in first
    assert "2 of 7" in second and "unfinished" in second
    assert "key_activation=relu seed=2" in second
    assert "lr=" not in first


def test_many_differing_settings_take_lines_and_none_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"lr": 1e-4, "guidance": 0.3, "target_negative_ce": 3.5, "hook_memory_dim": 8,
              "negative_key_type": "random", "weight_decay": 0.02, "max_segments": 1}  # fmt: skip
    for name, changes in (("a", {}), ("b", others)):
        config = replace(quick_config(tmp_path / "runs" / name), num_epochs=1, **changes)
        train(config, lm=toy_lm(), documents=DOCUMENTS, progress=False)
    printed = lines(tmp_path / "runs", capsys)
    for name, value in others.items():
        assert any(f"{name}={value}" in line for line in printed)
    assert max(map(len, printed)) < 200


def test_run_that_cannot_be_opened_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(quick_config(tmp_path / "good"), lm=toy_lm(), documents=DOCUMENTS, progress=False)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 1
    printed, said = capsys.readouterr()
    assert any(line.startswith("good") for line in printed.splitlines())
    assert "bad/run.json cannot be read" in said


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_folder_without_runs_is_a_sentence(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(tmp_path / folder)]) == 1
    assert "`docmem train`" in capsys.readouterr().err
