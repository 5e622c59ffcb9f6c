import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from test_plane import naive_ce

from docmem.core.config import MemoryConfig
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.editing.doc_reps import drop_doc_rep
from docmem.errors import DocmemError
from docmem.evaluation.attribution import attribute
from docmem.evaluation.recall import Recognition, completion, readers_of, recognition
from docmem.lm.generation import generate
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run


def test_recognition_equals_full_forwards(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    result = recognition(run.cache_hidden_states(lm), run.load_memory())
    for document in range(3):
        for doc_rep in range(3):
            expected = naive_ce(lm, run, document, run.load_memory().doc_reps[doc_rep])
            assert result.ce[document, doc_rep].item() == pytest.approx(expected, abs=1e-5)


def test_recognition_summarises_its_matrix() -> None:
    result = Recognition.of_all(torch.tensor([[1.0, 4.0, 5.0], [3.0, 2.0, 6.0], [1.0, 7.0, 3.0]]))
    assert result.own == pytest.approx(2.0)
    assert result.other == pytest.approx(26 / 6)
    assert result.recognised == 2
    assert result.lowest_pair == (1.0, 2, 0)  # document 2 under the DocRep of document 0
    assert result.margin == pytest.approx(-2.0)  # that of document 2: 1 - 3


def test_recognition_of_one_document_has_no_pair() -> None:
    result = Recognition.of_all(torch.tensor([[1.0]]))
    assert (result.own, result.recognised) == (1.0, 1)
    for missing in (result.other, result.lowest_pair.ce, result.margin):
        assert math.isnan(missing)


def test_recognition_under_the_own_doc_rep_alone_has_no_pair(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    known = recognition(run.cache_hidden_states(lm), run.load_memory(), doc_reps=1)
    assert known.ce.shape == (3, 1)
    assert all(map(math.isnan, (known.other, known.margin, known.lowest_pair.ce)))


@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize("others", [3, 1])
def test_completion_equals_token_by_token_decoding(
    trained: tuple[LanguageModel, Run], layer: int, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    config = dataclasses.replace(run.config, hook_memory_layer=layer)
    cache, memory = cache_hidden_states(lm, run.documents, config), run.load_memory()
    memory.origin = {}  # it may be hooked in elsewhere too
    monkeypatch.setattr("docmem.evaluation.recall.ROWS_AT_ONCE", 7)
    score = completion(cache, memory, prompt_tokens=4, new_tokens=3, others=others)
    right, count = {"own": 0, "other": 0, "none": 0}, 0
    turn = itertools.cycle([1, 2])  # from each document to the others
    with torch.no_grad():
        for doc_id, batch in zip(cache.doc_ids, cache.batches, strict=True):
            for ids, mask in zip(*batch, strict=True):
                tokens = ids[mask]
                if len(tokens) < 7:
                    continue
                count += 1
                right["none"] += correct(lm, tokens)
                for document in (
                    doc_id,
                    *((doc_id + next(turn)) % 3 for _ in range(min(2, others))),
                ):
                    with attach(lm.model, memory, layer) as hooked, hooked.document(document):
                        right["own" if document == doc_id else "other"] += correct(lm, tokens)
    assert count > 3
    assert score.own == pytest.approx(right["own"] / (3 * count))
    assert score.other == pytest.approx(right["other"] / (3 * count * min(2, others)))
    assert score.none == pytest.approx(right["none"] / (3 * count))
    assert layer == 0 or score.own > score.other  # trained after the last block


def test_segments_are_continued_under_other_documents_in_turn() -> None:
    own = torch.arange(10).repeat_interleave(6)
    readers = readers_of(own, 10, 3)
    assert torch.equal(readers[:, 0], own)
    steps = (readers[:, 1:] - own[:, None]) % 10
    assert torch.bincount(steps.flatten()).tolist() == [0, *[20] * 9]
    for document in range(10):  # with six segments, under every other document twice
        assert torch.bincount(steps[own == document].flatten()).tolist() == [0, *[2] * 9]
    assert readers_of(own, 10, 100)[0].tolist() == list(range(10))
    assert readers_of(torch.zeros(2).long(), 1, 3).tolist() == [[0], [0]]


def correct(lm: LanguageModel, tokens: torch.Tensor) -> int:
    written = tokens[:4]
    for _ in range(3):
        logits = lm.model(input_ids=written[None], use_cache=False).logits[0, -1]
        written = torch.cat([written, logits.argmax()[None]])
    return int((written[4:] == tokens[4:7]).sum())


def test_completion_is_nan_if_no_segment_is_long_enough(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    score = completion(
        run.cache_hidden_states(lm), run.load_memory(), prompt_tokens=60, new_tokens=60
    )
    assert all(math.isnan(share) for share in score)
    assert "too short" in str(score)


def test_attribute_ranks_the_document_of_the_passage_first(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    for document in run.documents:
        ranking = attribute(lm, run.load_memory(), -1, " ".join(document.text.split()[:12]))
        assert ranking[0].title == document.title
        assert [one.ce for one in ranking] == sorted(one.ce for one in ranking)
        assert {one.title for one in ranking} == {*run.titles, "(base LM)"}


def test_autocast_changes_no_measurement(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    cache, memory = run.cache_hidden_states(lm), run.load_memory()

    def found() -> tuple[torch.Tensor, object, object]:
        ranking = attribute(lm, memory, -1, run.documents[0].text[:40])
        return recognition(cache, memory).ce, completion(cache, memory, 4, 4), ranking

    plain = found()
    with torch.autocast("cpu", torch.bfloat16):
        under = found()
    assert torch.equal(plain[0], under[0])
    assert plain[1:] == under[1:]


def test_attribute_rejects_a_text_of_one_token(trained: tuple[LanguageModel, Run]) -> None:
    lm, run = trained
    with pytest.raises(DocmemError, match="sentence or more"):
        attribute(lm, run.load_memory(), -1, "a")


def test_drop_doc_rep_removes_the_title_but_the_weights_still_recall_the_text(
    trained: tuple[LanguageModel, Run], tmp_path: Path
) -> None:
    lm, run = trained
    memory, point = run.load_memory(), run.load_memory().doc_reps[1]
    dropped = drop_doc_rep(memory, run.titles[1])
    assert dropped.titles == [run.titles[0], run.titles[2]]
    with pytest.raises(DocmemError, match="no document called"):
        dropped.index_of(run.titles[1])
    assert torch.equal(dropped.doc_reps, memory.doc_reps[[0, 2]])
    before, after = memory.state_dict(), dropped.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name != "doc_reps")
    prompt = " ".join(run.documents[1].text.split()[:6])
    written = []
    for whole in (memory, dropped):
        with attach(lm.model, whole, -1) as hooked:
            written.append(generate(hooked, lm.tokenizer, prompt, point, max_new_tokens=8))
    assert written[0] == written[1]
    dropped.save_pretrained(tmp_path)
    assert DocumentMemory.from_pretrained(tmp_path).titles == dropped.titles


def test_drop_doc_rep_leaves_the_given_memory_unchanged(trained: tuple[LanguageModel, Run]) -> None:
    _, run = trained
    memory = run.load_memory()
    drop_doc_rep(memory, 0)
    assert memory.titles == run.titles
    assert memory.config.n_docs == len(memory.doc_reps) == 3


def test_drop_doc_rep_rejects_the_only_document() -> None:
    memory = DocumentMemory(MemoryConfig(d_model=8, n_docs=1))
    with pytest.raises(DocmemError, match="one document"):
        drop_doc_rep(memory, 0)
