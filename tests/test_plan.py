"""What a training will take, said before it starts, against what it takes."""

import dataclasses
from pathlib import Path

import pytest
from toys import DOCUMENTS, quick_config, toy_lm

from docmem.cli.main import main
from docmem.documents import Document, load_documents
from docmem.errors import DocmemError
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import load_lm
from docmem.training import plan as planning
from docmem.training.config import preset
from docmem.training.plan import plan
from docmem.training.setup import new_memory


@pytest.fixture(autouse=True)
def fixed_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same speed on every machine."""
    monkeypatch.setattr(planning, "product_rate", lambda *_: 1e11)


def test_plan_of_the_embedded_lm_is_what_its_training_takes() -> None:
    config, documents = preset("tiny"), load_documents("encyclopedia", 10)
    found, lm = plan(config, documents), load_lm("tiny")
    cache = cache_hidden_states(lm, documents, config)
    weights = sum(p.numel() for p in new_memory(config, lm, documents).parameters())
    states = sum(cache.states(index).nbytes for index in range(10))
    assert found.memory["the LM's weights"] == 4 * sum(p.numel() for p in lm.model.parameters())
    assert found.memory["hidden states"] == pytest.approx(states, rel=0.15)
    assert found.trained == weights
    assert (found.device, found.dtype) == ("cpu", "float32")
    head = 4 * lm.d_model * lm.model.config.vocab_size * 1.5 * found.tokens
    assert head <= found.flops_epoch < 2 * head
    assert found.seconds == found.seconds_once + 20 * found.seconds_epoch


def test_plan_needs_neither_weights_nor_network() -> None:
    found = plan(preset("pythia-1b"))
    assert found.memory["the LM's weights"] == pytest.approx(4.05e9, rel=0.01)  # 1.01 billion
    assert found.tokens == pytest.approx(10 * 10 * 1.55 * 128, rel=0.02)
    assert found.trained == 2048 * 2049 + 32 * 2049 + 2048 * 33 + 32 * 3
    text = str(found)
    assert "500 epochs" in text
    assert "the LM's weights" in text


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"num_epochs": 40}, (1, 1)),
        ({"max_labels": 20}, (2, 2)),
        ({"negative_rows": None}, (1.2, 1.5)),
        ({"optimizer": "adamw"}, (0.7, 0.99)),
        ({"hook_memory_layer": 0}, (1.5, 10)),
    ],
)
def test_work_follows_the_settings(changes: dict, factor: tuple[float, float]) -> None:
    before, after = plan(preset("tiny")), plan(preset("tiny", **changes))
    least, most = factor
    assert least <= after.flops_epoch / before.flops_epoch <= most


def test_memory_of_a_step_counts_logits_and_later_blocks() -> None:
    last, earlier = plan(preset("tiny")), plan(preset("tiny", hook_memory_layer=-3))
    # Four rows of one document under its own DocRep, two under negatives.
    rows = 6 * last.tokens / 40
    assert last.memory["logits of a step, at most"] == pytest.approx(4 * 4096 * rows, rel=0.01)
    assert last.memory["activations of a step after it"] == 0
    assert earlier.memory["activations of a step after it"] > 4 * 2 * 384 * rows
    half = plan(preset("tiny", dtype="float16"))
    assert half.memory["hidden states"] == last.memory["hidden states"] / 2


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"num_gpus": 0}, {}])
def test_plan_is_for_the_device_of_the_training(changes: dict) -> None:
    assert plan(preset("pythia-1b", **changes)).device == "cpu"


def test_titles_and_documents_count() -> None:
    two = ("Ilse Marrowyn", "Cyclone Odalys")
    assert plan(preset("tiny", titles=two)).tokens * 5 == plan(preset("tiny")).tokens
    assert plan(preset("tiny", max_labels=500)).tokens == 2 * plan(preset("tiny")).tokens
    with pytest.raises(DocmemError, match="no folder 'missing'"):
        plan(preset("tiny", documents="missing"))
    with pytest.raises(DocmemError, match="no documents to plan for"):
        plan(preset("tiny"), [])
    with pytest.raises(DocmemError, match="device is 'cuda:7', which torch cannot use"):
        plan(preset("tiny", device="cuda:7"))


@pytest.mark.parametrize(
    "text",
    [
        "首都は日本の東にあり、人口は約千四百万人である。" * 5,
        "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย" * 3,
        "Москва является столицей России и крупнейшим городом страны " * 3,
    ],
    ids=["Japanese", "Thai", "Russian"],
)
def test_other_scripts_are_planned_with_the_tokens_that_they_take(text: str) -> None:
    config, documents = preset("tiny", max_length=512), [Document(name, text) for name in "ab"]
    cache = cache_hidden_states(load_lm("tiny"), documents, config)
    tokens = sum(int(batch.attention_mask.sum()) for batch in cache.batches)
    assert plan(config, documents).tokens == pytest.approx(tokens, rel=0.15)


def test_unknown_shape_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DocmemError, match="shape of the LM 'no-such-lm' could not be read"):
        plan(preset("tiny", lm_name="no-such-lm", documents="encyclopedia"))
    lm = toy_lm()
    lm.model.save_pretrained(tmp_path)
    config = dataclasses.replace(quick_config(tmp_path / "run"), lm_name=str(tmp_path))
    assert plan(config, DOCUMENTS).tokens < 400


def test_command_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--preset", "pythia-1b", "--max_labels", "20"]) == 0
    said = capsys.readouterr().out
    assert f"{plan(preset('pythia-1b', max_labels=20)).tokens:,}" in said
    assert "100 GFLOP/s" in said
