"""The benchmark: its ways of training do the same work, and its page shows what was measured."""

import contextlib
import copy
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import DOCUMENTS, toy_batch, toy_lm

import benchmarks.__main__ as command
from benchmarks import inference
from benchmarks.baselines import Attached, FullForwards
from benchmarks.epochs import KINDS, Comparison, breakdown, compare, new_trainer, peak
from benchmarks.measure import alternate, in_fresh_process, seconds_of
from benchmarks.report import p95, render, targets
from benchmarks.roofline import lower_bound, matmul_rates
from benchmarks.shapes import build_lm, encyclopedia, settings
from docmem.experiments.baselines import LoRA
from docmem.lm.forward import TokenBatch
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.trainer import Trainer

RESULTS = Path(command.__file__).parent


@pytest.fixture
def no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products are not timed."""
    monkeypatch.setattr("benchmarks.epochs.matmul_rates", lambda *_: {"product": 1e9})


@pytest.mark.usefixtures("no_rates")
@pytest.mark.parametrize("layer", [0, -1])
def test_frozen_learns_exactly_what_docmem_learns(
    lm: LanguageModel, config: TrainConfig, layer: int
):
    """The same batches, negatives, losses, clipping and steps."""
    config = dataclasses.replace(config, num_epochs=3, hook_memory_layer=layer)
    result = compare(lm, DOCUMENTS, config, range(1, 4))
    own = result.positive_ce["docmem"]
    assert own[-1] < own[0] - 0.05
    assert result.positive_ce["frozen"][0] == pytest.approx(own[0], abs=1e-5)
    assert result.positive_ce["frozen"] == pytest.approx(own, abs=1e-3)  # fifteen steps later
    assert result.loss_difference is not None
    assert result.loss_difference < 1e-5
    assert {way: len(took) for way, took in result.seconds.items()} == {
        "docmem": 3,
        "original": 3,
        "frozen": 3,
    }


def trainer_of(way: str, lm: LanguageModel, config: TrainConfig) -> Attached:
    trainer = new_trainer(way, lm, DOCUMENTS, config)
    assert isinstance(trainer, Attached)
    return trainer


def test_original_counts_pads_and_computes_gradients_of_the_lm(
    lm: LanguageModel, config: TrainConfig
):
    original, frozen = (trainer_of(way, lm, config) for way in ("original", "frozen"))
    batches = original.cache.batches
    index = next(i for i, batch in enumerate(batches) if not batch.attention_mask.all())

    def losses(trainer: Attached) -> torch.Tensor:
        return trainer.cache.cross_entropies(index, trainer.memory, trainer.memory.doc_reps[:2])

    lm.model.requires_grad_(True)
    losses(original).sum().backward()
    assert all(parameter.grad is not None for parameter in lm.model.parameters())
    lm.model.requires_grad_(False).zero_grad()
    assert (losses(original) - losses(frozen)).abs().max() > 1e-3
    without_pads = TokenBatch(batches[index].input_ids, torch.ones_like(batches[index][1]))
    original.cache.batches[index] = frozen.cache.batches[index] = without_pads
    torch.testing.assert_close(losses(original), losses(frozen))


def test_original_leaves_the_lm_as_it_was(lm: LanguageModel, config: TrainConfig):
    weights = copy.deepcopy(lm.model.state_dict())
    original = trainer_of("original", lm, config)
    start = original.memory.values.weight.clone()
    seen: list[bool] = []
    handle = lm.blocks[0].register_full_backward_hook(
        lambda *_: seen.append(next(lm.model.parameters()).requires_grad)
    )
    original.epoch()
    handle.remove()
    assert seen
    assert all(seen)
    assert not torch.equal(start, original.memory.values.weight)
    assert all(torch.equal(weights[name], t) for name, t in lm.model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())


def test_warm_up_changes_neither_memory_nor_negatives(lm: LanguageModel, config: TrainConfig):
    """Its first epoch, warm-up included, is the one that docmem has without."""
    frozen = trainer_of("frozen", lm, config)
    assert frozen.epoch()[:4] == pytest.approx(
        new_trainer("docmem", lm, DOCUMENTS, config).epoch()[:4], abs=1e-5
    )


@pytest.mark.usefixtures("no_rates")
def test_a_way_that_does_not_fit_is_left_out(
    lm: LanguageModel, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    def epoch(self: Attached):
        if self.original:
            raise torch.OutOfMemoryError("too large")
        return Trainer.epoch(self)

    monkeypatch.setattr(Attached, "epoch", epoch)
    result = compare(lm, DOCUMENTS, dataclasses.replace(config, num_epochs=3), (1, 2))
    assert result.too_large == ["original"]
    assert set(result.seconds) == {"docmem", "frozen"}
    assert result.speedup is None


@pytest.mark.usefixtures("no_rates")
def test_lora_is_trained_until_its_cross_entropy_is_low(
    lm: LanguageModel, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("benchmarks.epochs.ENOUGH", 5.0)
    lora = LoRA(lm, DOCUMENTS, config, 5e-2)
    result = compare(lm, DOCUMENTS, dataclasses.replace(config, num_epochs=5), (1,), lora)
    (way,) = set(result.positive_ce) - {"docmem", "original", "frozen"}
    assert 1 < len(lora.losses) < 5
    assert lora.losses[-1] <= 5.0 < lora.losses[-2]
    assert result.positive_ce[way] == lora.losses
    assert sum(result.seconds[way]) == pytest.approx(lora.seconds[-1])


BATCHES = [toy_batch((21, 13)), toy_batch((30, 30), seed=1)]
STEPS = [batch.predicted.sum(1).tolist() for batch in BATCHES]


@pytest.mark.parametrize("layer", range(3))
def test_lower_bound_is_what_torch_counts_of_head_and_blocks(layer: int):
    assert STEPS == [[20, 12], [29, 29]]
    lm = toy_lm()
    work = lower_bound(lm.model.config, layer, 24, STEPS)
    counted = {"head": 0.0, "blocks": 0.0, "attention": 0.0}
    d_model, suffix = lm.d_model, list(lm.blocks)[layer + 1 :]
    for length in (length for rows in STEPS for length in rows):
        x = torch.randn(1, length, d_model, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            lm.model.get_output_embeddings()(x).sum().backward()
        counted["head"] += 2 * counter.get_total_flops()
        for block in suffix:
            for linear in (m for m in block.modules() if isinstance(m, torch.nn.Linear)):
                given = torch.randn(length, linear.in_features, requires_grad=True)
                with FlopCounterMode(display=False) as counter:
                    linear(given).sum().backward()
                counted["blocks"] += 2 * counter.get_total_flops()
            heads = [torch.randn(1, 2, length, d_model // 2, requires_grad=True) for _ in range(3)]
            with FlopCounterMode(display=False) as counter:
                scores = heads[0] @ heads[1].transpose(-1, -2)
                (scores.softmax(-1) @ heads[2]).sum().backward()
            # Torch counts all pairs; a token attends to those before it and itself.
            causal = (length + 1) / (2 * length)
            counted["attention"] += 2 * counter.get_total_flops() * causal
    assert {name: work[name] for name in counted} == pytest.approx(counted)
    assert (work["blocks"] == 0) == (layer == 2)


def test_lower_bound_takes_the_cheaper_way_through_the_memory():
    config = toy_lm().model.config
    d, steps = 32, [[100]]
    token_key = 4 * d * 8 * 100
    product = 3 * 2 * d * 8 * 200 + 3 * 2 * d * d * 8  # 8 entries: narrower than the model
    assert lower_bound(config, 0, 8, steps)["memory"] == token_key + product
    token_key = 4 * d * 512 * 100
    apart = 3 * 2 * (d * 512 + d * d) * 200  # 512 entries: wider, W_o W_d is the larger matrix
    assert lower_bound(config, 0, 512, steps)["memory"] == token_key + apart


def test_matmul_rate_is_that_of_a_timed_product():
    rates = matmul_rates(4, 8, 16, torch.float32, torch.device("cpu"))
    assert set(rates) == {
        "(1024, 1024) · (1024, 1024)",
        "(8, 8) · (8, 16)",
        "(8, 16) · (16, 8)",
        "(4, 8) · (8, 16)",
        "(4, 16) · (16, 8)",
    }
    a, b = torch.randn(2, 1024, 1024)
    seconds = min(seconds_of(lambda: a @ b) for _ in range(5))
    assert rates["(1024, 1024) · (1024, 1024)"] == pytest.approx(2 * 1024**3 / seconds, rel=0.9)


def test_p95_is_a_value_that_95_percent_do_not_exceed():
    assert p95([float(n) for n in range(1, 201)]) == 190
    assert p95([3.0]) == 3.0


def test_alternate_takes_turns_in_both_orders():
    calls: list[str] = []
    seconds = alternate({name: lambda n=name: calls.append(n) for name in "abc"}, 2, warm_up=1)
    assert "".join(calls) == "abccbaabc"
    assert [len(took) for took in seconds.values()] == [2, 2, 2]
    assert min(map(min, seconds.values())) >= 0


def test_start_is_the_alternating_epochs_without_the_warm_up():
    compared = Comparison({}, {}, [1, 2, 45, 90], {}, seconds={"docmem": list(range(90))})
    assert compared.start == [1, 2]


def test_full_forwards_agree_with_the_plane_and_differ_from_point_to_point(
    trained: tuple[LanguageModel, Run],
):
    lm, run = trained
    plane, numbers = inference.plane(run, lm, points=4, sampled=5)
    assert numbers["difference"] < 1e-5
    assert len(numbers["full_forward_seconds"]) == 5
    assert plane.ce.std() > 0.01


def test_plane_difference_is_found_where_there_is_one(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
):
    lm, run = trained
    exact = FullForwards.cross_entropies
    monkeypatch.setattr(FullForwards, "cross_entropies", lambda *a: exact(*a) + 0.25)
    numbers = inference.plane(run, lm, points=3, sampled=2)[1]
    assert numbers["difference"] == pytest.approx(0.25, abs=1e-4)


def test_generation_alternates_with_the_base_lm(trained: tuple[LanguageModel, Run]):
    lm, run = trained
    numbers = inference.generation(run, lm, pairs=2, new_tokens=3)
    base, under = np.array(numbers["base_seconds"]), np.array(numbers["document_seconds"])
    assert len(base) == len(under) == 2
    assert numbers["slowdown_percent"] == pytest.approx(100 * (under / base - 1))


def test_gpu_part_reads_ten_segments_of_256_tokens():
    batches = new_trainer("docmem", build_lm("toy"), encyclopedia(2), settings("toy")).cache.batches
    assert [batch.input_ids.shape for batch in batches] == [(10, 256), (10, 256)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux resets a peak")
def test_peak_memory_counts_the_lm_and_what_training_adds():
    """In this process, whose peak is reset, as a fresh one takes ten seconds to start."""
    Path("/proc/self/clear_refs").write_text("5")
    segments, words, vocabulary = 4, 60, 4096
    logits = 4 * segments * words * vocabulary
    found = peak("original", "toy", max_segments=segments, segment_length=words)
    assert 2 * logits < found < 1e9  # of both passes, kept for the backward pass


def test_memory_part_asks_a_fresh_process_for_each_way(monkeypatch: pytest.MonkeyPatch):
    assert in_fresh_process("print(1 + 1)").strip() == "2"
    monkeypatch.setattr("benchmarks.epochs.peak", lambda way, shape: f"{len(way)}{len(shape)}")

    def in_this_process(code: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, {})
        return printed.getvalue()

    monkeypatch.setattr(command, "in_fresh_process", in_this_process)
    bytes_ = command.Bench(command.FAST).memory()["bytes"]
    assert bytes_ == {"docmem": 63, "original": 83, "frozen": 63}


def test_breakdown_accounts_for_the_whole_epoch(lm: LanguageModel, config: TrainConfig):
    numbers = breakdown(new_trainer("docmem", lm, DOCUMENTS, config), 2)
    assert sum(numbers["seconds"].values()) == pytest.approx(numbers["wall"])
    assert min(numbers["seconds"][kind] for kind in KINDS) > 0
    page = render({"profile": {"numbers": numbers, "machine": {}, "date": "2026-01-01"}})
    share = numbers["seconds"]["matrix products"] / numbers["wall"]
    assert f" {share:.0%} |" in next(
        line for line in page.splitlines() if line.startswith("| matrix products")
    )


def test_the_page_is_rendered_from_the_stored_numbers():
    stored = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))["parts"]
    assert render(stored) == (RESULTS / "RESULTS.md").read_text(encoding="utf-8")


def test_targets_are_judged_by_their_numbers():
    def verdicts(**bytes_: int) -> list[object]:
        return [row[""] for row in targets({"memory": {"bytes": bytes_}}) if row["measured"]]

    assert verdicts(docmem=3, original=9) == ["met"]
    assert verdicts(docmem=4, original=9) == ["not met"]
    empty = targets({})
    assert {row[""] for row in empty} == {"not measured"}
    slow = Comparison(
        {}, {}, [1], {"head": 1e9}, {"a": [1e9]}, {"docmem": [9.0, 2.0], "original": [22.0]}
    )
    assert [row[""] for row in targets({"embedded": [slow]})][:2] == ["not met", "not met"]
    assert [row["measured"] for row in targets({"embedded": [slow]})][:2] == ["11.0×", "0.50"]


@pytest.mark.usefixtures("no_rates")
def test_parts_are_stored_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = ["--fast", "--out", str(tmp_path), "--only"]
    assert command.main([*run, "start", "gpu"]) == 0
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["parts"]
    assert list(stored) == ["start"] if not torch.cuda.is_available() else ["start", "gpu"]
    assert command.main([*run, "profile"]) == 0
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    after = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["parts"]
    assert after["start"] == stored["start"]
    assert page == render(after)
    assert "| toy  |       0 | original |" in page
    assert "| matrix products " in page


@pytest.mark.parametrize(
    ("given", "why"),
    [(["--fast", "--only", "planet"], "invalid choice: 'planet'"), (["--fast"], "--out")],
)
def test_main_rejects_what_it_cannot_run(
    given: list[str], why: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        command.main(given)
    assert why in capsys.readouterr().err
