import dataclasses

import pytest
import torch
from toys import DOCUMENTS, toy_lm

import docmem
from docmem.core.hook import attach
from docmem.evaluation import continuations
from docmem.evaluation.attribution import AttributionCounts, count_attributions
from docmem.evaluation.continuations import (
    Comparison,
    Recalled,
    html_text,
    opening,
    verbatim_share,
)
from docmem.evaluation.verbatim import Span
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import generate_text
from docmem.lm.head import token_losses
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

PROMPT = "Thornwick Light stands"


@pytest.fixture(scope="module")
def comparison(trained: tuple[LanguageModel, Run]) -> Comparison:
    lm, run = trained
    return docmem.compare(run, "Thornwick Light", PROMPT, lm=lm, max_new_tokens=12)


def test_compare_writes_under_own_next_all_entries_and_base_lm(
    comparison: Comparison, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    with attach(lm.model, run.load_memory(), -1) as hooked:
        expected = [
            docmem.generate(hooked, lm.tokenizer, PROMPT, document, max_new_tokens=12)
            for document in (1, 2, docmem.ALL_ENTRIES)
        ]
    expected.append(generate_text(lm.model, lm.tokenizer, PROMPT, max_new_tokens=12))
    assert [row.text for row in comparison] == expected
    assert len(set(expected)) == 4
    names = [row.under for row in comparison]
    assert names == ["Thornwick Light", "Quillon Engine", "all entries", docmem.BASE_LM]


def test_true_continuation_has_the_loss_of_every_token(
    comparison: Comparison, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    truth, count = comparison[0].truth, len(comparison[0].pieces)
    assert count == 12
    assert truth.startswith(" on the Shrike , a")
    batch = lm.tokenize([PROMPT + truth])
    inputs = forward_inputs(lm.model, batch)
    with torch.no_grad(), attach(lm.model, run.load_memory(), -1) as hooked, hooked.document(1):
        own = token_losses(lm.model(**inputs).logits, batch)[0, -count:]
    with torch.no_grad():
        base = token_losses(lm.model(**inputs).logits, batch)[0, -count:]
    torch.testing.assert_close(comparison[0].losses, own)
    torch.testing.assert_close(comparison[3].losses, base)
    assert comparison[0].ce == pytest.approx(own.mean().item())
    assert comparison[0].ce < comparison[1].ce


def test_recall_is_the_own_row_of_compare(
    comparison: Comparison, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    recalled = docmem.recall(run, 1, PROMPT, lm=lm, max_new_tokens=12)
    assert (recalled.title, recalled.under) == ("Thornwick Light", "Thornwick Light")
    assert (recalled.text, recalled.truth) == (comparison[0].text, comparison[0].truth)


def test_compare_takes_other_conditions_and_another_memory(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    memory = run.load_memory()
    between = torch.lerp(memory.doc_reps[0], memory.doc_reps[1], 0.25)
    with torch.no_grad():
        memory.output.weight.zero_()  # now it adds nothing
    rows = docmem.compare(
        run, 0, PROMPT, lm=lm, memory=memory, under={"25%": between, "none": docmem.BASE_LM}
    )
    assert [row.under for row in rows] == ["25%", "none"]
    assert rows[0].text == rows[1].text


@pytest.mark.parametrize("prompt", ["Quillon columns", "Cyclone Odalys"])
def test_prompt_outside_the_document_has_no_true_continuation(
    trained: tuple[LanguageModel, Run], prompt: str
) -> None:
    lm, run = trained
    recalled = docmem.recall(run, "Thornwick Light", prompt, lm=lm, max_new_tokens=4)
    assert recalled.truth == ""
    assert recalled.losses.numel() == 0
    assert "none" in recalled._repr_html_()


def test_prompt_that_ends_inside_a_token_has_no_true_continuation(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    tokens = lm.tokenizer("Cyclone Odalys crossed the Brannic Sea")["input_ids"]
    cut = lm.tokenizer.decode(tokens[:4])[:-1]
    assert lm.tokenizer(cut)["input_ids"] != tokens[: len(lm.tokenizer(cut)["input_ids"])]
    recalled = docmem.recall(run, 0, cut, lm=lm, max_new_tokens=4)
    assert recalled.truth == ""


def test_compare_without_prompt_takes_the_segment_opening(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    recalled = docmem.recall(run, 0, lm=lm, max_new_tokens=4)
    assert recalled.prompt == "Cyclone Odalys crossed the Brannic Sea in September"
    length = run.config.segment_length
    later = docmem.recall(run, 0, lm=lm, segment=1, max_new_tokens=4)
    assert later.prompt == opening(DOCUMENTS[0], 1, segment_length=length)
    assert later.prompt != recalled.prompt
    with pytest.raises(docmem.DocmemError, match="give a segment from 0 to"):
        docmem.recall(run, 0, lm=lm, segment=99)


def test_compare_rejects_unknown_document_empty_prompt_and_other_lm(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    with pytest.raises(docmem.DocmemError, match="no document called"):
        docmem.recall(run, "Thornwik", lm=lm)
    with pytest.raises(docmem.DocmemError, match="The prompt is empty"):
        docmem.recall(run, 0, " ", lm=lm)
    with pytest.raises(docmem.DocmemError, match="has other weights"):
        docmem.compare(run, 0, lm=toy_lm(seed=1))


def recalled(text: str, spans: list[Span], title: str = "A title") -> Recalled:
    return Recalled(title, "a <prompt>", "own", text, spans, [" and", " so"], torch.ones(2))


def test_comparison_reads_as_text_and_as_html() -> None:
    row = recalled(" one $two$ three <b>four", [Span(1, 10)])
    shown = str(Comparison((row, row)))
    assert shown.count("own (38% verbatim, true continuation 1.00 nats per token):") == 2
    assert "A title itself:\n    and so" in shown
    page = row._repr_html_()
    assert "<u>one <span>$</span>two<span>$</span></u> three &lt;b&gt;four" in page
    assert "a &lt;prompt&gt;" in page
    assert "<td" in page


def test_html_text_shows_titles_with_markup_as_they_are() -> None:
    assert html_text("a_b <i> $x$ & c") == ("a_b &lt;i&gt; <span>$</span>x<span>$</span> &amp; c")


def test_verbatim_share_is_pooled_over_characters() -> None:
    rows = [recalled("abcd", [Span(0, 4)]), recalled("x" * 12, []), recalled("", [])]
    assert verbatim_share(rows) == 0.25
    assert torch.isnan(torch.tensor(verbatim_share([])))


def test_counts_of_attribution(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    memory = run.load_memory()
    texts = [" ".join(document.text.split()[3:20]) for document in DOCUMENTS]
    right = [(document.title, text) for document, text in zip(DOCUMENTS, texts, strict=True)]
    assert count_attributions(lm, memory, -1, right) == AttributionCounts(3, 0, 0)
    wrong = [(DOCUMENTS[1].title, texts[0]), (DOCUMENTS[2].title, texts[1])]
    assert count_attributions(lm, memory, -1, wrong) == AttributionCounts(0, 2, 0)
    with torch.no_grad():
        memory.output.weight.neg_()  # now every document makes the texts less likely
    assert count_attributions(lm, memory, -1, right).base_lm == 3


def test_continuations_reads_a_document_with_any_spacing(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    spread = dataclasses.replace(DOCUMENTS[1], text=DOCUMENTS[1].text.replace(" ", "\n\n"))
    under = {"own": 1}
    found = continuations.continuations(
        lm, run.load_memory(), -1, spread, PROMPT, under, max_new_tokens=6
    )
    assert found[0].truth.startswith(" on the S")
