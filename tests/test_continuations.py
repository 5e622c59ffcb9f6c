import dataclasses
import re
from typing import Any

import pytest
import torch
from matplotlib.colors import to_rgb, to_rgba
from toys import DOCUMENTS, toy_lm

import docmem
from docmem.core.hook import attach
from docmem.documents import Document
from docmem.evaluation import continuations
from docmem.evaluation.attribution import AttributionCounts, count_attributions
from docmem.evaluation.continuations import opening
from docmem.evaluation.recalled import (
    DARKEST_NATS,
    INK,
    Comparison,
    Recalled,
    Source,
    _mark,
    _shade,
    html_text,
    verbatim_share,
)
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import generate_text
from docmem.lm.head import token_losses
from docmem.lm.loading import LanguageModel
from docmem.plots.style import DOCUMENT_COLORS
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
    assert (recalled.document.title, recalled.under) == ("Thornwick Light", "Thornwick Light")
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


def test_the_truth_follows_the_prompt_where_it_stands_as_words(lm: LanguageModel, whole: Run):
    document = Document("H", "harbours are far . The harbour is near . Nobody sees the harbour")
    memory, base = whole.load_memory(), {"base": docmem.BASE_LM}
    for prompt, truth in (("harbour", " is near ."), ("sees the harbour", ""), ("sea", "")):
        rows = continuations.continuations(lm, memory, -1, document, prompt, base)
        assert rows[0].truth.startswith(truth) if truth else rows[0].truth == ""
        assert bool(truth) == ("nats per token" in repr(rows))
        assert "nan" not in str(rows) + repr(rows) + rows.html()


@pytest.mark.parametrize("prompt", ["Quillon columns", "Cyclone Odalys"])
def test_prompt_outside_the_document_has_no_true_continuation(
    trained: tuple[LanguageModel, Run], prompt: str
) -> None:
    lm, run = trained
    recalled = docmem.recall(run, "Thornwick Light", prompt, lm=lm, max_new_tokens=4)
    assert recalled.truth == ""
    assert recalled.losses.numel() == 0
    assert "No true continuation: nothing follows this prompt" in recalled._repr_html_()


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


def recalled(text: str, title: str = "A title") -> Recalled:
    """A result of a document with the words one to six."""
    document = docmem.Document(title, "one two three four five six")
    return Recalled(document, "a <prompt>", "own", text, [" and", " so"], torch.ones(2))


def test_comparison_prints_as_a_table() -> None:
    row = recalled(" one two three four, not six")
    shown = str(Comparison((row, row)))
    assert "after “a <prompt>” the LM writes" in shown
    assert shown.count("71%") == shown.count("1.00") == 2
    assert "A title itself" in shown
    assert str(row).count("71%") == 1
    assert repr(row) == "After “a <prompt>”, own: 71% verbatim, 1.00 nats per token."


def test_html_table_marks_verbatim_parts_and_shades_losses() -> None:
    page = recalled(" one two three four <b>", "<i>$x$ y_z")._repr_html_()
    assert _mark("one two three four", "#117733") in page
    assert "</mark> &lt;b&gt;" in page
    assert _shade(" and", 1.0) in page
    assert "a &lt;prompt&gt;" in page
    assert "&lt;i&gt;<span>$</span>x<span>$</span> y_z" in page
    for markup in ("<i>", "<b>", "$x$"):
        assert markup not in page


def test_html_table_marks_the_longer_of_two_overlapping_sources() -> None:
    row = recalled("one two three four nine ten eleven")
    sources = [
        Source("1", "#332288", "one two three four"),
        Source("2", "#88CCEE", "two three four nine ten"),
    ]
    page = Comparison((row,)).html(sources)
    assert f"one {_mark('two three four nine ten', '#88CCEE')} eleven" in page


def test_what_only_repeats_the_prompt_is_not_verbatim() -> None:
    prompt = "two three four five"
    document = docmem.Document("A title", "one two three four five six seven")

    def written(text: str) -> Recalled:
        return Recalled(document, prompt, "own", text, [], torch.empty(0))

    assert verbatim_share([written(f" x {prompt}")]) == 0
    assert "<mark" not in Comparison((written(f" x {prompt}"),)).html().split("<tbody>")[1]
    assert verbatim_share([written(f" {prompt} six")]) == 1  # it goes on from there


def test_html_text_shows_titles_with_markup_as_they_are() -> None:
    assert html_text("a_b <i> $x$ & c") == "a_b &lt;i&gt; <span>$</span>x<span>$</span> &amp; c"


def test_verbatim_share_is_pooled_over_letters() -> None:
    rows = [recalled("one two three four."), recalled("x" * 45), recalled("")]
    assert verbatim_share(rows) == 0.25
    assert verbatim_share([recalled(" one two, three four fi")]) == 1  # stopped inside a word
    assert torch.isnan(torch.tensor(verbatim_share([])))


def contrast(first: Any, second: Any) -> float:
    """The contrast ratio of WCAG 2, from 1 to 21."""

    def light(color: Any) -> float:
        parts = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in to_rgb(color)
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted([light(first), light(second)])
    return (high + 0.05) / (low + 0.05)


def test_text_is_readable_on_every_mark_and_shade() -> None:
    parts = [_mark("x", color) for color in DOCUMENT_COLORS]
    parts += [_shade("x", loss) for loss in (0, 4, DARKEST_NATS, 20)]
    for part in parts:
        (ground,) = re.findall(r"background:(#\w{8})", part)
        *color, alpha = to_rgba(ground)
        assert contrast(INK, [1 - alpha * (1 - value) for value in color]) > 4.5


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


@pytest.mark.parametrize(
    ("text", "first_words"),
    [
        (" = My title = \n\nThe first words.", "The first words."),
        ("# My title\n\nThe first words.", "The first words."),
        ("# My title\nThe # first", "The # first"),
        ("The first = words = here", "The first = words = here"),
        (" = My title = ", "= My title ="),
        ("# My title", "# My title"),
    ],
)
def test_opening_is_without_the_title_line(text: str, first_words: str) -> None:
    assert opening(Document("My title", text)) == first_words
