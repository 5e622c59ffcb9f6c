"""The benchmark: its baselines do docmem's work, its limit counts it, its page tells it."""

import copy
import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import DOCUMENTS, toy_batch, toy_lm

from benchmarks import inference
from benchmarks.__main__ import main
from benchmarks.baselines import VARIANTS, Attached
from benchmarks.breakdown import KINDS, breakdown
from benchmarks.epochs import compare, lora_epoch, on_gpu, peak_of
from benchmarks.measure import alternate, machine, quartiles
from benchmarks.report import percentile, render, rows, start
from benchmarks.roofline import predicted_lengths, unavoidable
from benchmarks.shapes import TOY
from docmem.experiments.baselines import LoRA
from docmem.lm.forward import TokenBatch
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_the_other_contenders_learn_what_docmem_learns_if_pads_do_not_count(
    lm: LanguageModel, config: TrainConfig, layer: int, monkeypatch: pytest.MonkeyPatch
):
    """The same batches, negatives, losses, clipping and steps."""
    monkeypatch.setitem(VARIANTS, "original", {"train_lm": True, "count_pads": False})
    config = dataclasses.replace(config, num_epochs=3, hook_memory_layer=layer)
    run, numbers = compare(lm, DOCUMENTS, config, range(1, 4))
    own = [epoch.positive_ce for epoch in run.load_history()]
    assert own[-1] < own[0] - 0.05
    for name in VARIANTS:
        theirs = numbers["positive_ce"][name]
        assert theirs[0] == pytest.approx(own[0], abs=1e-5)
        assert theirs == pytest.approx(own, abs=1e-3)  # fifteen steps of AdamW later
    assert numbers["loss_difference"] < 1e-5
    assert {name: len(took) for name, took in numbers["seconds"].items()} == {
        "original": 3,
        "frozen": 3,
        "docmem": 3,
    }


def test_the_original_counts_pads_and_computes_gradients_of_the_lm(
    lm: LanguageModel, config: TrainConfig
):
    original = Attached(lm, DOCUMENTS, config, **VARIANTS["original"])
    index = next(i for i, batch in enumerate(original.batches) if not batch.attention_mask.all())
    batch, negative = original.batches[index], original.memory.doc_reps[1]
    lm.model.requires_grad_(True)
    losses = original.losses(index, negative)
    losses[0].backward()
    assert all(parameter.grad is not None for parameter in lm.model.parameters())
    lm.model.requires_grad_(False).zero_grad()
    frozen = Attached(lm, DOCUMENTS, config, **VARIANTS["frozen"])
    assert abs(losses[0] - frozen.losses(index, negative)[0]) > 1e-3
    original.batches[index] = TokenBatch(batch.input_ids, torch.ones_like(batch.attention_mask))
    frozen.batches[index] = original.batches[index]
    for one, other in zip(*(a.losses(index, negative) for a in (original, frozen)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_contender_leaves_the_lm_as_it_found_it(lm: LanguageModel, config: TrainConfig):
    weights = copy.deepcopy(lm.model.state_dict())
    original = Attached(lm, DOCUMENTS, config, **VARIANTS["original"])
    start_of = copy.deepcopy(original.memory.state_dict())
    original.warm_up()
    assert all(torch.equal(start_of[n], t) for n, t in original.memory.state_dict().items())
    original.epoch()
    assert not torch.equal(start_of["values.weight"], original.memory.values.weight)
    assert all(torch.equal(weights[name], t) for name, t in lm.model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())


def test_an_epoch_of_lora_is_told_as_the_others_are(lm: LanguageModel, config: TrainConfig):
    lora = LoRA(lm, DOCUMENTS, config, 5e-3)
    passed = [lora_epoch(lora) for _ in range(4)]
    assert [one.positive_ce for one in passed] == lora.losses
    assert sum(one.seconds for one in passed) == pytest.approx(lora.seconds[-1])
    assert passed[-1].positive_ce < passed[0].positive_ce - 0.05


BATCHES = [toy_batch((21, 13)), toy_batch((30, 30), seed=1)]
STEPS = [predicted_lengths(batch) for batch in BATCHES]


def test_predicted_tokens_are_those_before_each_rows_last():
    assert STEPS == [[20, 12], [29, 29]]


@pytest.mark.parametrize("layer", range(3))
def test_the_limit_is_what_torch_counts_of_head_and_blocks(layer: int):
    lm = toy_lm()
    work = unavoidable(lm.model.config, layer, 24, STEPS)
    counted = {"head": 0.0, "blocks": 0.0, "attention": 0.0}
    d_model, suffix = lm.d_model, list(lm.blocks)[layer + 1 :]
    for length in (length for rows_ in STEPS for length in rows_):
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
    assert {name: getattr(work, name) for name in counted} == pytest.approx(counted)
    assert (work.blocks == 0) == (layer == 2)


def test_the_limit_takes_the_cheaper_way_through_the_memory():
    config = toy_lm().model.config
    d, steps = 32, [[100]]
    token_key = 4 * d * 8 * 100
    product = 3 * 2 * d * 8 * 200 + 3 * 2 * d * d * 8  # 8 entries: narrower than the model
    assert unavoidable(config, 0, 8, steps).memory == token_key + product
    token_key = 4 * d * 512 * 100
    apart = 3 * 2 * (d * 512 + d * d) * 200  # 512 entries: wider, W_o W_d is the larger matrix
    assert unavoidable(config, 0, 512, steps).memory == token_key + apart


def test_statistics():
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert percentile([float(n) for n in range(1, 201)], 0.95) == 190
    assert percentile([3.0], 0.95) == 3.0


def test_contenders_take_turns_in_both_orders():
    calls: list[str] = []
    seconds = alternate({name: lambda n=name: calls.append(n) for name in "abc"}, 2, warm_up=1)
    assert "".join(calls) == "abccbaabc"
    assert [len(took) for took in seconds.values()] == [2, 2, 2]
    assert min(map(min, seconds.values())) >= 0


def test_the_start_of_training_is_what_alternates_without_the_warm_up():
    compared = {"after": [1, 2, 45, 90], "seconds": {"docmem": list(range(90))}}
    assert start(compared) == [1, 2]


def test_the_plain_plane_agrees_with_docmems_and_differs_from_point_to_point(
    trained: tuple[LanguageModel, Run],
):
    lm, run = trained
    plane, numbers = inference.plane(run, lm, points=4, sampled=5)
    assert numbers["difference"] < 1e-5
    assert len(numbers["plain_seconds"]) == 5
    assert plane.ce.std() > 0.01


def test_generation_alternates_with_the_bare_lm(trained: tuple[LanguageModel, Run]):
    lm, run = trained
    numbers = inference.generation(run, lm, pairs=2, new_tokens=3)
    assert [len(took) for took in numbers["seconds"].values()] == [2, 2]


def test_what_runs_on_a_gpu_reads_documents_of_ten_full_segments():
    """On the CPU, where bf16 is slow."""
    shape = TOY._replace(n_blocks=1)
    numbers = on_gpu(shape, 2, (1,), documents=2, device="cpu", dtype="float32")
    assert (numbers["documents"], numbers["rows"], numbers["longest"]) == (2, 10, 256)
    assert numbers["too_large"] == []
    assert all(math.isfinite(ce) for ce in numbers["positive_ce"]["docmem"])


def test_peak_memory_is_measured_in_a_process_of_its_own():
    assert 10e6 < peak_of("toy", "docmem") < 2e9


def test_parts_are_stored_one_by_one_and_the_page_tells_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["--fast", "--out", str(tmp_path), "--only", "plane", "generate"]) == 0
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    stored = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert list(stored) == ["plane", "generate"]
    met = {row.what: row.met for row in rows(stored)}
    assert met["the same, against one full forward a point"] in (True, False)
    assert met["generate under a document, against the base LM"] in (True, False)
    assert met["import docmem, beyond import torch"] is None
    assert "| not measured |" in page
    before = stored["plane"]
    assert main(["--fast", "--out", str(tmp_path), "--only", "embedded"]) == 0
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    stored = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert stored["plane"] == before
    assert page == render(stored)
    assert "| embedded | 4 of 4" in page
    assert "LoRA of rank 10" in page
    lines = [line for line in page.splitlines() if not line.startswith("|")]
    assert max(map(len, lines)) <= 100


def test_the_profile_accounts_for_all_of_an_epoch(
    lm: LanguageModel, config: TrainConfig, tmp_path: Path
):
    config = dataclasses.replace(config, num_epochs=3, save_dir=tmp_path / "run")
    numbers = breakdown(lm, DOCUMENTS, config, 2)
    assert sum(numbers["seconds"].values()) == pytest.approx(numbers["wall"])
    assert min(numbers["seconds"][kind] for kind in KINDS) > 0
    page = render({"profile": {"numbers": numbers, "machine": machine(), "date": "2026-01-01"}})
    share = numbers["seconds"]["matrix products"] / numbers["wall"]
    assert re.search(rf"\| matrix products +\| +[\d.]+ \| +{share:.0%} \|", page)


def test_what_cannot_be_run_is_refused(tmp_path: Path):
    with pytest.raises(SystemExit, match="no part 'planet'"):
        main(["--fast", "--out", str(tmp_path), "--only", "planet"])
    with pytest.raises(SystemExit, match="--out"):
        main(["--fast"])
    assert not list(tmp_path.iterdir())
