"""Documents: where they come from, what they are called, how they are cut."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from docmem.documents import (
    ENCYCLOPEDIA,
    Document,
    choose,
    load_documents,
    read_files,
    segments,
    title_of,
)
from docmem.errors import DocmemError, check_titles

ARTICLES = sorted(ENCYCLOPEDIA.glob("*.txt"))
LETTERS = [Document(letter, f"{letter} text") for letter in "ABCDEFGHIJ"]


def words(count: int) -> list[str]:
    return [f"w{index}" for index in range(count)]


@pytest.mark.parametrize(
    ("count", "length", "starts"),
    [
        (25, 10, [0, 5, 10, 15]),
        (29, 10, [0, 5, 10, 15]),
        (30, 10, [0, 5, 10, 15, 20]),
        (10, 10, [0]),
        (3, 10, [0]),
        (11, 5, [0, 2, 4, 6]),
        (3, 1, [0, 1, 2]),
    ],
)
def test_segments_start_half_a_segment_apart(count: int, length: int, starts: list[int]):
    text = words(count)
    expected = [" ".join(text[start : start + length]) for start in starts]
    assert segments(" \n".join(text), length) == expected


def test_at_most_max_segments_are_cut_from_the_front():
    text = " ".join(words(100))
    assert len(segments(text, 10)) == 19
    assert segments(text, 10, 4) == segments(text, 10)[:4]
    assert segments(text, 10, 50) == segments(text, 10)


def test_text_without_words_has_no_segments():
    with pytest.raises(DocmemError, match="without words"):
        segments(" \n\t", 10)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        (" = Cyclone Odalys = \n\nIt blew.\n = = Landfall = = \n", "Cyclone Odalys"),
        (" = Adventure ( Atari 2600 ) = \n\nA game.", "Adventure ( Atari 2600 )"),
        ("\n\n= Late = \ntext", "Late"),
        ("# A Heading\n\ntext", "A Heading"),
        ("No heading\n = Not this = \n", "the stem"),
        ("#hashtag first", "the stem"),
        ("x = 3 = y", "the stem"),
        ("=5 and x=7 are the roots.", "the stem"),
        ("# A Heading #\n\ntext", "A Heading"),
        ("# In C# and more\n", "In C# and more"),
    ],
)
def test_title_is_the_first_heading_or_the_name_of_the_file(text: str, title: str):
    assert title_of(text, otherwise="the stem") == title


def test_folder_is_read_in_name_order(tmp_path: Path):
    (tmp_path / "b.md").write_text("# Second\n\nÄ text", encoding="utf-8")
    (tmp_path / "a.txt").write_text(" = First = \n\ntext", encoding="utf-8")
    (tmp_path / "c.txt").write_text("plain", encoding="utf-8")
    (tmp_path / "d.pdf").write_bytes(b"\xff\xff")
    documents = load_documents(tmp_path)
    assert [document.title for document in documents] == ["First", "Second", "c"]
    assert documents[1].text == "# Second\n\nÄ text"
    assert load_documents(str(tmp_path), 2) == documents[:2]


def test_suffixes_may_be_upper_case_and_a_link_to_nothing_is_named(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "B.TXT").write_text("two")
    (tmp_path / "c.Md").write_text("three")
    (tmp_path / "d.txt").mkdir()
    assert {document.title for document in load_documents(tmp_path)} == {"a", "B", "c"}
    (tmp_path / "e.txt").symlink_to("nowhere.txt")
    with pytest.raises(DocmemError, match=r"e\.txt cannot be read"):
        load_documents(tmp_path)


def test_empty_folder_is_rejected(tmp_path: Path):
    (tmp_path / "notes.pdf").write_bytes(b"")
    with pytest.raises(DocmemError, match=r"holds no \.txt or \.md file"):
        load_documents(tmp_path)


def test_load_documents_rejects_unknown_source():
    with pytest.raises(
        DocmemError, match=r"no folder 'wikitext', and no documents are called so.*wikitext-103"
    ):
        load_documents("wikitext")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"ok \xe9", "is not UTF-8 text .byte 3."),
        (b" \n", "is empty"),
        ("ok".encode("utf-16-le"), "has a NUL, so it is not UTF-8"),
    ],
)
def test_error_names_the_unreadable_file(tmp_path: Path, content: bytes, complaint: str):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(DocmemError, match=rf"bad\.txt {complaint}"):
        load_documents(tmp_path)


def test_a_name_is_a_title_of_one_line_and_no_name_is_a_sentence(tmp_path: Path):
    (tmp_path / "two\nlines.txt").write_text("text")
    assert [document.title for document in load_documents(tmp_path)] == ["two lines"]
    (tmp_path / " .txt").write_text("text")
    with pytest.raises(DocmemError, match=r" \.txt' has no name to be its title"):
        load_documents(tmp_path)


def test_all_unreadable_files_are_named_at_once(tmp_path: Path):
    for number in range(9):
        (tmp_path / f"{number}.txt").write_bytes(b"\xff" if number % 2 else b"good")
    (tmp_path / "8.txt").write_text("")
    with pytest.raises(
        DocmemError, match=r"1\.txt is not UTF-8.*3\.txt is not.*5\.txt is not.*Nor .*: 7\.txt, 8"
    ):
        load_documents(tmp_path)


@pytest.mark.parametrize(
    ("text", "title", "kept"),
    [
        ("---\ntitle: The Lamp\ntags: [a]\n---\n\nIt burns.", "The Lamp", "\nIt burns."),
        ("---\ntitle: 'Quoted: lamp'\n---\nIt burns.", "Quoted: lamp", "It burns."),
        ("---\ndate: 1\n...\n# Heading\n\nIt burns.", "Heading", "# Heading\n\nIt burns."),
        ("---\n---\nIt burns.", "lamp", "It burns."),
        ("---\nno end of it", "lamp", "---\nno end of it"),
        ("a line\n---\ntitle: x\n---\n", "lamp", "a line\n---\ntitle: x\n---\n"),
        ("---\nA rule.\n---\nIt burns.", "lamp", "---\nA rule.\n---\nIt burns."),
        ("---\n# a\n\ntitle: >-\n  The\n  Lamp\nid: 3\n---\nIt burns.", "The Lamp", "It burns."),
        ("---\ndate created: 2024\n'title': \"Lamp\"\n---\nIt burns.", "Lamp", "It burns."),
        ("---\ntitle: Lamp # draft\n---\nIt burns.", "Lamp", "It burns."),
        ("---\ntitle: 'A # b' # draft\n---\nIt burns.", "A # b", "It burns."),
        ("#  Two\t words \n\nIt burns.", "Two words", "#  Two\t words \n\nIt burns."),
    ],
)
def test_front_matter_of_markdown_is_no_text(tmp_path: Path, text: str, title: str, kept: str):
    (tmp_path / "lamp.markdown").write_text(text, encoding="utf-8")
    assert load_documents(tmp_path) == [Document(title, kept)]
    (tmp_path / "lamp.markdown").rename(tmp_path / "lamp.txt")
    assert load_documents(tmp_path)[0].text == text


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_error_names_the_file_whose_name_is_not_utf_8(tmp_path: Path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("= Title =\nits heading is its title")
    assert [document.title for document in load_documents(tmp_path)] == ["Title"]
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("no heading")
    with pytest.raises(DocmemError, match=r"file name 'caf\\udce9.md' has '\\udce9' at place 3"):
        load_documents(tmp_path)


def test_load_documents_rejects_equal_titles(tmp_path: Path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(" = Same = \n\ntext")
    (tmp_path / "0.txt").write_text("another")
    with pytest.raises(DocmemError, match=r"2 documents are called 'Same' \(a\.txt, b\.txt\)"):
        load_documents(tmp_path)
    assert [one.title for one in load_documents(tmp_path, 1)] == ["0"]
    with pytest.raises(DocmemError, match="called 'x'"):
        check_titles(["x", "y", "x"])


def test_titles_are_loaded_in_the_order_asked_for():
    titles = ["Thornwick Light", "Cyclone Odalys", "Quillon Engine"]
    chosen = load_documents("encyclopedia", 1, titles=titles)
    assert [document.title for document in chosen] == titles


def test_unknown_title_suggests_the_nearest():
    with pytest.raises(DocmemError, match=r"'Cyclon Odalis'\. Did you mean 'Cyclone Odalys'"):
        load_documents("encyclopedia", titles=["Cyclon Odalis"])


@pytest.mark.parametrize("count", [0, -1])
def test_number_of_documents_below_one_is_rejected(count: int):
    with pytest.raises(DocmemError, match=rf"max_documents is {count}"):
        load_documents("encyclopedia", count)


def test_max_documents_beyond_the_encyclopedia_loads_all():
    assert len(load_documents("encyclopedia", 1000)) == 20


def test_first_documents_are_taken_without_a_seed():
    assert choose(LETTERS, (), 3, None) == LETTERS[:3]
    assert choose(LETTERS, (), None, None) == LETTERS


def test_hidden_files_are_left_out_and_ambiguous_titles_refused(tmp_path: Path):
    for name in ("intro.md", "intro.txt", "other.md", "._other.md"):
        (tmp_path / name).write_text("some words", encoding="utf-8")
    assert [one.title for one in read_files(tmp_path).values()] == ["intro", "intro", "other"]
    with pytest.raises(DocmemError, match="2 documents are called 'intro'"):
        load_documents(tmp_path, titles=["intro", "other"])
    assert len(load_documents(tmp_path, titles=["other"])) == 1
    with pytest.raises(DocmemError, match="names a document twice"):
        load_documents(tmp_path, titles=["other", "other"])
    every = [*read_files(tmp_path).values()]
    seed = next(seed for seed in range(99) if choose(every, (), 1, seed)[0].title == "other")
    assert [one.title for one in load_documents(tmp_path, 1, seed=seed)] == ["other"]


def test_seed_chooses_different_documents_reproducibly():
    picks = [choose(LETTERS, (), 4, seed) for seed in range(20)]
    torch.manual_seed(123)
    assert picks == [choose(LETTERS, (), 4, seed) for seed in range(20)]
    assert all(len({document.title for document in pick}) == 4 for pick in picks)
    assert {document.title for pick in picks for document in pick} == set("ABCDEFGHIJ")


def test_wikitext_pages_become_titled_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import datasets

    pages = [" = Kurt Angle = \n\nA wrestler . \n = = Life = = \n", " = Slashdot = \n\nA site . \n"]
    asked: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> datasets.Dataset:
        asked.append((args, options))
        return datasets.Dataset.from_dict({"page": pages})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    documents = load_documents("wikitext-103", cache_dir=tmp_path)
    assert documents == [Document("Kurt Angle", pages[0]), Document("Slashdot", pages[1])]
    load_documents("wikitext-2")
    where = "EleutherAI/wikitext_document_level"
    assert asked == [
        ((where, "wikitext-103-raw-v1"), {"split": "train", "cache_dir": tmp_path}),
        ((where, "wikitext-2-raw-v1"), {"split": "train", "cache_dir": None}),
    ]


def test_unreachable_hub_error_names_alternatives(tmp_path: Path):
    with pytest.raises(DocmemError, match=r"wikitext-2 could not be loaded(.|\n)*'encyclopedia'"):
        load_documents("wikitext-2", cache_dir=tmp_path)


def test_encyclopedia_has_twenty_articles_with_unique_titles():
    assert [path.name[:3] for path in ARTICLES] == [f"{n:02d}_" for n in range(1, 21)]
    assert len({document.title for document in load_documents()}) == 20


@pytest.mark.parametrize("path", ARTICLES, ids=lambda path: path.stem)
def test_every_article_has_its_form_and_length(path: Path):
    text = path.read_text(encoding="utf-8")
    first_line, blank, body = text.split("\n", 2)
    assert re.fullmatch(r" = [^=\s][^=]*[^=\s] = ", first_line)
    assert blank == ""
    assert body.strip()
    number = int(path.name[:2])
    least, most = (760, 1000) if number <= 12 else (300, 450) if number <= 16 else (1800, 2500)
    assert least <= len(text.split()) <= most


def test_a_seed_without_a_number_to_choose_is_refused() -> None:
    with pytest.raises(DocmemError, match="seed has no effect without max_documents"):
        load_documents(seed=3)


def test_titles_are_suggested_whatever_their_case() -> None:
    with pytest.raises(DocmemError, match="Did you mean 'Ilse Marrowyn'"):
        load_documents(titles=["ILSE MARROWYN"])


def test_a_folder_behind_a_tilde_is_written_out() -> None:
    with pytest.raises(DocmemError, match="where ~ means nothing; write"):
        load_documents("~/texts")
