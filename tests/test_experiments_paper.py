"""The paper's experiments: numbers are the runs', drawings are the numbers', claims follow."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json
from matplotlib.figure import Figure

from docmem.core.hook import attach
from docmem.documents import Document, segments
from docmem.errors import DocmemError
from docmem.evaluation.recall import recognition
from docmem.experiments import load_study
from docmem.experiments.drawing import shade
from docmem.experiments.studies import (
    continuity,
    guidance,
    layers,
    length,
    nonlinear,
    plane,
    recalling,
)

Measured = Callable[[str], Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyPool]:
    """A pool whose runs are shared, and studies with small grids."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guidance, "RANDOM_DOC_REPS", 2)
        patch.setattr(guidance, "ALPHAS", ("0", "1"))
        patch.setattr(guidance, "NEGATIVES", ("other", "zero"))
        patch.setattr(plane.Plane, "points", 3)
        patch.setattr(plane.Plane, "fine", 3)
        patch.setattr(continuity.Continuity, "points", 2**continuity.HALVINGS + 1)
        yield ToyPool(folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def measured(small: ToyPool) -> Measured:
    """The results of a study by its name, through JSON; each is measured once."""

    @functools.cache
    def measured(name: str) -> Any:
        return through_json(name, load_study(name).measure(small))

    return measured


def panel(figure: Figure, label: str) -> Any:
    """The Axes with this label along either axis."""
    (found,) = [a for a in figure.axes if label in (a.get_ylabel(), a.get_xlabel())]
    return found


def verdicts(name: str, results: Any) -> list[str]:
    """The verdicts of a study's claims."""
    return [claim.verdict for claim in load_study(name).claims(results)]


def test_nonlinear_counts_what_the_snapshots_hold(small: ToyPool, measured: Measured) -> None:
    run = small.run(1, **nonlinear.SETTINGS, key_internal_layers=3)
    assert len(run.load_memory().document_key) == 7  # three hidden layers, each with its activation
    results = measured("nonlinear")
    assert results.epochs == run.load_snapshots().epochs
    found = results.depths["3"]
    for index, selection in enumerate(run.load_snapshots().document.tolist()):
        is_open = [[value > 0.01 for value in row] for row in selection]
        assert found.active[0][index] == pytest.approx(np.mean([sum(row) for row in is_open]))
        assert found.dead[0][index] == sum(not any(column) for column in zip(*is_open, strict=True))
        norm = np.mean([math.hypot(*row) for row in selection])
        pairs = [math.dist(selection[i], selection[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found.l2[0][index] == pytest.approx(norm, rel=1e-4)
        assert found.ratio[0][index] == pytest.approx(np.mean(pairs) / norm, rel=1e-4)
    axes = panel(drawn("nonlinear", results), nonlinear.MEASURES["ratio"])
    assert axes.lines[2].get_ydata().tolist() == found.ratio[0]


def made_up_depths(linear: float, deeper: float) -> nonlinear.Results:
    """Five seeds whose measures end at `linear` for one layer and at `deeper` for more."""

    def depth(end: float) -> nonlinear.Depth:
        curves = [[0.0, end + 0.01 * seed] for seed in range(5)]
        return nonlinear.Depth(curves, curves, curves, curves, curves)

    depths = {layers: depth(linear if layers == "1" else deeper) for layers in nonlinear.DEPTHS}
    return nonlinear.Results([0, 1], 16, depths)


def test_nonlinear_claims_go_both_ways() -> None:
    assert verdicts("nonlinear", made_up_depths(2.0, 1.0)) == ["holds", "holds", "not"]
    assert verdicts("nonlinear", made_up_depths(1.0, 2.0)) == ["not", "not", "holds"]


def test_nonlinear_says_where_deeper_ones_catch_up() -> None:
    early = made_up_depths(2.0, 1.0)
    late = {
        name: replace(depth, ratio=[[*curve[1:], 1.0] for curve in depth.ratio])
        for name, depth in early.depths.items()
    }
    claim = nonlinear.Nonlinear().claims(replace(early, depths=late))[1]
    assert claim.verdict == "not"
    assert claim.why.startswith("After epoch 0 it does against each depth")


def test_plane_reads_each_document_at_each_cell(small: ToyPool, measured: Measured) -> None:
    run = small.run(1, key_activation="tanh")
    cache, memory = small.cache_hidden_states(run), run.load_memory()
    results = measured("plane")
    tanh = results.settings["tanh"]
    own = recognition(cache, memory).ce.diagonal().tolist()
    assert tanh.grids.own == pytest.approx(own, rel=1e-4)
    with torch.no_grad():
        # Document 3, up 1, across -1: the last row, the first column.
        corner = cache.cross_entropies(2, memory, torch.tensor([[-1.0, 1.0]])).item()
    assert tanh.grids.ce[2][-1][0] == pytest.approx(corner, rel=1e-4)
    assert tanh.grids.fine[2][-1][0] == pytest.approx(corner, rel=1e-4)
    axes = panel(drawn("plane", results), "document 3")
    texts = {text.get_position(): float(text.get_text()) for text in axes.texts}
    assert texts[0, 2] == pytest.approx(min(math.exp(corner), plane.HIGHEST), rel=0.02)


def test_wells_have_width_contrast_and_height() -> None:
    own, origin = torch.tensor([[1.0, 9.0], [9.0, 2.0]]), torch.tensor([[6.0], [2.0]])
    square = torch.tensor([[1.5, 2.5, 5.0, 5.0, 5.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    found = plane.wells(torch.cat([own, origin, square], dim=1))
    assert found["within"] == pytest.approx((1 / 5 + 1) / 2)
    assert found["half"] == pytest.approx((2 / 5 + 1) / 2)
    assert found["contrast"] == pytest.approx((4 + 0) / 2)
    assert found["origin"] == pytest.approx((1 + 0) / 2)


def made_up_planes(**values: dict[str, float]) -> plane.Results:
    """Three seeds of each setting with these values, and a little more from seed to seed."""
    short = {plane.FEWER: "fewer", **dict.fromkeys(plane.NONLINEAR, "deep")}
    keys = ("within", "half", "contrast", "origin")

    def wells(name: str) -> plane.Wells:
        means = values[short.get(name, name)]
        seeds = {key: [means.get(key, 0.0) + 0.001 * seed for seed in range(3)] for key in keys}
        return plane.Wells(**seeds, grids=None)

    return plane.Results({name: wells(name) for name in plane.SETTINGS})


def test_plane_claims_go_both_ways() -> None:
    published = made_up_planes(
        tanh={"within": 0.05, "half": 0.1, "contrast": 3.0, "origin": 0.0},
        sigmoid={"within": 0.9, "half": 0.3, "contrast": 0.1, "origin": 0.0},
        deep={"within": 0.4, "half": 0.4, "contrast": 3.0, "origin": 0.5},
        fewer={"within": 0.01},
    )
    assert verdicts("plane", published) == ["holds"] * 4
    wide = {
        "tanh": {"within": 0.5, "half": 0.4, "contrast": 0.5, "origin": 0.0},
        "sigmoid": {"within": 0.1, "half": 0.3, "contrast": 3.0, "origin": 0.0},
        "deep": {"within": 0.1, "half": 0.1, "contrast": 3.0, "origin": -0.5},
    }
    opposite = made_up_planes(**wide, fewer={"within": 0.5})
    assert verdicts("plane", opposite) == ["not"] * 4
    claims = plane.Plane().claims
    assert claims(published)[0].found == claims(published)[0].ours
    assert claims(opposite)[0].why.startswith("Fewer entries do not narrow it: with 32")
    narrower = made_up_planes(**wide, fewer={"within": 0.3})
    assert claims(narrower)[0].why.startswith("Fewer entries narrow it: with 32")


def test_length_measures_the_last_selections(small: ToyPool, measured: Measured) -> None:
    run = small.run(1, key_activation="relu")
    results = measured("length")
    found = results.whole["relu"]
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
            assert found.sizes[0][key][index] == pytest.approx(expected, rel=1e-4), key
    axes = drawn("length", results).axes[list(length.PUBLISHED).index("relu")]
    assert marks(axes) == found.sizes[0][length.MAIN]


def test_correlation_is_pearsons_and_0_of_a_constant() -> None:
    assert length.correlation([1, 2, 3], [2, 4, 6.1]) == pytest.approx(1, abs=1e-3)
    assert length.correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert length.correlation([1, 2, 3], [5, 5, 5]) == 0.0


RISING, HARDLY, FLAT = [1.0, 2.0, 3.0], [1.0, 3.0, 1.8], [1.0, 1.0, 1.0]
"""Sizes of documents of 1, 2 and 3 segments: r = 1, 0.4 and none."""


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        (RISING, FLAT, ["holds"] * 2),
        (FLAT, RISING, ["not", "holds"]),
        (HARDLY, HARDLY, ["not"] * 2),
    ],
)
def test_length_claims_go_both_ways(
    main: list[float], other: list[float], expected: list[str]
) -> None:
    sizes = {key: other for key in length.SIZES} | {length.MAIN: main}
    sizes |= dict.fromkeys((length.BY_DEFINITION, *length.CONTROLS), RISING)  # never count
    seeds = length.Lengths([[1, 2, 3]] * 2, [sizes] * 2, [4.0] * 2)
    assert 0.3 < length.correlation([1, 2, 3], HARDLY) < 0.5
    part = dict.fromkeys(length.PUBLISHED, seeds)
    assert verdicts("length", length.Results(part, part)) == expected * 2


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


def test_recalling_counts_tokens_before_the_first_error(small: ToyPool, measured: Measured) -> None:
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
    results = measured("recalling")
    assert results.conditions["own"].exact[0] == pytest.approx(np.mean(lengths))
    axes = panel(drawn("recalling", results), recalling.MEASURES["rouge1"])
    expected = [seed for name in recalling.CONDITIONS for seed in results.conditions[name].rouge1]
    assert marks(axes) == expected


def test_conditions_differ_by_the_memory_alone(small: ToyPool) -> None:
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


def test_scores_without_rouge_score_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
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
    def made_up(own: float, others: float) -> recalling.Results:
        def scores(mean: float) -> recalling.Scores:
            return recalling.Scores(*[[mean + 0.001 * seed for seed in range(3)]] * 5)

        conditions = {name: scores(others) for name in recalling.CONDITIONS}
        return recalling.Results(32, {**conditions, "own": scores(own)})

    assert verdicts("recalling", made_up(0.9, 0.1)) == ["holds"] * 3
    assert verdicts("recalling", made_up(0.1, 0.9)) == ["not"] * 3


def test_continuity_never_exceeds_the_singular_value(small: ToyPool, measured: Measured) -> None:
    run = small.run(1, key_activation="relu")
    weight = run.load_memory().document_key.weight.detach().numpy()
    results = measured("continuity")
    found = results.activations["relu"]
    assert found.exact == pytest.approx([np.linalg.svd(weight)[1][0]], rel=1e-5)
    starts = run.load_memory().doc_reps.numpy()
    ratios = [
        np.linalg.norm(weight @ (end - start)) / np.linalg.norm(end - start)
        for start, end in zip(starts, np.roll(starts, -1, 0), strict=True)
    ]
    # Along a line a linear g changes evenly, so its ratio is that of the two ends.
    assert found.g == pytest.approx([max(ratios)], rel=1e-3)
    line = np.array(found.line)
    assert np.allclose(
        line[:, 0],
        recognition(small.cache_hidden_states(run), run.load_memory()).ce[:, 0],
        atol=1e-4,
    )
    step = np.linalg.norm(starts[1] - starts[0]) / (line.shape[1] - 1)
    assert found.ce[0][-1] >= np.abs(np.diff(line)).max() / step * (1 - 1e-4)
    axes = panel(drawn("continuity", results), "step, as a share of the line")
    (curve,) = [one for one in axes.lines if list(one.get_ydata()) == found.ce[0]]
    assert curve.get_color() == shade(list(results.activations).index("relu"), 3)


def test_a_jump_doubles_the_steepest_ratio() -> None:
    doc_reps = torch.linspace(0, 1, 9)[:, None]
    jump = (doc_reps > 0.4).float()
    whole, half = (continuity.steepest(jump[::s], doc_reps[::s]) for s in (2, 1))
    assert half == pytest.approx(2 * whole)
    slope = continuity.steepest(3 * doc_reps, doc_reps)
    assert slope == pytest.approx(3, rel=1e-4)


def test_continuity_claims_go_both_ways() -> None:
    def made_up(ratio: float, growth: float) -> continuity.Results:
        one, seen = [1.0, 1.0], [ratio, ratio]
        found = continuity.Steepest(one, one, seen, seen, [[1.0, growth]] * 2, [])
        return continuity.Results(dict.fromkeys(continuity.ACTIVATIONS, found))

    assert verdicts("continuity", made_up(0.9, 1.0)) == ["holds"] * 3
    assert verdicts("continuity", made_up(1.1, 2.0)) == ["not"] * 3


def test_guidance_reads_what_its_runs_know(small: ToyPool, measured: Measured) -> None:
    results = measured("guidance")
    run = small.run(1, guidance=0.0)
    cache, memory = small.cache_hidden_states(run), run.load_memory()
    none = results.weights["0"]
    ce = recognition(cache, memory).ce
    assert none.own == pytest.approx([ce.trace().item() / 3], rel=1e-4)
    assert none.other == pytest.approx([(ce.sum() - ce.trace()).item() / 6], rel=1e-4)
    assert none.gap == pytest.approx([none.other[0] - none.own[0]])
    with torch.no_grad():
        origin = [cache.cross_entropies(n, memory, torch.zeros(1, 2)).item() for n in range(3)]
    assert none.origin == pytest.approx([np.mean(origin)], rel=1e-4)
    # The setting that is changed nowhere is one run.
    shared = results.weights["1"]
    assert shared == results.negatives["other"] == results.forms["squared"]
    assert results.negatives["zero"] != shared
    expected = [
        getattr(results.weights[alpha], key)[0]
        for key in guidance.DOC_REPS
        for alpha in guidance.ALPHAS
    ]
    assert marks(drawn("guidance", results).axes[0]) == expected


def test_guidance_claims_go_both_ways() -> None:
    def made_up(guided: dict[str, float], plain: dict[str, float], form: float) -> guidance.Results:
        def known(values: dict[str, float]) -> guidance.Known:
            seeds = {
                key: [value + 0.001 * seed for seed in (1, 2)] for key, value in values.items()
            }
            return guidance.Known(**seeds, random=[], recognised=[10] * 2, continued_own=[])

        half = {**guided, "own": guided["own"] * 2}
        return guidance.Results(
            4.5,
            {"0": known(plain), "0.1": known(guided), "0.5": known(half), "1": known(guided)},
            {"other": known(guided), **dict.fromkeys(("random", "zero", "perturb"), known(plain))},
            {"squared": known(guided),
             "absolute": known({key: value + form for key, value in guided.items()})},
        )  # fmt: skip

    good = {"own": 0.5, "other": 4.0, "origin": 4.0, "continued_other": 0.1}
    bad = {"own": 0.5, "other": 2.0, "origin": 1.0, "continued_other": 0.9}
    assert verdicts("guidance", made_up(good, bad, 0.0)) == ["holds"] * 6
    opposite = made_up({**bad, "own": -0.5}, {**good, "own": -0.5}, 1.0)
    assert verdicts("guidance", opposite) == ["not"] * 6
    assert guidance.Guidance().claims(opposite)[4].why == "Clearly above it: random, zero, perturb"


def test_layers_keep_each_history(small: ToyPool, measured: Measured) -> None:
    results = measured("layers")
    run = small.run(1, hook_memory_layer=1)
    found = results.layers["1"]
    assert found.curve == [[epoch.positive_ce for epoch in run.load_history()]]
    last = results.layers["2"]
    assert last.curve == [[epoch.positive_ce for epoch in small.run(1).load_history()]]
    assert results.budget_s == pytest.approx(2 * last.epoch_s[0])
    axes = panel(drawn("layers", results), "epoch")
    assert axes.lines[1].get_ydata().tolist() == found.curve[0]


def test_as_many_seconds_are_fewer_epochs_of_a_slower_layer() -> None:
    def made_up(slow: list[float], fast: list[float]) -> layers.Results:
        def layer(curve: list[float], seconds: float) -> layers.Layer:
            curves = [[value + more for value in curve] for more in (0, 0.001)]
            return layers.Layer(curves, [seconds, seconds + 0.001])

        return layers.Results({"0": layer(slow, 2.0), "1": layer(fast, 1.0)}, 4.0)

    found = made_up([4.0, 3.0, 2.0, 1.0], [4.0, 3.5, 2.5, 1.5])
    assert found.at_equal_seconds()["0"] == [3.0, 3.001]
    assert found.at_equal_seconds()["1"] == found.at_equal_epochs()["1"]
    assert verdicts("layers", found) == ["holds", "not"]
    assert verdicts("layers", made_up([4.0, 1.0, 1.0, 2.0], [4.0, 3.5, 2.5, 1.5])) == [
        "not", "holds",
    ]  # fmt: skip
