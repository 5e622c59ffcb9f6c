import pytest

from docmem.evaluation.verbatim import Span, verbatim

SOURCE = "the storm drowned the low island of Sallow, and went home at 9.5 knots"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("and drowned the low island", ["drowned the low island"]),
        ("drowned the low hill", []),
        ("Drowned the low island of", ["the low island of"]),
        ("drowned the; low -- island (of Sallow!", ["drowned the; low -- island (of Sallow"]),
        ("went home at 9.5 the storm drowned the", ["went home at 9.5", "the storm drowned the"]),
        ("and went home at 9.5 nets", ["and went home at 9.5"]),
        ("and went home at 9 knots", ["and went home at"]),
        (SOURCE, [SOURCE]),
        ("storm drowned the low isl", ["storm drowned the low isl"]),
        ("storm drowned the low isl.", ["storm drowned the low"]),
        ("drowned the low isl", []),
        ("", []),
    ],
)  # fmt: skip
def test_verbatim_finds_longest_runs_of_four_words(text: str, parts: list[str]) -> None:
    assert [text[span.start : span.end] for span in verbatim(text, SOURCE)] == parts


def test_verbatim_takes_the_longest_of_several_places() -> None:
    source = "one two three four nine one two three four five six"
    assert verbatim("one two three four five six", source) == [Span(0, 27)]


def test_verbatim_minimum_length_can_be_set() -> None:
    assert verbatim("low island here", SOURCE, least=2) == [Span(0, 10)]
    assert verbatim("low island here", SOURCE, least=3) == []


@pytest.mark.parametrize(
    "source", ["これは日本語の文章です。", "风暴淹没了低岛。", "ノート・ブック。"]
)
def test_in_scripts_without_spaces_each_character_counts(source: str) -> None:
    assert [source[span.start : span.end] for span in verbatim(source, source)] == [
        source.removesuffix("。")
    ]
    assert verbatim(source[:3], source) == []
