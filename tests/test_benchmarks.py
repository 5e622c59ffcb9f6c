"""The benchmark: its ways of training do the same work, and its page shows what was measured."""

import contextlib
import copy
import dataclasses
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode
from toys import DOCUMENTS, toy_batch, toy_lm

import benchmarks.__main__ as command
from benchmarks import inference
from benchmarks import leaderboard as board
from benchmarks.baselines import Attached, FullForwards
from benchmarks.epochs import KINDS, breakdown, compare, new_trainer, peak
from benchmarks.leaderboard import Outcome, Row, train_until_good
from benchmarks.measure import in_fresh_process
from benchmarks.report import BOARD, render, targets
from benchmarks.roofline import lower_bound, matmul_rates
from benchmarks.shapes import build_lm, encyclopedia, settings
from docmem.evaluation.recall import recognition
from docmem.experiments.pool import VERSION_0_1
from docmem.experiments.rivals_lora import LoRA, PerDocumentLoRA
from docmem.lm.forward import TokenBatch
from docmem.lm.loading import LanguageModel
from docmem.training.config import PAPER_PROCEDURE, TrainConfig, preset
from docmem.training.run import Run

RESULTS = Path(command.__file__).parent


@pytest.fixture
def no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products are not timed."""
    monkeypatch.setattr("benchmarks.epochs.matmul_rates", lambda *_: {"product": 1e9})


@pytest.mark.slow
@pytest.mark.usefixtures("no_rates")
@pytest.mark.parametrize(("layer", "negative_rows"), [(0, None), (-1, None), (-1, 1)])
def test_frozen_learns_exactly_what_docmem_learns(
    lm: LanguageModel, config: TrainConfig, layer: int, negative_rows: int | None
):
    """The same batches, negatives, losses, clipping and steps."""
    config = dataclasses.replace(config, hook_memory_layer=layer, negative_rows=negative_rows)
    result = compare(lm, DOCUMENTS, config, 3)
    own = result.positive_ce["docmem"]
    assert own[-1] < own[0] - 0.05
    assert result.positive_ce["frozen"][0] == pytest.approx(own[0], abs=1e-5)
    assert result.positive_ce["frozen"] == pytest.approx(own, abs=1e-3)  # fifteen steps later
    assert {way: len(took) for way, took in result.seconds.items()} == {
        "original": 3,
        "frozen": 3,
        "docmem": 3,
    }


def test_full_forwards_read_the_rows_asked_for(lm: LanguageModel, config: TrainConfig):
    frozen, docmem = trainer_of("frozen", lm, config), new_trainer("docmem", lm, DOCUMENTS, config)
    rows = [torch.tensor([0, 1]), torch.tensor([1])]
    found, wanted = (
        one.cache.cross_entropies(0, one.memory, one.memory.doc_reps[:2], rows)
        for one in (frozen, docmem)
    )
    torch.testing.assert_close(found, wanted)


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


def test_epochs_are_compared_by_the_papers_procedure():
    for name in ("tiny", "toy"):
        found = settings(name)
        assert {key: getattr(found, key) for key in PAPER_PROCEDURE} == PAPER_PROCEDURE
    assert VERSION_0_1.items() <= vars(settings("tiny")).items()


@pytest.fixture
def small(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Row:
    """A row of the leaderboard that takes seconds: two DocReps apart, a goal within reach."""
    monkeypatch.setattr(board, "OWN", 5.0)
    monkeypatch.setattr(board, "OTHER", 0.0)
    changes = {"segment_length": 12, "max_length": 64, "batch_size": 2, "hook_memory_dim": 24}
    return Row("small", changes, epochs=12)


@pytest.mark.slow
def test_row_trains_until_its_goal_is_reached(lm: LanguageModel, small: Row):
    found = train_until_good(small, 1, lm, DOCUMENTS)
    assert found.reached
    assert 1 < len(found.own) == len(found.seconds) < 12
    assert found.own[-1] <= 5.0 < found.own[-2]
    assert found.to(5.0) == found.to_goal == (len(found.own), found.setup + sum(found.seconds))
    config = preset("tiny", **small.changes, seed=1)
    trainer = new_trainer("docmem", lm, DOCUMENTS, config)
    assert found.steps == len(trainer.cache.batches)
    for _ in found.own:
        trainer.epoch()
    wanted = recognition(trainer.cache, trainer.memory)
    assert [found.own[-1], found.other, found.lowest_pair, found.margin] == pytest.approx(
        [wanted.own, wanted.other, wanted.lowest_pair.ce, wanted.margin], abs=1e-4
    )


@pytest.mark.slow
def test_row_is_given_up_where_documents_are_not_apart(
    lm: LanguageModel, small: Row, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(board, "OTHER", 100.0)
    found = train_until_good(dataclasses.replace(small, epochs=8), 1, lm, DOCUMENTS)
    assert not found.reached
    assert len(found.own) == 8
    assert found.other is not None
    assert found.to_goal == board.NEVER != found.to(5.0)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", [LoRA, PerDocumentLoRA])
def test_lora_has_the_own_goal_alone(
    lm: LanguageModel, small: Row, baseline: type[LoRA], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(board, "OTHER", 100.0)
    monkeypatch.setattr(board, "OWN", 5.5)
    changes = {**small.changes, "optimizer": "adamw", "lr": 5e-2}
    row = dataclasses.replace(small, changes=changes, baseline=baseline)
    found = train_until_good(row, 1, lm, DOCUMENTS)
    assert found.reached
    assert found.setup == 0
    assert (found.other is None) == (baseline is LoRA)


def test_original_takes_the_epochs_of_version_0_1(
    lm: LanguageModel, small: Row, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(board, "VERSION_0_1", small.changes)
    before = dataclasses.replace(small, name=board.BEFORE, seeds=(1, 2), epochs=2)
    outcomes = board.leaderboard(lm, DOCUMENTS, [before], 1)
    assert [one.row for one in outcomes] == [board.ORIGINAL] * 2 + [board.BEFORE] * 2
    assert [len(one.seconds) for one in outcomes] == [2] * 4
    assert len({second for one in outcomes[:2] for second in one.seconds}) == 1


def outcome(row: str, seconds: float, epochs: int, reached: bool = True) -> Outcome:
    own = [2.0 * board.ENOUGH, *[board.ENOUGH] * (epochs - 1)]
    return Outcome(row, 1, 10, 0.0, [seconds] * epochs, own, reached, 4.0, 0.9, 0.4)


def stored(outcomes: list[Outcome]) -> dict[str, Any]:
    numbers = [dataclasses.asdict(one) for one in outcomes]
    return {"numbers": numbers, "machine": {}, "date": "2026-01-01"}


def test_an_original_that_falls_short_is_compared_by_the_time_it_was_given():
    outcomes = [
        *(outcome(board.ORIGINAL, 4.0, 100, reached) for reached in (True, False, False)),
        outcome(board.NOW, 1.0, 10),
    ]
    page = render({BOARD: stored(outcomes)})
    rows = [line.strip("| ").split("|") for line in page.splitlines()]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert cells[board.ORIGINAL][:3] == ["not in 100 epochs", "400.0 – 400.0", "1 of 3 seeds"]
    assert cells[board.NOW][5:7] == ["> 40.0×", "> 10.0×"]


def test_leaderboard_shows_medians_and_rows_that_fell_short():
    outcomes = [
        outcome(board.ORIGINAL, 4.0, 90),
        *(outcome(board.NOW, seconds, 9) for seconds in (0.5, 1.0, 2.0)),
        outcome("+ Muon", 1.0, 40, reached=False),
        outcome(board.ONE_LORA, 1.0, 10),
    ]
    page = render({BOARD: stored(outcomes)})
    rows = [line.strip("| ").split("|") for line in page.splitlines()]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert cells[board.NOW] == [
        *("9.0", "4.5 – 18.0", "3 of 3 seeds", "9", "90", "40.0×", "10.0×", "2.0"),
        *("2.00", "4.00", "0.90", "0.40"),
    ]
    assert cells["+ Muon"][:7] == ["not in 40 epochs", "", "0 of 1 seeds", "", "", "", ""]
    assert board.TRIED[0] in page
    found = {row["what"]: (row["measured"], row[""]) for row in targets({BOARD: outcomes})}
    assert list(found.values())[:8] == [
        ("9.0 s", "not met"),
        ("goal not reached", "not met"),
        ("", "not measured"),
        ("", "not measured"),
        ("", "not measured"),
        ("40×", "not met"),
        ("1.0×", "not met"),
        ("0.90 nats", "met"),
    ]
    outcomes[2].reached = False
    assert [row["measured"] for row in targets({BOARD: outcomes})][7] == "goal not reached"


def test_older_processors_are_compared_on_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    bench = command.Bench(command.FAST)
    assert bench.avx2() is None

    def printed(*_: str, **environment: str) -> str:
        slower = 3 if environment else 2
        rows = [outcome(board.NOW, 1.0, slower), outcome(board.RELU, 1.0, 2)]
        return json.dumps([dataclasses.asdict(one) for one in rows])

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(command, "in_fresh_process", printed)
    found = {row["what"]: row["measured"] for row in targets({"avx2": bench.avx2()})}
    assert found["the same processor without AVX-512, tanh or relu: times as long"] == "1.50×"


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


def test_matmul_rate_is_that_of_a_timed_product(monkeypatch: pytest.MonkeyPatch):
    def timed(self: Timer, **_: float) -> SimpleNamespace:
        self.timeit(1)  # the product can be made
        return SimpleNamespace(mean=0.5)

    monkeypatch.setattr(Timer, "blocked_autorange", timed)
    assert matmul_rates(4, 8, 16, torch.float32, torch.device("cpu")) == {
        "(1024, 1024) · (1024, 1024)": 4 * 1024**3,
        "(8, 8) · (8, 16)": 4 * 8 * 8 * 16,
        "(8, 16) · (16, 8)": 4 * 8 * 16 * 8,
        "(4, 8) · (8, 16)": 4 * 4 * 8 * 16,
        "(4, 16) · (16, 8)": 4 * 4 * 16 * 8,
    }


def test_plane_is_compared_with_full_forwards(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
):
    lm, run = trained
    numbers = inference.plane(run, lm, points=4, sampled=5)
    assert numbers["difference"] < 1e-5
    assert numbers["plane_difference"] < 1e-5  # so small a plane is measured everywhere
    assert numbers["measured_share"] == 1
    assert len(numbers["full_forward_seconds"]) == 5
    exact = FullForwards.cross_entropies
    monkeypatch.setattr(FullForwards, "cross_entropies", lambda *a: exact(*a) + 0.25)
    numbers = inference.plane(run, lm, points=3, sampled=2)
    assert numbers["difference"] == pytest.approx(0.25, abs=1e-4)
    assert numbers["plane_difference"] == pytest.approx(0.25, abs=1e-4)


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
    assert in_fresh_process("-c", "print(1 + 1)").strip() == "2"
    monkeypatch.setattr("benchmarks.epochs.peak", lambda way, shape: f"{len(way)}{len(shape)}")

    def in_this_process(_: str, code: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, {})
        return printed.getvalue()

    monkeypatch.setattr(command, "in_fresh_process", in_this_process)
    bytes_ = command.Bench(command.FAST).memory()["bytes"]
    assert bytes_ == {"original": 83, "frozen": 63, "docmem": 63}


@pytest.mark.slow
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


def test_targets_of_parts_that_were_not_run_are_not_measured():
    assert {row[""] for row in targets({})} == {"not measured"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_rates")
def test_parts_are_stored_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = ["--fast", "--out", str(tmp_path), "--only"]
    assert command.main([*run, "epochs", "gpu"]) == 0
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["parts"]
    assert list(stored) == ["epochs"] if not torch.cuda.is_available() else ["epochs", "gpu"]
    assert command.main([*run, "profile"]) == 0
    page, printed = (tmp_path / "RESULTS.md").read_text(encoding="utf-8"), capsys.readouterr()
    assert page in printed.out
    assert re.search(r"^profile: \d+ s$", printed.err, re.M)
    after = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["parts"]
    assert after["epochs"] == stored["epochs"]
    assert page == render(after)
    assert re.search(r"\| toy +\| float32 +\| +0 \| +2 \| original ", page)
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
