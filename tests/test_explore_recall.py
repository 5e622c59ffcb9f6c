import pytest
import torch

from docmem import explore
from docmem.core.hook import attach
from docmem.errors import DocmemError
from docmem.evaluation import continuations
from docmem.evaluation.recalled import _mark
from docmem.explore import RecallExplorer
from docmem.lm.generation import generate, generate_text
from docmem.lm.loading import LanguageModel
from docmem.plots.style import DOCUMENT_COLORS
from docmem.training.run import Run

PROMPT = "Thornwick Light stands"


@pytest.fixture
def explorer(trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch) -> RecallExplorer:
    """An explorer that writes 8 tokens, which saves time."""
    monkeypatch.setattr(explore._recall, "NEW_TOKENS", 8)
    lm, run = trained
    return explore.recall(run, lm=lm)


def test_rows_are_own_other_mix_and_base_lm(
    explorer: RecallExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    rows = explorer.recall("Thornwick Light", PROMPT, 0, mix=0.25)
    reps = run.load_memory().doc_reps
    assert explorer.rows is rows
    with attach(lm.model, run.load_memory(), -1) as hooked:
        mixed = 0.75 * reps[1] + 0.25 * reps[0]
        for row, doc_rep in zip(rows, (reps[1], reps[0], mixed), strict=False):
            expected = generate(hooked, lm.tokenizer, PROMPT, doc_rep, max_new_tokens=8)
            assert row.text == expected
    assert rows[3].text == generate_text(lm.model, lm.tokenizer, PROMPT, max_new_tokens=8)
    assert len({row.text for row in rows}) == 4
    assert rows[0].truth.startswith(" on the")
    assert rows[0].ce < rows[1].ce
    assert PROMPT in explorer.alt
    assert [control.value for control in explorer.controls] == [1, 0, PROMPT, 0.25]
    explorer.controls[1].value = 2  # goes on from what is shown
    assert (explorer.document, explorer.other, explorer.prompt, explorer.mix) == (
        1,
        2,
        PROMPT,
        0.25,
    )


def test_verbatim_parts_are_marked_in_the_colour_of_their_document(
    explorer: RecallExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = " on the Shrike , a granite <hill> and drowned the low island of mud"
    monkeypatch.setattr(continuations, "generate_text", lambda *_, **__: written)
    explorer.recall(1, PROMPT, 0)
    for document, part in ((1, "on the Shrike , a granite"), (0, "and drowned the low island of")):
        assert explorer.html().count(_mark(part, DOCUMENT_COLORS[document])) == 4
    assert "</mark> &lt;hill&gt; <mark" in explorer.html()


def test_changed_control_makes_a_new_table_and_errors_are_sentences(
    explorer: RecallExplorer,
) -> None:
    one, two, prompt, mix = explorer.controls
    one.value = 2
    assert explorer.document == 2
    assert prompt.value == explorer.prompt
    assert prompt.value.startswith("The Quillon Engine")
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


def test_a_document_beside_itself_has_two_rows(explorer: RecallExplorer) -> None:
    rows = explorer.recall(1, PROMPT, 1)
    assert [row.under for row in rows] == ["2  its own DocRep", "no memory: the base LM"]
    assert "under 2 conditions" in explorer.alt


def test_recalled_is_a_figure_too(explorer: RecallExplorer) -> None:
    written = {text.get_text() for text in explorer.figure().axes[0].texts}
    assert {row.under for row in explorer.rows} <= written
    assert {*explorer.rows[0].text.split()} <= written


def test_mix_is_a_doc_rep_between_the_two(
    explorer: RecallExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    force = continuations._in_force
    monkeypatch.setattr(
        continuations, "_in_force", lambda *given: (seen.append(given[3]), force(*given))[1]
    )
    explorer.recall(0, PROMPT, 2, mix=1)
    own, other, mixed, _ = seen
    assert torch.equal(other, mixed)
    assert not torch.equal(own, other)
