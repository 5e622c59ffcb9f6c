"""The texts of a run lie in a file of their own: what was read, and no more."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import DOCUMENTS, assert_same, at, toy_lm

from docmem.cli.main import main
from docmem.documents import Document, as_read, segments
from docmem.errors import DocmemError
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.description import describe, description_digest
from docmem.training.run import Run
from docmem.training.texts import TEXTS, describe_texts, read_parts, what_is_read
from docmem.training.train import train


@pytest.mark.parametrize("length", [1, 2, 5, 12, 64])
@pytest.mark.parametrize("most", [1, 2, 4, None])
@pytest.mark.parametrize("words", [1, 2, 11, 12, 13, 40, 97])
def test_what_was_read_has_the_same_segments(words: int, length: int, most: int | None):
    text = "\n = Title = \n\n" + "  ".join(f"w{n}" for n in range(words)) + " \n"
    part = as_read(text, length, most)
    assert text.startswith(part)
    assert segments(part, length, most) == segments(text, length, most)
    assert part.split()[-1] == segments(text, length, most)[-1].split()[-1]


def test_a_training_says_what_it_reads_and_what_changes_that(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
):
    short = replace(config, max_segments=1, max_length=8, num_epochs=1)
    train(short, lm=toy_lm(), documents=DOCUMENTS)
    assert capsys.readouterr().out.strip() == (
        "Reading 3 documents, 36 of their 92 words; of 'Cyclone Odalys' the first "
        "12 of 43. max_segments (1) and segment_length (12 words) say how many. 3 segments fill "
        "max_length, 8 tokens, and end there."
    )
    train(short, lm=toy_lm(), documents=DOCUMENTS, progress=False)
    assert not capsys.readouterr().out


def read_by(config: TrainConfig, documents: list[Document], named: bool = False) -> str:
    """What a training of these documents says that it reads."""
    told = describe_texts(documents, config)["documents"]
    batches, doc_reps = [toy_lm().tokenize(["two words"])], torch.eye(2)
    return what_is_read(documents, told, config, batches, named, doc_reps)


def test_documents_of_one_doc_rep_are_told(
    config: TrainConfig, lm: LanguageModel, capsys: pytest.CaptureFixture[str]
):
    for doc_reps in (torch.zeros(3, 2), torch.arange(6.0).view(3, 2)):
        train(replace(config, num_epochs=1, save_dir=config.save_dir / str(doc_reps.sum().item())),
              lm=lm, documents=DOCUMENTS, doc_reps=doc_reps)  # fmt: skip
    assert capsys.readouterr().out.count("Some documents have one DocRep") == 1


def test_texts_that_are_read_alike_are_named(config: TrainConfig):
    one, two = Document("A", "two words"), Document("B", " two\nwords")
    assert read_by(config, [one]) == "Reading 1 document, all of their 2 words."
    assert "'A', 'B' have the same words as far as they are read" in read_by(config, [one, two])
    longer = [Document("A", "two words only"), Document("B", "two words more")]
    assert "the same" not in read_by(config, longer)
    assert "the same" in read_by(replace(config, segment_length=2, max_segments=1), longer)


def test_what_else_lies_in_the_folder_is_named(config: TrainConfig, tmp_path: Path):
    for name in ("a.txt", "b.rst", ".hidden"):
        (tmp_path / name).write_text("two words")
    (tmp_path / "more").mkdir()
    folder = replace(config, documents=str(tmp_path))
    documents = [Document("a", "two words")]
    said = read_by(folder, documents, named=True)
    assert said.startswith("Reading 1 document (max_labels: 10), all")
    assert said.endswith(" Not read, since no .txt or .md files: b.rst, more (2 in all).")
    assert "Not read" not in read_by(folder, documents)


def test_documents_left_in_the_folder_are_counted(config: TrainConfig, tmp_path: Path):
    for name in ("a.txt", "b.md", "c.txt"):
        (tmp_path / name).write_text("two words")
    folder = replace(config, documents=str(tmp_path), max_labels=1)
    said = read_by(folder, [Document("a", "two words")], named=True)
    assert said.startswith("Reading 1 document of 3 (max_labels: 1), all")


@pytest.mark.parametrize("title", [" x", "x\n", "a\nb", "a\x1b[31mb", "a\u2028b"])
def test_titles_are_one_line(config: TrainConfig, title: str):
    with pytest.raises(DocmemError, match="a title is one line"):
        train(config, lm=toy_lm(), documents=[Document(title, "words"), *DOCUMENTS])


def test_titles_that_name_other_documents_than_those_given_are_refused(go, config: TrainConfig):
    named = replace(config, titles=("Nobody",))
    with pytest.raises(DocmemError, match="titles names other documents than those given"):
        train(named, lm=toy_lm(), documents=DOCUMENTS)
    named = replace(config, titles=tuple(one.title for one in DOCUMENTS))
    assert train(named, lm=toy_lm(), documents=DOCUMENTS, progress=False).finished


def test_run_json_has_titles_digests_and_counts_but_no_text(whole: Run):
    description = json.loads((whole.path / "run.json").read_text())
    for document, entry in zip(DOCUMENTS, description["documents"], strict=True):
        count = len(document.text.split())
        assert entry == {
            "title": document.title,
            "sha256": hashlib.sha256(document.text.encode()).hexdigest(),
            "words": count,
            "read": min(30, count // 6 * 6),
        }
    assert "harbour" not in json.dumps(description)
    assert whole.documents == read_parts(DOCUMENTS, whole.config)
    assert "shutters" not in gzip.decompress((whole.path / TEXTS).read_bytes()).decode()


def test_hidden_states_are_those_of_the_whole_texts(whole: Run, lm: LanguageModel):
    cache, expected = (
        whole.cache_hidden_states(lm),
        cache_hidden_states(lm, DOCUMENTS, whole.config),
    )
    assert cache.doc_ids == expected.doc_ids
    for index in range(len(cache.batches)):
        assert torch.equal(cache.states(index), expected.states(index))


def test_run_goes_on_with_the_documents_it_gives_back(go, lm, whole: Run, config: TrainConfig):
    run = go(at(4, lambda: False))
    assert_same(train(config, lm=lm, documents=run.documents, progress=False), whole)


@pytest.mark.parametrize("lost", [True, False])
def test_lost_or_damaged_texts_are_named_and_written_anew_by_training(go, whole: Run, lost: bool):
    path = go(at(4, lambda: False)).path / TEXTS
    good = path.read_bytes()
    path.unlink() if lost else path.write_bytes(good[:-9])
    run = Run.open(path.parent)
    assert run.titles == whole.titles
    with pytest.raises(DocmemError, match=r"documents\.json\.gz.*(There is no|Restore it)"):
        _ = run.documents
    assert_same(go(), whole)
    assert path.read_bytes() == good


def test_run_with_its_texts_in_run_json_opens_and_goes_on(go, whole: Run, tmp_path: Path):
    run = go(at(4, lambda: False))
    description = json.loads((run.path / "run.json").read_text())
    del description["texts"], description["sha256"]
    description["documents"] = [{**vars(document)} for document in DOCUMENTS]
    description["sha256"] = description_digest(description)
    (run.path / "run.json").write_text(json.dumps(description))
    (run.path / TEXTS).unlink()
    opened = Run.open(run.path)
    assert opened.documents == whole.documents
    assert opened.description == run.description
    assert main(["check", str(run.path)]) == 0
    assert_same(go(), whole)
    assert "harbour" not in (run.path / "run.json").read_text()
    description["documents"][0]["text"] += "."
    (run.path / "run.json").write_text(json.dumps(description))
    with pytest.raises(DocmemError, match="does not match its digest"):
        Run.open(run.path)


def test_finished_run_with_its_texts_in_run_json_is_given_back_with_them(go, whole: Run):
    run = go()
    description = json.loads((run.path / "run.json").read_text())
    del description["texts"], description["sha256"]
    description["documents"] = [{**vars(document)} for document in DOCUMENTS]
    (run.path / "run.json").write_text(json.dumps(description))
    (run.path / TEXTS).unlink()
    assert go().documents == whole.documents


def test_run_of_a_thousand_documents_opens_without_reading_texts(
    lm: LanguageModel, config: TrainConfig, tmp_path: Path
):
    words = " ".join(f"word{n}" for n in range(500))
    documents = [Document(f"Title {n}", f"{n} {words}") for n in range(1000)]
    long = replace(config, segment_length=64, max_segments=4)
    run = Run(tmp_path / "many", describe(long, lm, documents))
    run.begin(documents)
    assert (run.path / "run.json").stat().st_size < 300_000
    opened = Run.open(run.path)
    assert "documents" not in vars(opened)
    assert opened.documents == read_parts(documents, long)
