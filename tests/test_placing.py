"""`doc_reps_from_lm`: the mean hidden states of documents along their principal components."""

import pytest
import torch
from sklearn.decomposition import PCA
from toys import DOCUMENTS, quick_config

from docmem.core.config import MemoryConfig
from docmem.core.memory import DocumentMemory
from docmem.documents import Document, segments
from docmem.editing.place import doc_reps_from_lm, mean_states
from docmem.errors import DocmemError
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel

MORE = [*DOCUMENTS, Document("Heron", "A grey heron stands in the reeds and counts the boats .")]


@pytest.fixture
def cache(lm: LanguageModel, tmp_path) -> HiddenStateCache:
    """Four documents of 1 to 4 segments, some batches padded."""
    cache = cache_hidden_states(lm, MORE, quick_config(tmp_path))
    assert not all(batch.attention_mask.all() for batch in cache.batches)
    assert len(cache.batches) > len(MORE)
    return cache


def test_mean_states_average_the_real_tokens_of_all_segments(
    cache: HiddenStateCache, lm: LanguageModel
):
    means = mean_states(cache, len(MORE))
    for document, mean in zip(MORE, means, strict=True):
        rows = []
        for text in segments(document.text, 12, 4):  # one by one, without padding
            ids = lm.tokenizer(text, return_tensors="pt")["input_ids"]
            kept = []
            hook = cache.blocks[cache.layer].register_forward_hook(
                lambda *a, kept=kept: kept.append(a[2][0] if isinstance(a[2], tuple) else a[2])
            )
            lm.model(input_ids=ids)
            hook.remove()
            rows.append(kept[0][0])
        torch.testing.assert_close(mean.float(), torch.cat(rows).mean(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("key_dim", [1, 2, 3])
def test_doc_reps_from_lm_are_centred_principal_components_of_the_usual_length(
    cache: HiddenStateCache, key_dim: int
):
    doc_reps = doc_reps_from_lm(cache, len(MORE), key_dim)
    usual = DocumentMemory(MemoryConfig(d_model=32, n_docs=len(MORE), key_dim=key_dim)).doc_reps
    torch.testing.assert_close(doc_reps.norm(dim=0), usual.norm(dim=0))
    torch.testing.assert_close(doc_reps.mean(0), torch.zeros(key_dim), atol=1e-6, rtol=0)
    scores = torch.from_numpy(
        PCA(key_dim, svd_solver="full").fit_transform(mean_states(cache, len(MORE)).numpy())
    )
    for found, expected in zip(doc_reps.T, scores.T.float(), strict=True):
        cosine = torch.cosine_similarity(found, expected, dim=0)
        assert abs(cosine) == pytest.approx(1, abs=1e-5)
    assert (doc_reps.gather(0, doc_reps.abs().argmax(0)[None]) > 0).all()


def test_two_documents_with_the_same_text_get_the_same_doc_rep(lm: LanguageModel, tmp_path):
    twins = [*DOCUMENTS, Document("Twin", DOCUMENTS[1].text)]
    doc_reps = doc_reps_from_lm(cache_hidden_states(lm, twins, quick_config(tmp_path)), 4, 2)
    torch.testing.assert_close(doc_reps[1], doc_reps[3])
    assert torch.pdist(doc_reps[:3]).min() > 0.1


@pytest.mark.parametrize("texts", [(0, 1, 2), (0, 1, 1, 1, 0)])
def test_doc_reps_from_lm_reject_a_key_dim_above_the_rank_of_the_means(
    lm: LanguageModel, tmp_path, texts
):
    documents = [Document(str(n), DOCUMENTS[index].text) for n, index in enumerate(texts)]
    cache = cache_hidden_states(lm, documents, quick_config(tmp_path))
    directions = len(set(texts)) - 1
    assert doc_reps_from_lm(cache, len(texts), directions).isfinite().all()
    complaint = f"{len(texts)} documents span {directions} directions, and a key_dim of"
    with pytest.raises(DocmemError, match=complaint):
        doc_reps_from_lm(cache, len(texts), directions + 1)
