"""The paper's experiments: numbers are the runs', drawings are the numbers', claims follow."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json
from matplotlib.figure import Figure

from docmem.core.hook import attach
from docmem.documents import Document, segments
from docmem.errors import DocmemError
from docmem.evaluation.cached import first_segments
from docmem.evaluation.recall import completion, recognition
from docmem.experiments import load_study
from docmem.experiments.pool import FAST, SMALL
from docmem.experiments.studies import (
    continuity,
    layers,
    length,
    nonlinear,
    plane,
    recalling,
    seeds,
)
from docmem.plots.style import ACTIVATION_COLORS

Measured = Callable[[str], Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyPool]:
    """A pool whose runs are shared, and studies with small grids."""
    with pytest.MonkeyPatch.context() as patch:
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


def around(mean: float) -> list[float]:
    """One number for each of five seeds, close to a mean."""
    noise = np.random.default_rng(abs(round(1000 * mean))).normal(0, 0.001, 5)
    return (mean + noise).tolist()


NOT, OPEN = "does not hold", "inconclusive"


def test_nonlinear_counts_what_the_snapshots_hold(small: ToyPool, measured: Measured) -> None:
    run = small.run(1, **nonlinear.SETTINGS, key_internal_layers=3)
    assert len(run.load_memory().document_key) == 7  # three hidden layers, each with its activation
    results, taken = measured("nonlinear"), run.load_snapshots()
    assert results.epochs == [0, 1, 2]
    found = results.depths["3"]
    assert found.own == [run.load_history()[-1].positive_ce]
    for index, epoch in enumerate(results.epochs):
        selection = taken.document[taken.epochs.index(epoch)].tolist()
        is_open = [[value > 0.01 for value in row] for row in selection]
        assert found.active[0][index] == pytest.approx(np.mean(is_open))
        dead = [not any(column) for column in zip(*is_open, strict=True)]
        assert found.dead[0][index] == pytest.approx(np.mean(dead))
        norm = np.mean([math.hypot(*row) for row in selection])
        pairs = [math.dist(selection[i], selection[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found.l2[0][index] == pytest.approx(norm, rel=1e-4)
        assert found.ratio[0][index] == pytest.approx(np.mean(pairs) / norm, rel=1e-4)
    axes = panel(drawn("nonlinear", results), nonlinear.MEASURES["ratio"])
    assert axes.lines[2].get_ydata().tolist() == found.ratio[0]


def made_up_depths(linear: float, deeper: Sequence[float], own: float = 0.5) -> nonlinear.Results:
    """Five seeds whose measures end at `linear` for one layer and at `deeper` for two to four."""

    def depth(end: float) -> nonlinear.Depth:
        curves = [[0.0, value] for value in around(end)]
        return nonlinear.Depth(*[curves] * 5, own=[own] * 5)

    depths = zip(nonlinear.DEPTHS, map(depth, (linear, *deeper)), strict=True)
    return nonlinear.Results([0, 1], dict(depths))


@pytest.mark.parametrize(
    ("linear", "deeper", "own", "expected"),
    [
        (0.8, (0.5, 0.4, 0.3), 0.5, ["holds", "holds", NOT]),
        (0.3, (0.5, 0.6, 0.7), 0.5, [NOT, NOT, "holds"]),
        (0.5, (0.3, 0.5, 0.7), 0.5, [NOT] * 3),  # on average no difference
        (0.8, (0.5, 0.4, 0.3), 1.5, [OPEN] * 3),
    ],
)
def test_nonlinear_claims_follow_the_numbers(
    linear: float, deeper: Sequence[float], own: float, expected: list[str]
) -> None:
    assert verdicts("nonlinear", made_up_depths(linear, deeper, own)) == expected


def test_plane_reads_each_document_at_each_cell(small: ToyPool, measured: Measured) -> None:
    run = small.run(1)
    cache, memory = first_segments(run, small.lm, plane.TOKENS), run.load_memory()
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
    assert axes.get_title(loc="left").endswith("not learned")
    shown = np.array(axes.images[0].get_array())
    assert shown[-1, 0] == pytest.approx(math.exp(corner), rel=1e-4)
    less = tanh.grids.own[2] - 0.5  # as if it had been
    ce = (np.array(tanh.grids.ce) - less).tolist()
    learned = dataclasses.replace(tanh.grids, ce=ce, own=[one - less for one in tanh.grids.own])
    settings = results.settings | {"tanh": dataclasses.replace(tanh, grids=learned)}
    axes = panel(drawn("plane", dataclasses.replace(results, settings=settings)), "document 3")
    within = np.array(ce[2]) <= 1.5
    assert f"well {100 * within.mean():.0f} %" in axes.get_title(loc="left")
    outlines = [lines for lines in axes.collections if lines.get_paths()]
    assert bool(outlines) is (within.any() and not within.all())


def test_wells_have_width_contrast_and_height() -> None:
    own, origin = torch.tensor([[1.0, 9.0], [9.0, 2.0]]), torch.tensor([[6.0], [2.0]])
    square = torch.tensor([[0.8, 1.6, 1.9, 5.0, 5.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    found = plane.wells(torch.cat([own, origin, square], dim=1))
    assert found["within"] == pytest.approx((3 / 5 + 1) / 2)
    assert found["twice"] == pytest.approx((1 / 5 + 1) / 2)  # 0.8 + log 2 is below 1.6
    assert found["contrast"] == pytest.approx((1.9 - 1 + 0) / 2)
    assert found["origin"] == pytest.approx((6 - 1.9 + 0) / 2)
    assert found["own"] == pytest.approx(1.5)


def test_a_memory_is_compared_where_it_had_learned_as_much(
    small: ToyPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FAST, "num_epochs")
    monkeypatch.setitem(SMALL, ("tiny", "preset"), {"num_epochs": 8})
    few = small.run(1, hook_memory_dim=8, max_segments=1, num_epochs=4)
    long, found = small.run(1, max_segments=1), plane.as_learned(small, few)
    wanted, stopped = few.load_history()[-1].positive_ce, found.load_history()
    away = [abs(epoch.positive_ce - wanted) for epoch in long.load_history()]
    assert 1 < len(stopped) < 8
    assert abs(stopped[-1].positive_ce - wanted) == min(away)


def made_up_planes(own: float = 0.3, **values: dict[str, float]) -> plane.Results:
    """Five seeds of each setting with these values; `few` and `many` are 32 and all entries."""
    short = {plane.FEW: "few", plane.MANY: "many", **dict.fromkeys(plane.NONLINEAR, "deep")}

    def wells(name: str) -> plane.Wells:
        means = {"own": own, **values.get(short.get(name, name), {})}
        keys = ("within", "twice", "contrast", "origin", "own")
        return plane.Wells(**{key: around(means.get(key, 0.0)) for key in keys}, grids=None)

    return plane.Results({name: wells(name) for name in (*plane.SETTINGS, plane.FEW, plane.MANY)})


def test_plane_claims_follow_the_numbers() -> None:
    published = {
        "tanh": {"within": 0.05, "contrast": 3.0},
        "relu": {"within": 0.07},
        "sigmoid": {"contrast": 0.1},
        "deep": {"within": 0.4, "origin": 0.5},
        "few": {"within": 0.01},
        "many": {"within": 0.2},
    }
    results = made_up_planes(**published)
    assert verdicts("plane", results) == ["holds"] * 7
    assert plane.Plane().title(results) == plane.Plane.finding
    assert verdicts("plane", made_up_planes(own=1.5, **published)) == [OPEN] * 7
    wide = {**published, "tanh": {"within": 0.3, "contrast": 3.0}}
    assert verdicts("plane", made_up_planes(**wide))[:2] == ["partly", NOT]
    opposite = made_up_planes(
        tanh={"within": 0.5, "contrast": 0.5},
        relu={"within": 0.1},
        sigmoid={"contrast": 3.0},
        deep={"within": 0.5, "origin": -0.5},
        few={"within": 0.2},
        many={"within": 0.2},  # no difference
    )
    assert verdicts("plane", opposite) == [NOT] * 7
    assert plane.Plane().title(opposite) == plane.Plane.shown


def test_length_measures_the_last_selections(small: ToyPool, measured: Measured) -> None:
    documents = length.cut(small.documents(1), 1, 40)
    run = small.run(1, documents, key_activation="relu", max_segments=7)
    results = measured("length")
    found = results.activations["relu"]
    assert found.segments == [[1, 1, 1]]  # a fast pool reads no more
    assert found.own == [run.load_history()[-1].positive_ce]
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


def made_up_lengths(own: float = 0.5, seeds: int = 5, **sizes: list[float]) -> length.Results:
    """Documents of 1 to 4 segments; `main` and `other` are the main reading and all others."""
    every = dict.fromkeys(length.SIZES, sizes["other"]) | {length.MAIN: sizes["main"]}
    every |= dict.fromkeys((length.BY_DEFINITION, *length.CONTROLS), RISING)  # never count
    found = length.Lengths([[1, 2, 3, 4]] * seeds, [every] * seeds, [own] * seeds)
    return length.Results(dict.fromkeys(length.PUBLISHED, found))


RISING, HARDLY, FLAT = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 1.0, 3.0], [1.0, 1.0, 1.0, 1.0]
"""Sizes of documents of 1 to 4 segments: r = 1, 0.45 and none."""


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        (RISING, FLAT, ["holds"] * 4),
        (FLAT, RISING, [NOT] * 3 + ["holds"]),
        (HARDLY, HARDLY, [NOT] * 4),
    ],
)
def test_length_claims_follow_the_numbers(
    main: list[float], other: list[float], expected: list[str]
) -> None:
    results = made_up_lengths(main=main, other=other)
    assert 0.4 < np.corrcoef(RISING, HARDLY)[0, 1] < 0.5
    assert verdicts("length", results) == expected
    assert verdicts("length", made_up_lengths(own=1.5, main=main, other=other)) == [OPEN] * 4


def test_the_best_reading_of_a_seed_is_chosen_on_the_others() -> None:
    """Each seed has another reading that happens to go with length: none is found to."""
    keys = length.READINGS[:3]
    flat = dict.fromkeys((*length.SIZES, *length.CONTROLS), FLAT)
    sizes = [flat | {key: RISING} for key in keys]
    found = length.Lengths([[1, 2, 3, 4]] * 3, sizes, [0.5] * 3)
    assert length.best(length.Results({"tanh": found})) == [0.0] * 3
    assert length.best(made_up_lengths(seeds=1, main=FLAT, other=RISING)) == pytest.approx([1.0])


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
    [axes] = drawn("recalling", results).axes
    assert marks(axes) == [
        100 * seed / (results.tokens if key == "exact" else 1)
        for name in recalling.CONDITIONS
        for key in recalling.MEASURES
        for seed in getattr(results.conditions[name], key)
    ]


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


def test_recalling_claims_follow_the_numbers() -> None:
    def made_up(own: float, others: float, ce: float = 0.5) -> recalling.Results:
        means = dict.fromkeys(recalling.CONDITIONS, 0.0) | {"own": own, "all": others}
        scores = {name: recalling.Scores(*[around(mean)] * 5) for name, mean in means.items()}
        scores["own"] = recalling.Scores(around(20 * own), *[around(own)] * 4)
        return recalling.Results(32, scores, [ce] * 5)

    assert verdicts("recalling", made_up(0.9, 0.1)) == ["holds"] * 3
    assert verdicts("recalling", made_up(0.05, 0.9))[:2] == [NOT] * 2
    assert verdicts("recalling", made_up(0.5, 0.5))[:2] == [NOT] * 2  # no difference
    assert verdicts("recalling", made_up(0.9, 0.1, ce=1.5)) == [OPEN] * 3


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
    known = recognition(first_segments(run, small.lm, continuity.TOKENS), run.load_memory())
    assert np.allclose(line[:, 0], known.ce[:, 0], atol=1e-4)
    step = np.linalg.norm(starts[1] - starts[0]) / (line.shape[1] - 1)
    assert found.ce[0][-1] >= np.abs(np.diff(line)).max() / step * (1 - 1e-4)
    assert found.own == pytest.approx([known.own], rel=1e-4)
    axes = panel(drawn("continuity", results), "step, as a share of the line")
    (curve,) = [one for one in axes.lines if list(one.get_ydata()) == found.ce[0]]
    assert curve.get_color() == ACTIVATION_COLORS["relu"]


def test_a_jump_doubles_the_steepest_ratio() -> None:
    doc_reps = torch.linspace(0, 1, 9)[:, None]
    jump = (doc_reps > 0.4).float()
    whole, half = (continuity.steepest(jump[::s], doc_reps[::s]) for s in (2, 1))
    assert half == pytest.approx(2 * whole)
    slope = continuity.steepest(3 * doc_reps, doc_reps)
    assert slope == pytest.approx(3, rel=1e-4)


def test_continuity_claims_follow_the_numbers() -> None:
    def made_up(ratio: float, growth: float) -> continuity.Results:
        one, seen = [1.0] * 5, [ratio, *[0.9] * 4]
        found = continuity.Steepest(one, one, seen, seen, [[1.0, growth]] * 5, [0.5] * 5, [])
        return continuity.Results(dict.fromkeys(continuity.ACTIVATIONS, found))

    assert verdicts("continuity", made_up(0.9, 1.0)) == ["as it must be"] * 3
    assert verdicts("continuity", made_up(1.1, 2.0)) == ["violated"] * 3


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
            curves = [list(seed) for seed in zip(*map(around, curve), strict=True)]
            return layers.Layer(curves, [seconds] * 5)

        return layers.Results({"0": layer(slow, 2.0), "1": layer(fast, 1.0)}, 4.0)

    found = made_up([4.0, 3.0, 2.0, 1.0], [4.0, 3.5, 2.5, 1.5])
    assert found.at_equal_seconds()["0"] == around(3.0)
    assert found.at_equal_seconds()["1"] == found.at_equal_epochs()["1"]
    assert verdicts("layers", found) == ["holds", NOT]
    assert verdicts("layers", made_up([4.0, 1.0, 1.0, 2.0], [4.0, 3.5, 2.5, 1.5])) == [NOT, "holds"]


def test_of_many_layers_a_few_are_taken(small: ToyPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MOST_LAYERS", 2)
    assert list(layers.Layers().measure(small).layers) == ["0", "2"]


@pytest.mark.parametrize("name", seeds.VARIED)
def test_only_what_is_named_is_the_seeds(small: ToyPool, name: str) -> None:
    run, first, second = seeds.varied(small, name, 2), small.run(1), small.run(2)
    memory = run.load_memory()
    for thing, found, both in (
        ("documents", run.titles, [one.titles for one in (first, second)]),
        ("places", memory.doc_reps.tolist(),
         [one.load_memory().doc_reps.tolist() for one in (first, second)]),
        ("weights", run.config.seed, [1, 2]),
    ):  # fmt: skip
        assert both[0] != both[1]
        assert found == both[name in (thing, "all")], thing
    assert seeds.varied(small, name, 1).path == first.path


def test_seeds_measure_what_each_run_knows(small: ToyPool) -> None:
    pool = ToyPool(seeds=2, folder=small.folder)
    results = through_json("seeds", seeds.Seeds().measure(pool))
    for name in ("places", "all"):
        run = seeds.varied(pool, name, 2)
        cache, memory, found = (
            pool.cache_hidden_states(run),
            run.load_memory(),
            results.varied[name],
        )
        ce = recognition(cache, memory).ce
        others = ce[~torch.eye(3).bool()]
        assert found.own[1] == pytest.approx(ce.diagonal().mean().item(), rel=1e-4)
        assert found.other[1] == pytest.approx(others.mean().item(), rel=1e-4)
        assert found.lowest_pair[1] == pytest.approx(others.min().item(), rel=1e-4)
        assert found.completed[1] == pytest.approx(completion(cache, memory).own, nan_ok=True)
    axes = panel(drawn("seeds", results), seeds.MEASURES["own"])
    assert marks(axes) == [value for name in seeds.VARIED for value in results.varied[name].own]
    deviation = statistics.stdev(results.varied["places"].own)
    assert axes.get_xticklabels()[1].get_text() == f"places\nsd {deviation:.2f}"


def test_seeds_claims_follow_the_numbers() -> None:
    def made_up(**spreads: float) -> seeds.Results:
        """Five seeds as far from 1, on average, as these say."""
        around = {
            name: [1 + by * x for x in (1.0, 0.9, 1.1, -1.5, -1.5)] for name, by in spreads.items()
        }
        return seeds.Results({name: seeds.Known(*[around[name]] * 6) for name in seeds.VARIED})

    even = made_up(documents=0.01, places=0.01, weights=0.01, all=0.01)
    assert verdicts("seeds", even) == ["holds", "holds", NOT]
    two = seeds.Results({name: seeds.Known(*[[0.1, 0.2]] * 6) for name in seeds.VARIED})
    assert verdicts("seeds", two) == [OPEN] * 3  # equally far from their mean: one number
    wide = made_up(documents=1.0, places=1.0, weights=0.01, all=1.0)
    assert verdicts("seeds", wide) == [NOT, NOT, "holds"]
