import numpy as np
import pytest
import torch

from docmem import explore
from docmem.core.config import MemoryConfig
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.evaluation.attribution import BASE_LM, attribute
from docmem.evaluation.search import search_grid
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


def test_bars_are_the_cross_entropies_of_attribute(
    explorer: AttributionExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    found = explorer.explanation
    expected = {one.title: one.ce for one in attribute(lm, run.load_memory(), -1, TEXT)}
    assert found.base == expected.pop(BASE_LM)
    assert dict(zip(run.titles, found.ce, strict=True)) == expected
    assert run.titles[found.best] == "Thornwick Light"


def test_map_and_lowest_point_are_those_of_the_search(
    explorer: AttributionExplorer, trained: tuple[LanguageModel, Run]
) -> None:
    lm, run = trained
    search = explorer.explanation.search
    assert search is not None
    cache = HiddenStateCache(lm, [lm.tokenize([TEXT])], [0], -1)
    expected = search_grid(cache, run.load_memory())
    torch.testing.assert_close(search.plane.ce, expected.plane.ce)
    torch.testing.assert_close(search.points, expected.points)
    ce = cross_entropies_at(cache, run.load_memory(), search.doc_reps)[0]
    torch.testing.assert_close(search.ce, ce)
    assert search.ce[0] <= search.plane.ce.min()
    assert search.ce[0] < min(explorer.explanation.ce)


def test_picture_shows_bars_base_lm_map_and_point(explorer: AttributionExplorer) -> None:
    found = explorer.explanation
    assert found.search is not None
    bars, plane, *_ = explorer.figure().axes
    assert [bar.get_width() for bar in bars.patches] == found.ce
    assert set(bars.lines[0].get_xdata()) == {found.base}
    assert plane.lines[-1].get_xydata()[0].tolist() == found.search.points[0].tolist()
    np.testing.assert_array_equal(plane.images[0].get_array(), found.search.plane.ce[0])
    outside = found.search._replace(points=torch.tensor([[-0.2, -1.6]]))
    explorer.explanation = found._replace(search=outside)
    axes = explorer.figure().axes[1]
    explorer.explanation = found
    assert axes.get_ylim()[0] < -1.6 < 1.6 < axes.get_ylim()[1]
    assert "Thornwick Light" in explorer.alt
    assert TEXT in explorer.alt


def test_button_explains_the_text_and_shows_errors_as_sentences(
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
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, run = trained
    memory = DocumentMemory(
        MemoryConfig(d_model=32, n_docs=3, memory_dim=24, key_dim=1), run.titles
    )
    monkeypatch.setattr(Run, "load_memory", lambda _: memory)
    explorer = explore.attribution(run, lm=lm, text=TEXT)
    assert explorer.explanation.search is None
    assert len(explorer.figure().axes) == 1
    assert len(explorer.explanation.ce) == 3
    assert "plane" not in explorer.alt


def test_the_text_area_shows_the_text_that_was_explained(explorer: AttributionExplorer) -> None:
    explorer.explain("Cyclone Odalys drowned the low island")
    assert explorer.area.value == explorer.explanation.text
    explorer.explain(TEXT)
    assert explorer.area.value == TEXT
