"""Two threads and one LM: what one changes for itself, the other never reads."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import DOCUMENTS, quick_config, toy_lm

import docmem
from docmem.errors import DocmemError
from docmem.evaluation import continuations
from docmem.lm.forward import forward_inputs, forward_until, frozen
from docmem.lm.loading import LanguageModel
from docmem.lm.skip import skip_blocks
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.setup import new_memory
from docmem.training.train import train


def in_another_thread(job: Callable[[], object]) -> object:
    """What the job returns, or the error that ended it."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(job())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_an_lm_that_another_thread_has_frozen_is_refused(tmp_path: Path) -> None:
    lm, config = toy_lm(), replace(quick_config(tmp_path / "run"), num_epochs=1)
    lm.model.requires_grad_(True)
    with frozen(lm.model), frozen(lm.model):  # as often as one likes in one thread
        error = in_another_thread(lambda: train(config, lm=lm, documents=DOCUMENTS, progress=False))
    assert isinstance(error, DocmemError)
    assert "in use in another thread" in str(error)
    assert all(weight.requires_grad for weight in lm.model.parameters())
    run = in_another_thread(lambda: train(config, lm=lm, documents=DOCUMENTS, progress=False))
    assert getattr(run, "finished", run) is True


def test_recall_has_the_lm_for_itself(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    wanted, refused = docmem.recall(run, 0, lm=lm, max_new_tokens=4).text, list[object]()
    generate = continuations.generate_text

    def interrupted(*arguments: Any, **options: Any) -> str:
        """While the memory is attached, another thread asks."""
        if not refused:
            refused.append(None)
            refused[0] = in_another_thread(lambda: docmem.recall(run, 1, lm=lm, max_new_tokens=4))
        return generate(*arguments, **options)

    monkeypatch.setattr(continuations, "generate_text", interrupted)
    assert docmem.recall(run, 0, lm=lm, max_new_tokens=4).text == wanted
    assert "in use in another thread" in str(refused[0])


def test_a_training_elsewhere_is_the_reason_why_an_lm_is_refused(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    states = torch.zeros(1, 3, lm.d_model)
    with frozen(lm.model), skip_blocks(lm.blocks, 1, 0, states):  # as a training does
        refused = in_another_thread(lambda: docmem.recall(run, 0, lm=lm, max_new_tokens=4))
    assert "in use in another thread" in str(refused)


def test_blocks_that_are_skipped_here_are_refused_in_another_thread() -> None:
    lm = toy_lm()
    batch = lm.tokenize(["The storm came over the harbour"])
    states = torch.zeros(1, batch.input_ids.shape[1], lm.d_model)

    def read() -> object:
        return lm.model(**forward_inputs(lm.model, batch)).logits

    def skip() -> None:
        with skip_blocks(lm.blocks, 1, 0, states):
            pass

    with skip_blocks(lm.blocks, 1, 0, states), skip_blocks(lm.blocks, 0, 0, states):
        assert isinstance(read(), torch.Tensor)
        for job in (read, skip):
            assert isinstance(in_another_thread(job), DocmemError)
    assert isinstance(in_another_thread(read), torch.Tensor)


def test_a_forward_that_is_cut_short_here_goes_on_in_another_thread() -> None:
    lm = toy_lm()
    batch = lm.tokenize(["The storm came over the harbour"])
    whole = lm.model(**forward_inputs(lm.model, batch)).logits
    found: list[object] = []

    def register(hook: Callable[..., None]) -> object:
        handle = lm.blocks[1].register_forward_hook(hook)
        found.append(in_another_thread(lambda: lm.model(**forward_inputs(lm.model, batch)).logits))
        return handle

    states = forward_until(lm.model, batch, register)
    assert isinstance(found[0], torch.Tensor)
    assert torch.equal(found[0], whole)
    assert states is not None


def test_an_lm_made_in_inference_mode_is_refused() -> None:
    with torch.inference_mode():
        model = toy_lm().model
    for _ in range(2):  # it is not taken for one in use
        with pytest.raises(DocmemError, match="inference_mode"), frozen(model):
            pass
        assert "inference_mode" in str(in_another_thread(frozen(model).__enter__))


def test_a_memory_is_a_function_of_its_seed_in_every_thread(config: TrainConfig) -> None:
    lm, made = toy_lm(), []

    def make() -> None:
        made.extend(new_memory(config, lm, DOCUMENTS).token_key.weight for _ in range(60))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 240
    assert all(torch.equal(one, made[0]) for one in made)
