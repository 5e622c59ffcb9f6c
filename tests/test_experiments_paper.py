"""The paper's experiments: numbers are the runs', drawings are the numbers', claims follow."""

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from drawn import drawn, marks
from matplotlib.figure import Figure

from docmem.core.hook import attach
from docmem.documents import Document, segments
from docmem.errors import DocmemError
from docmem.evaluation.recall import recognition
from docmem.experiments import experiment, pool
from docmem.experiments import stats as paired
from docmem.experiments.pool import RunPool
from docmem.experiments.studies import (
    continuity,
    guidance,
    layers,
    length,
    nonlinear,
    plane,
    recalling,
)

MINE = ("plane", "length", "nonlinear", "recalling", "continuity", "guidance", "layers")
TWO_SEEDS = ("recalling",)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPool]:
    """A laboratory for tests, with short segments and few entries; its runs are shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "FAST", {**pool.FAST, "segment_length": 40, "hook_memory_dim": 16})
        patch.setattr(plane, "POINTS", 3)
        patch.setattr(continuity, "POINTS", 2**continuity.HALVINGS + 1)
        yield RunPool(fast=True, seeds=1, folder=tmp_path_factory.mktemp("runs"))


def seeds_of(small: RunPool, name: str) -> RunPool:
    """The laboratory with as many seeds as the experiment is tested with; the LM is shared."""
    if name not in TWO_SEEDS:
        return small
    two = RunPool(fast=True, seeds=2, folder=small.folder)
    two.__dict__["lm"] = small.lm
    return two


@pytest.fixture(scope="module")
def results(small: RunPool) -> dict[str, Any]:
    """The numbers of every experiment, through JSON."""
    measured = {name: experiment(name).measure(seeds_of(small, name)) for name in MINE}
    return json.loads(json.dumps(measured, allow_nan=False))


def panel(figure: Figure, label: str) -> Any:
    """The Axes with this label along either axis."""
    (found,) = [a for a in figure.axes if label in (a.get_ylabel(), a.get_xlabel())]
    return found


@pytest.mark.parametrize("name", MINE)
def test_drawn_from_json_alone_with_claims(name: str, results: dict[str, Any]) -> None:
    before = copy.deepcopy(results[name])
    figure = drawn(name, results[name])
    assert results[name] == before
    assert "what was trained" in figure.texts[-1].get_text().replace("\n", " ")
    module = experiment(name)
    assert module.QUESTION.endswith("?")
    assert len(module.ALT) > 100
    for claim in module.claims(results[name]):
        assert claim.verdict in ("holds", "partly", "not")
        assert "nan" not in claim.ours


def test_nonlinear_counts_what_the_snapshots_hold(small: RunPool, results: dict[str, Any]) -> None:
    run = small.run(
        1, **nonlinear.SETTINGS, document_key_module_type="nonlinear", key_internal_layers=3
    )
    assert len(run.load_memory().document_key) == 7  # three hidden layers, each with its activation
    numbers = results["nonlinear"]
    assert numbers["epochs"] == run.load_snapshots().epochs
    (found,) = numbers["3"]
    for index, selection in enumerate(run.load_snapshots().document.tolist()):
        is_open = [[value > 0.01 for value in row] for row in selection]
        assert found["active"][index] == pytest.approx(np.mean([sum(row) for row in is_open]))
        assert found["dead"][index] == sum(not any(column) for column in zip(*is_open, strict=True))
        norm = np.mean([math.hypot(*row) for row in selection])
        pairs = [math.dist(selection[i], selection[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found["l2"][index] == pytest.approx(norm, rel=1e-4)
        assert found["ratio"][index] == pytest.approx(np.mean(pairs) / norm, rel=1e-4)
    axes = panel(drawn("nonlinear", numbers), nonlinear.MEASURES["ratio"])
    assert axes.lines[2].get_ydata().tolist() == found["ratio"]


def made_up_depths(linear: float, deeper: float) -> dict[str, Any]:
    """Five seeds whose measures end at `linear` for one layer and at `deeper` for more."""
    seeds = {
        layers: [
            {key: [0.0, (linear if layers == "1" else deeper) + 0.01 * seed]
             for key in nonlinear.MEASURES}
            for seed in range(5)
        ]
        for layers in nonlinear.LAYERS
    }  # fmt: skip
    return {"epochs": [0, 1], "entries": 16, **seeds}


def test_nonlinear_claims_go_both_ways() -> None:
    verdicts = [claim.verdict for claim in nonlinear.claims(made_up_depths(2.0, 1.0))]
    assert verdicts == ["holds", "holds", "not"]
    verdicts = [claim.verdict for claim in nonlinear.claims(made_up_depths(1.0, 2.0))]
    assert verdicts == ["not", "not", "holds"]


def test_plane_reads_each_document_at_each_cell(small: RunPool, results: dict[str, Any]) -> None:
    run = small.run(1, key_activation="tanh")
    cache, memory = small.cache_hidden_states(run), run.load_memory()
    numbers = results["plane"]
    (seed,) = numbers["tanh"]["seeds"]
    assert seed["own"] == pytest.approx(recognition(cache, memory).own, rel=1e-4)
    with torch.no_grad():
        # Document 3, up 1, across -1: the last row, the first column.
        corner = cache.cross_entropies(2, memory, torch.tensor([[-1.0, 1.0]])).item()
    assert numbers["tanh"]["ce"][2][-1][0] == pytest.approx(corner, rel=1e-4)
    assert numbers["tanh"]["fine"]["ce"][2][-1][0] == pytest.approx(corner, rel=1e-4)
    axes = panel(drawn("plane", numbers), "document 3")
    texts = {text.get_position(): float(text.get_text()) for text in axes.texts}
    assert texts[0, 2] == pytest.approx(min(math.exp(corner), plane.HIGHEST), rel=0.02)


def test_wells_are_as_wide_and_deep_as_they_are() -> None:
    own, origin = torch.tensor([[1.0, 9.0], [9.0, 2.0]]), torch.tensor([[6.0], [2.0]])
    square = torch.tensor([[1.5, 2.5, 5.0, 5.0, 5.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    found = plane.wells(torch.cat([own, origin, square], dim=1))
    assert found["within"] == pytest.approx((1 / 5 + 1) / 2)
    assert found["half"] == pytest.approx((2 / 5 + 1) / 2)
    assert found["contrast"] == pytest.approx((4 + 0) / 2)
    assert found["origin"] == pytest.approx((1 + 0) / 2)


def made_up_planes(**values: dict[str, float]) -> dict[str, Any]:
    """Three seeds of each setting with these values, and a little more from seed to seed."""
    short = {plane.FEWER: "fewer", **dict.fromkeys(plane.NONLINEAR, "deep")}
    return {
        name: {"seeds": [
            {key: value + 0.001 * seed for key, value in values[short.get(name, name)].items()}
            for seed in range(3)
        ]}
        for name in plane.TESTED
    }  # fmt: skip


def test_plane_claims_go_both_ways() -> None:
    published = made_up_planes(
        tanh={"within": 0.05, "half": 0.1, "contrast": 3.0, "origin": 0.0},
        sigmoid={"within": 0.9, "half": 0.3, "contrast": 0.1, "origin": 0.0},
        deep={"within": 0.4, "half": 0.4, "contrast": 3.0, "origin": 0.5},
        fewer={"within": 0.01},
    )
    assert [claim.verdict for claim in plane.claims(published)] == ["holds"] * 4
    opposite = made_up_planes(
        tanh={"within": 0.5, "half": 0.4, "contrast": 0.5, "origin": 0.0},
        sigmoid={"within": 0.1, "half": 0.3, "contrast": 3.0, "origin": 0.0},
        deep={"within": 0.1, "half": 0.1, "contrast": 3.0, "origin": -0.5},
        fewer={"within": 0.5},
    )
    assert [claim.verdict for claim in plane.claims(opposite)] == ["not"] * 4
    assert plane.claims(published)[0].why == ""
    assert plane.claims(opposite)[0].why.startswith("Fewer entries do not narrow it: with 32")
    opposite[plane.FEWER]["seeds"] = [{"within": 0.3 + 0.001 * seed} for seed in range(3)]
    assert plane.claims(opposite)[0].why.startswith("Fewer entries narrow it: with 32")


def test_length_measures_the_last_selections(small: RunPool, results: dict[str, Any]) -> None:
    run = small.run(1, key_activation="relu")
    (seed,) = results["length"]["whole"]["relu"]
    token, document = run.load_snapshots().token[-1], run.load_snapshots().document[-1]
    for index, (asked, opened) in enumerate(zip(token.tolist(), document.tolist(), strict=True)):
        product = [a * b for a, b in zip(asked, opened, strict=True)]
        tokens = int(small.cache_hidden_states(run).batches[index].attention_mask.sum())
        for key, expected in {
            "k_doc, active": sum(abs(value) > 0.01 for value in opened),
            "k_doc, L1": sum(map(abs, opened)),
            "product, L2": math.hypot(*product),
            "product × tokens": sum(map(abs, product)) * tokens,
            "DocRep, L2": math.hypot(*run.load_memory().doc_reps[index].tolist()),
        }.items():
            assert seed["sizes"][key][index] == pytest.approx(expected, rel=1e-4), key
    axes = drawn("length", results["length"]).axes[list(length.PUBLISHED).index("relu")]
    assert marks(axes) == seed["sizes"][length.MAIN]


def test_correlation_is_pearsons_and_0_of_a_constant() -> None:
    assert length.correlation([1, 2, 3], [2, 4, 6.1]) == pytest.approx(1, abs=1e-3)
    assert length.correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert length.correlation([1, 2, 3], [5, 5, 5]) == 0.0


@pytest.mark.parametrize(("r", "other", "expected"), [(0.9, 0.0, ["holds"] * 2),
                                                       (0.0, 0.9, ["not", "holds"]),
                                                       (0.2, 0.2, ["not"] * 2)])  # fmt: skip
def test_length_claims_go_both_ways(r: float, other: float, expected: list[str]) -> None:
    correlations = {key: other for key in length.SIZES} | {length.MAIN: r}
    correlations |= dict.fromkeys((length.BY_DEFINITION, *length.CONTROLS), 1.0)  # never count
    seed = {"correlation": correlations, "own": 4.0}
    numbers = {part: {name: [seed] * 2 for name in length.PUBLISHED} for part in length.PARTS}
    assert [claim.verdict for claim in length.claims(numbers)] == expected * 2


def test_documents_are_cut_to_the_lengths_that_a_seed_deals() -> None:
    texts = [" ".join(f"{title}{n}" for n in range(60)) for title in "abcdefghij"]
    whole = [Document(text[0], text) for text in texts]
    first, second = (length.cut(whole, seed, 10) for seed in (1, 2))
    assert first == length.cut(whole, 1, 10)
    for shorter in (first, second):
        counts = [len(segments(document.text, 10)) for document in shorter]
        assert sorted(counts) == sorted(length.LENGTHS)
        for document, before in zip(shorter, whole, strict=True):
            assert document.title == before.title
            assert before.text.startswith(document.text)
    assert [len(one.text) for one in first] != [len(one.text) for one in second]
    short = Document("short", "three words only")
    assert length.cut([short], 1, 10) == [short]


def test_recalling_counts_tokens_before_the_first_error(
    small: RunPool, results: dict[str, Any]
) -> None:
    run = small.run(1)
    cache = small.cache_hidden_states(run)
    ids, wanted, doc_ids = recalling.prompts(cache, recalling.PROMPT, recalling.NEW)
    lengths = []
    with attach(cache.lm.model, run.load_memory()) as hooked:
        for prompt, truth, doc_id in zip(ids, wanted, doc_ids.tolist(), strict=True):
            with hooked.document(doc_id):
                options = {"max_new_tokens": recalling.NEW, "min_new_tokens": recalling.NEW}
                rows = hooked.model.generate(
                    input_ids=prompt[None], attention_mask=torch.ones_like(prompt[None]),
                    do_sample=False, pad_token_id=0, **options,
                )[0, len(prompt) :]  # fmt: skip
            wrong = [n for n in range(recalling.NEW) if rows[n] != truth[n]]
            lengths.append(wrong[0] if wrong else recalling.NEW)
    numbers = results["recalling"]
    assert numbers["own"][0]["exact"] == pytest.approx(np.mean(lengths))
    axes = panel(drawn("recalling", numbers), recalling.MEASURES["rouge1"])
    expected = [seed["rouge1"] for name in recalling.CONDITIONS for seed in numbers[name]]
    assert marks(axes) == expected


def test_conditions_differ_by_the_memory_alone(small: RunPool) -> None:
    run = small.run(1)
    cache = small.cache_hidden_states(run)
    tokenizer, model = cache.lm.tokenizer, cache.lm.model
    ids, _, doc_ids = recalling.prompts(cache, recalling.PROMPT, recalling.NEW)
    texts = {
        name: tokenizer.batch_decode(rows, skip_special_tokens=True)
        for name, rows in recalling.continuations(cache, run, ids, doc_ids).items()
    }
    with attach(model, run.load_memory()) as hooked:
        for name, document in (("all", None), ("another's", (int(doc_ids[0]) + 1) % 3)):
            with hooked.document(document):
                one = model.generate(
                    input_ids=ids[:1], attention_mask=torch.ones_like(ids[:1]), pad_token_id=0,
                    max_new_tokens=recalling.NEW, min_new_tokens=recalling.NEW, do_sample=False,
                )[:, ids.shape[1] :]  # fmt: skip
            (text,) = tokenizer.batch_decode(one, skip_special_tokens=True)
            assert texts[name][0] == text
    assert len({tuple(each) for each in texts.values()}) == len(recalling.CONDITIONS)


def test_scores_need_a_library_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    recalling.scorer.cache_clear()
    monkeypatch.setattr(recalling.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DocmemError, match="pip install rouge-score"):
        recalling.words_of("a heron")


def test_distinctive_rouge_scores_only_words_no_other_document_uses() -> None:
    documents = [Document("A", "The heron, the reed"), Document("B", "the reed and an engine")]
    own, other = recalling.distinctive_words(documents)
    assert (own, other) == ({"heron"}, {"and", "an", "engine"})
    assert recalling.rouge("a heron in the reed", "no reed, the heron", own)["distinctive"] == 1
    assert recalling.rouge("a heron in the reed", "a bird in the reed", own)["distinctive"] == 0
    assert "distinctive" not in recalling.rouge("the reed", "the heron", own)
    half = recalling.rouge("heron heron heron", "heron", own)["distinctive"]
    assert half == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3))


def test_recalling_claims_go_both_ways() -> None:
    def numbers(own: float, others: float) -> dict[str, Any]:
        return {
            name: [
                {key: (own if name == "own" else others) + 0.001 * seed
                 for key in recalling.MEASURES}
                for seed in range(3)
            ]
            for name in recalling.CONDITIONS
        } | {"tokens": 32}  # fmt: skip

    assert {claim.verdict for claim in recalling.claims(numbers(0.9, 0.1))} == {"holds"}
    assert {claim.verdict for claim in recalling.claims(numbers(0.1, 0.9))} == {"not"}


def test_continuity_never_exceeds_the_singular_value(
    small: RunPool, results: dict[str, Any]
) -> None:
    run = small.run(1, key_activation="relu")
    weight = run.load_memory().document_key.weight.detach().numpy()
    (seed,) = results["continuity"]["relu"]["seeds"]
    assert seed["exact"] == pytest.approx(np.linalg.svd(weight)[1][0], rel=1e-5)
    starts = run.load_memory().doc_reps.numpy()
    ratios = [
        np.linalg.norm(weight @ (end - start)) / np.linalg.norm(end - start)
        for start, end in zip(starts, np.roll(starts, -1, 0), strict=True)
    ]
    # Along a line a linear g changes evenly, so its ratio is that of the two ends.
    assert seed["g"] == pytest.approx(max(ratios), rel=1e-3)
    line = np.array(results["continuity"]["relu"]["line"])
    assert np.allclose(
        line[:, 0],
        recognition(small.cache_hidden_states(run), run.load_memory()).ce[:, 0],
        atol=1e-4,
    )
    step = np.linalg.norm(starts[1] - starts[0]) / (line.shape[1] - 1)
    assert seed["ce"][-1] >= np.abs(np.diff(line)).max() / step * (1 - 1e-4)
    axes = panel(drawn("continuity", results["continuity"]), "step, as a share of the line")
    assert axes.lines[1].get_ydata().tolist() == seed["ce"]


def test_a_jump_doubles_the_steepest_ratio() -> None:
    doc_reps = torch.linspace(0, 1, 9)[:, None]
    jump = (doc_reps > 0.4).float()
    whole, half = (continuity.steepest(jump[::s], doc_reps[::s]) for s in (2, 1))
    assert half == pytest.approx(2 * whole)
    slope = continuity.steepest(3 * doc_reps, doc_reps)
    assert slope == pytest.approx(3, rel=1e-4)


def test_continuity_claims_go_both_ways() -> None:
    def numbers(ratio: float, growth: float) -> dict[str, Any]:
        seed = {"exact": 1.0, "bound": 1.0, "g": ratio, "selection": ratio, "ce": [1.0, growth]}
        return {name: {"seeds": [seed] * 2} for name in continuity.ACTIVATIONS}

    assert {claim.verdict for claim in continuity.claims(numbers(0.9, 1.0))} == {"holds"}
    assert {claim.verdict for claim in continuity.claims(numbers(1.1, 2.0))} == {"not"}


def test_guidance_reads_what_its_runs_know(small: RunPool, results: dict[str, Any]) -> None:
    numbers = results["guidance"]
    run = small.run(1, guidance=0.0)
    cache, memory = small.cache_hidden_states(run), run.load_memory()
    (seed,) = numbers["weight α"]["0"]
    ce = recognition(cache, memory).ce
    assert seed["own"] == pytest.approx(ce.trace().item() / 3, rel=1e-4)
    assert seed["other"] == pytest.approx((ce.sum() - ce.trace()).item() / 6, rel=1e-4)
    with torch.no_grad():
        origin = [cache.cross_entropies(n, memory, torch.zeros(1, 2)).item() for n in range(3)]
    assert seed["origin"] == pytest.approx(np.mean(origin), rel=1e-4)
    # The setting that is changed nowhere is one run.
    shared = numbers["weight α"]["1"]
    assert shared == numbers["negative DocRep"]["other"] == numbers["form of the term"]["squared"]
    assert numbers["negative DocRep"]["zero"] != shared
    axes = drawn("guidance", numbers).axes[0]
    expected = [
        numbers["weight α"][a][0][k] for k in guidance.KINDS for a in ("0", "0.1", "0.5", "1")
    ]
    assert marks(axes) == expected


def test_guidance_claims_go_both_ways() -> None:
    def numbers(guided: dict[str, float], plain: dict[str, float], form: float) -> dict[str, Any]:
        def seeds(values: dict[str, float]) -> list[dict[str, float]]:
            return [{key: value + 0.001 * seed for key, value in values.items()} for seed in (1, 2)]

        half = {**guided, "own": guided["own"] * 2}
        return {
            "weight α": {"0": seeds(plain), "0.1": seeds(guided), "0.5": seeds(half),
                         "1": seeds(guided)},
            "negative DocRep": {"other": seeds(guided), "random": seeds(plain),
                                "zero": seeds(plain), "perturb": seeds(plain)},
            "form of the term": {"squared": seeds(guided),
                                 "absolute": seeds({k: v + form for k, v in guided.items()})},
        }  # fmt: skip

    good = {"own": 0.5, "other": 4.0, "origin": 4.0, "continued_other": 0.1, "recognised": 10}
    bad = {"own": 0.5, "other": 2.0, "origin": 1.0, "continued_other": 0.9, "recognised": 10}
    assert [c.verdict for c in guidance.claims(numbers(good, bad, 0.0))] == ["holds"] * 6
    claims = guidance.claims(numbers({**bad, "own": -0.5}, {**good, "own": -0.5}, 1.0))
    assert [claim.verdict for claim in claims] == ["not"] * 6
    assert claims[4].why == "Clearly above it: random, zero, perturb"


def test_layers_keep_each_blocks_history(small: RunPool, results: dict[str, Any]) -> None:
    blocks = results["layers"]["blocks"]
    run = small.run(1, hook_memory_layer=1)
    (seed,) = blocks["2"]
    assert seed["curve"] == [epoch.positive_ce for epoch in run.load_history()]
    assert seed["own"] == pytest.approx(
        recognition(small.cache_hidden_states(run), run.load_memory()).own, rel=1e-4
    )
    (last,) = blocks["4"]
    assert last["curve"] == [epoch.positive_ce for epoch in small.run(1).load_history()]
    assert results["layers"]["budget_s"] == pytest.approx(2 * last["epoch_s"])
    axes = panel(drawn("layers", results["layers"]), "epoch")
    assert axes.lines[1].get_ydata().tolist() == seed["curve"]


def test_as_many_seconds_are_fewer_epochs_of_a_slower_block() -> None:
    def numbers(slow: list[float], fast: list[float]) -> dict[str, Any]:
        seeds = {
            "1": [{"curve": [v + n for v in slow], "epoch_s": 2.0 + n} for n in (0, 0.001)],
            "2": [{"curve": [v + n for v in fast], "epoch_s": 1.0 + n} for n in (0, 0.001)],
        }
        return {"blocks": seeds, "budget_s": 4.0}

    found = numbers([4.0, 3.0, 2.0, 1.0], [4.0, 3.5, 2.5, 1.5])
    assert layers.at_equal_seconds(found, "1") == [3.0, 3.001]
    assert layers.at_equal_seconds(found, "2") == layers.at_equal_epochs(found, "2")
    assert [claim.verdict for claim in layers.claims(found)] == ["holds", "not"]
    found = numbers([4.0, 1.0, 1.0, 2.0], [4.0, 3.5, 2.5, 1.5])
    assert [claim.verdict for claim in layers.claims(found)] == ["not", "holds"]


def test_clearly_above_is_students_paired_test() -> None:
    assert not paired.clearly_above([5.0], [1.0])
    assert paired.clearly_above([2.0, 3.0, 4.0], [1.0, 2.1, 2.9])
    assert not paired.clearly_above([1.0, 2.1, 2.9], [2.0, 3.0, 4.0])
    assert not paired.clearly_above([2.0, 3.0, 4.0], [1.0, 5.0, 2.0])
    # Against scipy's, near the edge: mean 1, t = 2.5 is not enough of three, but of five.
    three = [1 - 1 / 2.5 * 3**0.5, 1.0, 1 + 1 / 2.5 * 3**0.5]
    assert not paired.clearly_above(three, [0.0] * 3)
    five = [1 + (n - 2) / 2.5 * 2**0.5 for n in range(5)]
    assert paired.clearly_above(five, [0.0] * 5)
