"""Cached evaluation results of a run: read again without the LM, renewed for another memory."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toys import files, toy_lm

from docmem.errors import DocmemError
from docmem.evaluation import cached
from docmem.evaluation.cached import measure, measure_plane
from docmem.evaluation.plane import key_plane
from docmem.evaluation.recall import completion, recognition
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run


@pytest.fixture
def mine(trained: tuple[LanguageModel, Run], tmp_path: Path) -> tuple[LanguageModel, Run]:
    """A copy of the trained run, to write into."""
    lm, run = trained
    shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns("measured"))
    return lm, Run.open(tmp_path / "run")


def never() -> LanguageModel:
    raise AssertionError("The LM was loaded again.")


def same(left: tuple, right: tuple) -> bool:
    pairs = zip(left, right, strict=True)
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


def test_cached_results_equal_a_fresh_evaluation(mine: tuple[LanguageModel, Run]) -> None:
    lm, run = mine
    first, plane = measure(run, lambda: lm), measure_plane(run, lambda: lm, 5)
    cache = run.cache_hidden_states(lm)
    assert torch.equal(first.recognition.ce, recognition(cache, run.load_memory()).ce)
    assert first.completion == completion(cache, run.load_memory())
    assert float(plane.axis[-1]) >= 1.0
    again, plane_again = measure(run, never), measure_plane(run, never, 5)
    assert torch.equal(again.recognition.ce, first.recognition.ce)
    assert again.completion == first.completion
    assert same(plane_again, plane)
    assert measure_plane(run, lm, 3).ce.shape[1:] == (3, 3)
    assert measure(run, lm).completion == first.completion


@pytest.mark.parametrize("damage", [b"", b"not tensors"])
def test_a_damaged_evaluation_is_measured_again(
    mine: tuple[LanguageModel, Run], damage: bytes
) -> None:
    lm, run = mine
    first, path = measure(run, lm), run.path / "measured" / "recall.safetensors"
    good = path.read_bytes()
    path.write_bytes(damage)
    assert measure(run, lm).completion == first.completion
    assert path.read_bytes() == good


def test_measure_plane_reads_first_segments(mine: tuple[LanguageModel, Run]) -> None:
    lm, run = mine
    plane = measure_plane(run, lambda: lm, 3)
    extent = float(plane.axis[-1])
    whole = key_plane(run.cache_hidden_states(lm), run.load_memory(), points=3, extent=extent)
    assert not torch.allclose(plane.ce, whole.ce)
    assert torch.equal(plane.axis, whole.axis)


@pytest.mark.parametrize("measuring", [measure, lambda run, load: measure_plane(run, load, 3)])
def test_another_memory_is_evaluated_again(
    mine: tuple[LanguageModel, Run], measuring: Callable
) -> None:
    lm, run = mine
    measuring(run, lambda: lm)
    memory = run.load_memory()
    with torch.no_grad():
        memory.values.weight.mul_(1.5)
    run.save_memory(memory)
    with pytest.raises(AssertionError, match="loaded again"):
        measuring(run, never)
    measuring(run, lambda: lm)
    measuring(run, never)


def test_nothing_is_cached_in_a_read_only_folder(
    mine: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = mine
    before = files(run.path)
    monkeypatch.setattr(cached.os, "access", lambda path, mode: mode != os.W_OK)
    measure(run, lambda: lm)
    assert files(run.path) == before


def test_evaluation_rejects_another_lm(mine: tuple[LanguageModel, Run]) -> None:
    for measuring in (measure, measure_plane):
        with pytest.raises(DocmemError, match="other weights"):
            measuring(mine[1], lambda: toy_lm("gpt2"))


def test_what_was_measured_is_returned_where_it_cannot_be_kept(
    mine: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DocmemError("Could not write: the disk is full.")

    monkeypatch.setattr(cached, "save_tensors", full)
    with pytest.warns(UserWarning, match="not kept: Could not write"):
        found = measure(mine[1], mine[0])
    assert found.completion == completion(
        mine[1].cache_hidden_states(mine[0]), mine[1].load_memory()
    )
