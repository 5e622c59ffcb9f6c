import numpy as np
import pytest
import torch

from docmem import explore
from docmem.core.config import MemoryConfig
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.evaluation.attribution import attribute
from docmem.explore import AttributionExplorer
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

TEXT = "Two white flashes every twenty seconds"


@pytest.fixture(scope="module")
def explorer(trained: tuple[LanguageModel, Run]) -> AttributionExplorer:
    lm, run = trained
    return explore.attribution(run, lm=lm, text=TEXT)


def test_the_bars_are_what_attribute_measures(
    explorer: AttributionExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    found = explorer.explanation
    expected = {one.title: one.ce for one in attribute(lm, run.load_memory(), -1, TEXT)}
    assert found.bare == expected.pop("(base LM)")
    assert dict(zip(run.titles, found.ce, strict=True)) == expected
    assert run.titles[found.best] == "Thornwick Light"


def test_the_point_is_lower_than_all_of_the_map_and_than_every_document(
    explorer: AttributionExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    found = explorer.explanation
    assert found.over_plane is not None and found.point is not None and found.lowest is not None
    cache = HiddenStateCache(lm, [lm.tokenize([TEXT])], [0], -1)
    ce = cross_entropies_at(cache, run.load_memory(), torch.tensor([found.point]))[0, 0]
    assert found.lowest == pytest.approx(ce.item(), abs=1e-5)
    assert found.lowest <= found.over_plane.min()
    assert found.lowest < min(found.ce)


def test_the_map_is_measured_up_and_across(
    explorer: AttributionExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    found = explorer.explanation
    assert found.axis is not None and found.over_plane is not None
    cache = HiddenStateCache(lm, [lm.tokenize([TEXT])], [0], -1)
    for up, across in ((0, 14), (3, 8)):
        doc_rep = torch.tensor([[found.axis[across], found.axis[up]]])
        expected = cross_entropies_at(cache, run.load_memory(), doc_rep)[0, 0]
        torch.testing.assert_close(found.over_plane[up, across], expected)


def test_the_picture_shows_bars_bare_line_and_point(explorer: AttributionExplorer) -> None:
    found = explorer.explanation
    bars, plane, *_ = explorer.figure().axes
    assert [bar.get_width() for bar in bars.patches] == found.ce
    assert set(bars.lines[0].get_xdata()) == {found.bare}
    assert tuple(plane.lines[-1].get_xydata()[0]) == pytest.approx(found.point)
    np.testing.assert_allclose(plane.collections[0].get_array(), found.over_plane)
    assert "Thornwick Light" in explorer.alt
    assert TEXT in explorer.alt


def test_the_button_explains_what_stands_in_the_area_and_faults_are_sentences(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    explorer = explore.attribution(run, lm=lm)
    before = explorer.image.value
    explorer.area.value = "brass columns held eighteen wheels each"
    explorer.button.click()
    assert explorer.titles[explorer.explanation.best] == "Quillon Engine"
    assert explorer.image.value != before
    kept = explorer.explanation
    for text, said in ((" \n", "no text yet"), ("wheels " * 90, "exceeds the context")):
        explorer.area.value = text
        explorer.button.click()
        assert said in explorer.status.value
        assert explorer.explanation is kept
    with pytest.raises(DocmemError, match="no text yet"):
        explorer.explain("")


def test_doc_reps_of_length_one_have_bars_and_no_map(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    memory = DocumentMemory(
        MemoryConfig(d_model=32, n_docs=3, memory_dim=24, key_dim=1), run.titles
    )
    explorer = AttributionExplorer(run.titles, lm, memory, -1, TEXT)
    assert explorer.explanation.point is None
    assert len(explorer.figure().axes) == 1
    assert len(explorer.explanation.ce) == 3
