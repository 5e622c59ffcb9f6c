import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import docmem.lm.pretraining as pretraining
from docmem.documents import read_files
from docmem.errors import DocmemError
from docmem.lm.loading import load_lm
from docmem.lm.pretraining import (
    PretrainConfig,
    batch_at,
    held_out_ce,
    learning_rate,
    pretrain,
    split_paragraphs,
)

pytestmark = pytest.mark.slow
SENTENCES = [
    f"On day {n} the keeper of light {n * 7 % 31} wrote {n * n} lamps into the harbour book."
    for n in range(120)
]


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    text = tmp_path / "text"
    text.mkdir()
    (text / "prose.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    return PretrainConfig(
        text=text, out=tmp_path / "lm", vocab_size=300, d_model=16, layers=2, heads=2, context=16,
        tokens=24 * 32, batch_size=2, held_out=0.1,
    )  # fmt: skip


def test_pretrained_folder_loads_and_its_card_gives_the_measured_loss(
    config: PretrainConfig,
) -> None:
    lm = load_lm(pretrain(config))
    card = (config.out / "README.md").read_text()
    _, held = split_paragraphs(
        pretraining.read_paragraphs([*read_files(config.text).values()]), 0.1, config.seed
    )
    stream = pretraining.token_stream(lm.tokenizer, held)
    measured = held_out_ce(lm.model, stream, config.context, config.batch_size)
    assert f"| {measured:.3f} nats per token" in card
    assert str(config.text) not in card
    lines = (config.out / "pretraining.jsonl").read_text().splitlines()
    losses = [json.loads(line)["held_out_ce"] for line in lines]
    assert losses[-1] < losses[0]


def test_killed_pretraining_ends_as_an_uninterrupted_one(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(config, out=tmp_path / "whole")
    pretrain(whole)
    calls = 0

    def dying(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 14:
            raise RuntimeError("killed")
        return batch_at(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pretraining, "batch_at", dying)
    with pytest.raises(RuntimeError, match="killed"):
        pretrain(config)
    monkeypatch.undo()
    pretrain(config)
    first, second = (load_file(c.out / "model.safetensors") for c in (whole, config))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_pass_reads_every_part_of_the_stream_once() -> None:
    stream, context = torch.arange(1000), 10
    per_pass = (len(stream) - context - 1) // context
    starts = [batch_at(stream, step, 1, context, seed=3)[0, 0].item() for step in range(per_pass)]
    assert len(set(starts)) >= per_pass - 1  # a cut beyond the end is moved back onto the last
    assert starts != sorted(starts)
    again = [batch_at(stream, step, 1, context, seed=3)[0, 0].item() for step in range(per_pass)]
    assert starts == again


def test_held_out_paragraphs_are_never_trained_on() -> None:
    training, held = split_paragraphs(SENTENCES, 0.1, seed=1)
    assert len(held) == 12
    assert sorted(training + held) == sorted(SENTENCES)


def test_held_out_cross_entropy_is_a_mean_over_tokens(config: PretrainConfig) -> None:
    lm = load_lm(pretrain(config))
    stream = torch.randint(2, 200, (65,), generator=torch.Generator().manual_seed(0))
    total = 0.0
    with torch.no_grad():
        for start in range(0, 64, 16):
            window = stream[start : start + 17]
            logprobs = lm.model(window[None, :-1]).logits[0].log_softmax(-1)
            total -= sum(logprobs[i, window[i + 1]].item() for i in range(16))
    assert held_out_ce(lm.model, stream, 16, 3) == pytest.approx(total / 64, abs=1e-4)


def test_learning_rate_warms_up_and_decays_to_almost_zero(config: PretrainConfig) -> None:
    rates = [learning_rate(config, step, 1000) for step in range(1000)]
    assert rates.index(max(rates)) in range(18, 22)
    assert max(rates) == pytest.approx(config.lr, rel=0.01)
    assert 0 < rates[-1] < config.lr / 500
    assert all(math.isfinite(rate) for rate in rates)


def test_other_settings_in_the_same_folder_are_rejected(config: PretrainConfig) -> None:
    pretrain(config)
    with pytest.raises(DocmemError, match="another seed"):
        pretrain(dataclasses.replace(config, seed=2))


def test_other_texts_in_the_same_folder_are_rejected(config: PretrainConfig) -> None:
    pretrain(config)
    (config.text / "prose.txt").rename(config.text / "again.txt")
    with pytest.raises(DocmemError, match="a pretraining of other texts"):
        pretrain(config)


def test_the_same_texts_elsewhere_are_the_same_pretraining(config: PretrainConfig) -> None:
    weights = (pretrain(config) / "model.safetensors").read_bytes()
    moved = config.text.rename(config.text.with_name("moved"))
    assert (
        pretrain(dataclasses.replace(config, text=moved)) / "model.safetensors"
    ).read_bytes() == weights


@pytest.mark.parametrize("changes", [{"lr": 1e6}, {"weight_decay": 1e300}])
def test_a_loss_that_is_no_number_leaves_no_lm(
    config: PretrainConfig, changes: dict[str, float]
) -> None:
    with pytest.raises(DocmemError, match="so no LM was written"):
        pretrain(dataclasses.replace(config, **changes))
    assert not (config.out / "model.safetensors").exists()


@pytest.mark.parametrize("content", ["", "[]", "\0", '{"seed": 1}'])
def test_settings_that_were_damaged_are_a_sentence(config: PretrainConfig, content: str) -> None:
    (config.out / "work").mkdir(parents=True)
    (config.out / "work" / "config.json").write_text(content)
    with pytest.raises(DocmemError, match="Choose another --out"):
        pretrain(config)


def test_any_seed_that_torch_takes_will_do(config: PretrainConfig) -> None:
    batch_at(torch.arange(100), 5, 2, 10, seed=2**63 - 1)


def test_folder_without_prose_is_rejected(config: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DocmemError, match=r"no \.txt or"):
        pretrain(dataclasses.replace(config, text=tmp_path))


@pytest.mark.parametrize("count", [1, 120])
def test_text_of_which_all_is_held_out_is_rejected(config: PretrainConfig, count: int) -> None:
    (config.text / "prose.txt").write_text("\n".join(SENTENCES[:count]))
    with pytest.raises(DocmemError, match=f"{count} paragraphs .lines., and with a held_out of"):
        pretrain(dataclasses.replace(config, held_out=0.999))


def test_an_lm_that_is_not_its_own_is_left_alone(config: PretrainConfig) -> None:
    config.out.mkdir()
    (config.out / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(DocmemError, match="files that are no pretraining of docmem"):
        pretrain(config)
    assert [path.name for path in config.out.iterdir()] == ["model.safetensors"]


def test_too_few_held_out_tokens_are_said_before_anything_is_written(
    config: PretrainConfig,
) -> None:
    with pytest.raises(DocmemError, match=r"held out have \d+ tokens, fewer than a context of 128"):
        pretrain(dataclasses.replace(config, held_out=1e-9, context=128))
    assert not config.out.exists()


def test_a_new_lm_leaves_the_callers_random_numbers_alone(config: PretrainConfig) -> None:
    torch.manual_seed(99)
    tokenizer = pretraining.train_tokenizer(SENTENCES, config.vocab_size, config.context)
    pretraining.build_lm(config, tokenizer)
    assert torch.initial_seed() == 99
