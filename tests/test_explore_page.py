"""docmem page: what is baked, and what the page's JavaScript computes of it, run by node."""

import base64
import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from node import run_node
from toys import DOCUMENTS, WIDTH, quick_config, toy_lm
from transformers.activations import ACT2FN

from docmem.cli.main import main
from docmem.core.config import MemoryConfig
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.attribution import BASE_LM, attribute
from docmem.evaluation.cached import first_segments, measure, measure_plane
from docmem.evaluation.continuations import continuations
from docmem.evaluation.recalled import Source
from docmem.explore import _baked
from docmem.explore._static import STATIC, joined
from docmem.explore.page import MODULES, write_page
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.generation import generate
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run
from docmem.training.train import train

pytestmark = pytest.mark.slow
TITLES = ['<b>$x$ & "quotes"', "風の島 🌊", "</script><script>alert(1)</script>"]
KEY_ACTIVATIONS = sorted({*ACT2FN, "swiglu"} - {"prelu", "xielu"})
SIZES: dict[str, Any] = {"points": 5, "text_points": 3}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return toy_lm()


@pytest.fixture(scope="module")
def runs(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A tanh and a relu run on three documents with the worst of titles."""
    documents = [Document(title, one.text) for title, one in zip(TITLES, DOCUMENTS, strict=True)]
    configs = [
        dataclasses.replace(
            quick_config(tmp_path_factory.mktemp(name) / "run"), key_activation=name, num_epochs=30
        )
        for name in ("tanh", "relu")
    ]
    return [train(config, lm=lm, documents=documents, progress=False) for config in configs]


@pytest.fixture(scope="module")
def page(lm: LanguageModel, runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of both runs; the toy's context is short."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_baked, "NEW_TOKENS", 8)
        patched.setattr(_baked, "EVERYDAY", "I bought bread.")
        path = write_page(runs, tmp_path_factory.mktemp("page") / "page.html", lm=lm, **SIZES)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def baked(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="baked">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["data"]), packed["type"])


def node(program: str, given: Any) -> Any:
    """What a program of the page's modules prints, given `given`."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node to run the page's JavaScript")
    text = (
        'import { readFileSync } from "node:fs";\n'
        f'import * as baked from "{(STATIC / "baked.js").as_uri()}";\n'
        f'import * as training from "{(STATIC / "training.js").as_uri()}";\n'
        'const given = JSON.parse(readFileSync(0, "utf8"));\n'
        f"process.stdout.write(JSON.stringify({program}));\n"
    )
    return run_node(found, text, given)


SELECT = """given.memories.map(({ generator, docReps }) =>
  docReps.map(baked.selectionOf(generator)).map((selection) => Array.from(selection)))"""


def test_page_computes_the_selection_of_every_activation_and_generator() -> None:
    shapes: list[dict[str, Any]] = [{"key_activation": name} for name in KEY_ACTIVATIONS]
    stacked = {"document_key_module_type": "nonlinear", "key_internal_dim": 7, "key_dim": 3}
    shapes += [
        {**stacked, "key_activation": outer, "key_internal_activation": inner,
         "key_internal_layers": layers}
        for outer, inner, layers in (
            ("swiglu", "gelu", 3), ("tanh", None, None), ("relu", "mish", 1),
        )
    ]  # fmt: skip
    memories, expected = [], []
    torch.manual_seed(0)
    for shape in shapes:
        memory = DocumentMemory(MemoryConfig(d_model=8, n_docs=2, memory_dim=6, **shape))
        for name, parameter in memory.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        doc_reps = 3 * torch.randn(5, memory.config.key_dim)
        memories.append({"generator": _baked.generator(memory), "docReps": doc_reps.tolist()})
        expected.append(memory.select(doc_reps).detach())
    for shape, got, wanted in zip(
        shapes, node(SELECT, {"memories": memories}), expected, strict=True
    ):
        torch.testing.assert_close(
            torch.tensor(got),
            wanted,
            atol=3e-6,
            rtol=3e-6,
            msg=lambda text, s=shape: f"{s}: {text}",
        )


def test_page_interpolates_the_map_as_the_package_does() -> None:
    torch.manual_seed(0)
    grid, axis = torch.randn(3, 5, 5), torch.linspace(-1.5, 1.5, 5)
    points = torch.cat([3 * torch.rand(20, 2) - 1.5, torch.tensor([[1.5, -1.5], [0.0, 0.75]])])
    wanted = torch.nn.functional.grid_sample(
        grid[None], points[None, None] / 1.5, align_corners=True
    )[0, :, 0].T
    got = node(
        "given.points.map((point) => baked.bilinear(given.grid, given.axis, point))",
        {"grid": grid.flatten().tolist(), "axis": axis.tolist(), "points": points.tolist()},
    )
    torch.testing.assert_close(torch.tensor(got), wanted, atol=1e-5, rtol=1e-5)


def test_page_says_which_documents_open_an_entry() -> None:
    selection = [0.1, 0.9, -0.8, 0.2, 0.0, 0.0]  # three documents, two entries
    got = node("[0, 1].map((entry) => training.openers(given, 2, entry))", selection)
    assert got == [[1], [0]]  # above half of the document's largest; the third opens nothing
    assert node("[-1, 0, 2.5, 9].map((e) => training.tickOf(given, e))", [0, 1, 2, 3]) == [
        0,
        0,
        2,
        3,
    ]


def test_modules_join_into_scripts_that_parse(tmp_path: Path) -> None:
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node to read the page's JavaScript")
    for names in (MODULES, ("draw.js", "plane.js")):
        path = tmp_path / "joined.mjs"
        path.write_text(joined(*names), encoding="utf-8")
        subprocess.run([found, "--check", path], check=True)
        assert not re.search(r"^import ", path.read_text(), re.M)


def test_page_holds_titles_as_text_and_asks_for_nothing(page: str, baked: dict[str, Any]) -> None:
    assert baked["memories"][0]["plane"]["scene"]["titles"] == TITLES
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "<b>$x$" not in page and "alert(1)</script>" not in page
    assert not re.search(r'(src|href)="(?!data:,|https://(arxiv|github))', page)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", page)
    main = page.split("<main>")[1].split("</main>")[0]
    essay = re.sub(r"<(figcaption|details|footer|pre)\b.*?</\1>", " ", main, flags=re.S)
    words = html.unescape(re.sub(r"<[^>]+>", " ", essay))
    assert 600 <= len(words.split()) <= 900
    assert "$" not in words.replace("$x$", "")


def test_page_holds_the_map_and_numbers_of_the_package(
    page: str, baked: dict[str, Any], runs: list[Run], lm: LanguageModel
) -> None:
    for run, memory in zip(runs, baked["memories"], strict=True):
        plane = measure_plane(run, lambda: lm, 5)
        assert memory["plane"]["axis"] == plane.axis.tolist()
        np.testing.assert_array_equal(unpacked(memory["plane"]["ce"]), plane.ce.numpy().ravel())
    known, shares, base = measure(runs[0], lambda: lm)
    text = re.sub(r"\s+", " ", page)
    assert (
        f"perplexity of {base.mean().exp():.1f} on average." in text
        or f"perplexity of {base.mean().exp():,.0f} on average." in text
    )
    assert f"recognises {known.recognised} of 3 documents" in text
    assert "The numbers in this text are those of the first, tanh." in text
    written = baked["memories"][0]["plane"]
    places = unpacked(written["written"][0])[:-3]  # the last are the documents' own
    assert len(places) == 9
    copied = [
        sum(len(piece) for piece, source in written["texts"][place] if source >= 0)
        / max(1, sum(len(piece) for piece, _ in written["texts"][place]))
        for place in places
    ]
    assert f"Over the whole map, {np.mean(copied):.0%}".replace("%", " %") in text
    assert f"address, {shares.own:.0%}".replace("%", " %") in text


def test_texts_at_the_documents_are_those_that_the_lm_writes(
    baked: dict[str, Any], runs: list[Run], lm: LanguageModel
) -> None:
    run, plane = runs[0], baked["memories"][0]["plane"]
    memory = run.load_memory()
    assert len(unpacked(plane["places"])) == 2 * (9 + 3)
    with attach(lm.model, memory, run.config.hook_memory_layer) as hooked:
        for prompt, written in zip(plane["prompts"], map(unpacked, plane["written"]), strict=True):
            for index in range(3):
                pieces = plane["texts"][written[9 + index]]
                expected = generate(hooked, lm.tokenizer, prompt, index, max_new_tokens=8)
                assert "".join(words for words, _ in pieces) == expected


def test_recall_and_passages_are_those_of_the_package(
    baked: dict[str, Any], runs: list[Run], lm: LanguageModel
) -> None:
    run, memory = runs[1], runs[1].load_memory()
    layer = run.config.hook_memory_layer
    shown = baked["memories"][1]["recall"][2][0]
    own, base = continuations(
        lm, memory, layer, run.documents[2], shown["prompt"],
        {"own": memory.doc_reps[2], "none": BASE_LM}, max_new_tokens=8,
    )  # fmt: skip
    for row, wanted in ((shown["rows"][0], own), (shown["rows"][3], base)):
        assert "".join(words for words, _ in row["pieces"]) == wanted.text
        assert row["losses"] == [round(loss, 2) for loss in wanted.losses.tolist()]
    passage = baked["memories"][1]["passages"][0]
    ce = {one.title: one.ce for one in attribute(lm, memory, layer, passage["text"])}
    assert passage["ce"] == [ce[title] for title in TITLES]
    assert passage["base"] == ce[BASE_LM]


def test_snapshots_are_baked_in_eight_bits_on_one_scale(
    baked: dict[str, Any], runs: list[Run]
) -> None:
    snapshots = runs[0].load_snapshots()
    training = baked["training"]["runs"][0]
    assert training["epochs"] == snapshots.epochs
    document = training["panels"][1]
    values = unpacked(document["values"]).reshape(snapshots.document.shape) / 127
    wanted = (snapshots.document / document["limit"]).clamp(-1, 1).numpy()
    np.testing.assert_allclose(values, wanted, atol=0.51 / 127)
    assert np.percentile(snapshots.document.abs(), 99.5) == pytest.approx(document["limit"])


@pytest.fixture
def longer(
    runs: list[Run], lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> tuple[DocumentMemory, dict[str, Any]]:
    """A memory with DocReps of four numbers, and what the page holds of its plane."""
    torch.manual_seed(0)
    memory = DocumentMemory(MemoryConfig(WIDTH, 3, memory_dim=24, key_dim=4), TITLES)
    monkeypatch.setattr(Run, "load_memory", lambda _: memory)
    plane = measure_plane(runs[0], lambda: lm, 3)
    monkeypatch.setattr(_baked, "NEW_TOKENS", 8)
    return memory, _baked.plane_of_run(_baked.Shown.of(runs[0], plane), lm, ["Cyclone"], 2)


def test_longer_doc_reps_are_shown_in_their_principal_plane(
    longer: tuple[DocumentMemory, dict[str, Any]],
) -> None:
    memory, shown = longer
    origin, axes = torch.tensor(shown["origin"]), torch.tensor(shown["axes"])
    back = origin + torch.tensor(shown["scene"]["points"]) @ axes
    torch.testing.assert_close(back, memory.doc_reps, atol=1e-5, rtol=1e-5)  # three span a plane


READ = """given.points.map(([x, y]) => {
  const { doc_rep, perplexity, measured } = new baked.BakedPlane(given.plane).read(x, y);
  return { doc_rep, perplexity, measured };
})"""


def test_a_document_off_the_plane_is_read_under_its_own_doc_rep(
    longer: tuple[DocumentMemory, dict[str, Any]], runs: list[Run], lm: LanguageModel
) -> None:
    memory, shown = longer
    expected = cross_entropies_at(first_segments(runs[0], lm), memory, memory.doc_reps)
    points = shown["scene"]["points"]
    own, beside = node(READ, {"plane": shown, "points": [points[1], [points[1][0], 0.01]]})
    assert own["doc_rep"] == pytest.approx(memory.doc_reps[1].tolist())
    assert own["perplexity"] == pytest.approx(expected[:, 1].exp().tolist(), rel=1e-4)
    assert beside["doc_rep"] != own["doc_rep"]
    assert own["measured"] and not beside["measured"]


def test_letters_count_as_any_documents_or_as_the_own_ones() -> None:
    pieces = [("abc ", 0), ("de", 1), ("f", -1)]
    assert [_baked.verbatim_letters(pieces, own) for own in (None, 0, 1)] == [5 / 6, 3 / 6, 2 / 6]


def test_ring_begins_where_most_of_the_own_document_is_recalled(
    baked: dict[str, Any], runs: list[Run]
) -> None:
    for memory in baked["memories"]:
        plane, n_docs = memory["plane"], len(runs[0].titles)
        at_home = unpacked(plane["written"][0])[-n_docs:]
        shares = [
            _baked.verbatim_letters(plane["texts"][text], own) for own, text in enumerate(at_home)
        ]
        assert plane["begin"] == shares.index(max(shares))


def test_what_only_repeats_the_prompt_is_word_for_word_in_none() -> None:
    prompt = "The storm reached the island"
    sources = [Source("0", "", f"{prompt} at night. It took the roofs away.")]
    text = f" and. {prompt}. It took the roofs. {prompt} at night"
    pieces = _baked.pieces_of(text, prompt, sources)
    marked = [words for words, source in pieces if source == 0]
    assert marked == ["It took the roofs", f"{prompt} at night"]
    assert "".join(words for words, _ in pieces) == text


def test_page_refuses_no_run_and_different_documents(
    runs: list[Run], trained: tuple[LanguageModel, Run], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "page.html"
    with pytest.raises(DocmemError, match="Name at least one run"):
        write_page([], out)
    with pytest.raises(DocmemError, match="different documents"):
        write_page([runs[0], trained[1]], out, lm=trained[0])
    assert main(["page", str(tmp_path), "--out", str(out)]) == 1
    assert "is not a run" in capsys.readouterr().err
    assert not out.exists()
    described = tmp_path / "notes.txt"
    described.write_text("mine")
    with pytest.raises(DocmemError, match=r"notes\.txt is there already, and no page"):
        write_page(runs, described)
    assert described.read_text() == "mine"
