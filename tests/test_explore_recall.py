import dataclasses

import pytest
import torch
from matplotlib.colors import to_rgb
from toys import DOCUMENTS

from docmem import explore
from docmem.core.hook import attach
from docmem.errors import DocmemError
from docmem.explore import RecallExplorer
from docmem.explore._recall import _shade, tint
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import generate
from docmem.lm.head import token_losses
from docmem.lm.loading import LanguageModel
from docmem.plots.style import DOCUMENT_COLORS, INK
from docmem.training.run import Run

@pytest.fixture(scope="module")
def explorer(trained: tuple[LanguageModel, Run]) -> RecallExplorer:
    lm, run = trained
    return explore.recall(run, lm=lm)


def test_each_row_is_written_under_its_own_memory(
    explorer: RecallExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    rows = explorer.recall("Thornwick Light", "Thornwick Light stands", 0, mix=0.25)
    reps = run.load_memory().doc_reps
    assert explorer.rows is rows
    with attach(lm.model, run.load_memory(), -1) as hooked:
        mixed = 0.75 * reps[1] + 0.25 * reps[0]
        for row, doc_rep in zip(rows[:3], (reps[1], reps[0], mixed), strict=True):
            expected = generate(hooked, lm.tokenizer, "Thornwick Light stands", doc_rep)
            assert row.text == expected
    assert len({row.text for row in rows}) == 4


def test_the_true_continuation_is_read_with_the_loss_of_every_token(
    explorer: RecallExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    rows = explorer.recall(0, "drowned the low", 1)
    following = "".join(explorer.pieces)
    assert following.startswith(" island of Sallow .")
    assert following[1:] in explorer.texts[0]
    batch = lm.tokenize(["drowned the low" + following])
    inputs = forward_inputs(lm.model, batch)
    with torch.no_grad(), attach(lm.model, run.load_memory(), -1) as hooked, hooked.document(0):
        own = token_losses(lm.model(**inputs).logits, batch)[0]
    with torch.no_grad():
        bare = token_losses(lm.model(**inputs).logits, batch)[0]
    count = len(explorer.pieces)
    torch.testing.assert_close(rows[0].losses, own[-count:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows[3].losses, bare[-count:], atol=1e-5, rtol=1e-5)
    assert rows[0].ce < rows[1].ce
    assert rows[0].ce == pytest.approx(own[-count:].mean().item(), abs=1e-5)


def test_a_prompt_that_is_not_in_the_document_has_no_true_continuation(
    explorer: RecallExplorer,
) -> None:
    rows = explorer.recall(0, "Thornwick Light stands", 1)
    assert explorer.pieces == []
    assert all(len(row.losses) == 0 for row in rows)
    assert "has no true continuation" in explorer.html()


def test_verbatim_parts_are_marked_in_their_documents_colour(
    explorer: RecallExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = " on the Shrike , a granite <hill> and drowned the low island of mud"
    monkeypatch.setattr(explorer, "_write", lambda *_: written)
    explorer.recall(1, "Thornwick Light stands", 0)
    for document, part in ((1, "on the Shrike , a granite"), (0, "and drowned the low island of")):
        color = DOCUMENT_COLORS[document]
        mark = f'border-bottom:2px solid {color};padding:1px 0">{part}</mark>'
        assert explorer.html().count(mark) == 4
    assert "</mark> &lt;hill&gt; <mark" in explorer.html()


def test_no_text_becomes_html(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    texts = ["<b>Cyclone & co</b> <script>", "Quill"]
    documents = [
        dataclasses.replace(document, title=f"<i>{document.title}", text=text)
        for document, text in zip(DOCUMENTS, [texts[0], texts[1], texts[1]], strict=True)
    ]
    explorer = RecallExplorer(documents, lm, run.load_memory(), -1)
    explorer.recall(0, '<img src="x">', 1)
    shown = explorer.html()
    assert "&lt;img src=&quot;x&quot;&gt;" in shown
    assert "&lt;i&gt;Cyclone" in shown
    for part in ("<img", "<b>", "<script", "<i>"):
        assert part not in shown


def test_controls_are_followed_by_new_rows_and_faults_by_a_sentence(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    explorer = explore.recall(run, lm=lm)
    one, two, prompt, mix = explorer.controls
    one.value = 2
    assert explorer.document == 2
    assert prompt.value == explorer.prompt == explorer.opening(2)
    two.value, mix.value = 1, 0.75
    assert (explorer.other, explorer.mix) == (1, 0.75)
    assert explorer.table.value == explorer.html()
    before = explorer.rows
    prompt.value = "  "
    assert "The prompt is empty" in explorer.status.value
    assert explorer.rows is before
    prompt.value = "Quillon"
    assert explorer.status.value == ""
    assert explorer.rows is not before
    with pytest.raises(DocmemError, match="share of the other is 2"):
        explorer.recall(0, "Quillon", 1, mix=2)


def contrast(first: str, second: str) -> float:
    """The ratio of WCAG 2, from 1 to 21."""

    def light(color: str) -> float:
        parts = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in to_rgb(color)
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted([light(first), light(second)])
    return (high + 0.05) / (low + 0.05)


def test_text_is_readable_on_every_mark_and_shade() -> None:
    grounds = [tint(color, 0.22) for color in DOCUMENT_COLORS]
    grounds += [_shade(loss) for loss in (0, 4, 8, 20)]
    assert min(contrast(INK, ground) for ground in grounds) > 4.5
