"""What all explorers share: their plain pictures, their end, an LM of their own."""

import json
import threading
from types import SimpleNamespace

import pytest
import torch

from docmem import explore
from docmem.core.hook import attach
from docmem.errors import DocmemError
from docmem.evaluation.plane import KeyPlane, key_plane
from docmem.explore import _explorer
from docmem.explore._explorer import WIDGET_VIEW, Explorer, Latest, with_own_modules
from docmem.lm.forward import forward_inputs
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run, lm_fingerprint


@pytest.fixture(scope="module")
def plane(trained: tuple[LanguageModel, Run]) -> KeyPlane:
    lm, run = trained
    return key_plane(run.cache_hidden_states(lm), run.load_memory(), points=3)


def made(trained: tuple[LanguageModel, Run], plane: KeyPlane, name: str) -> Explorer:
    lm, run = trained
    return {
        "key_plane": lambda: explore.key_plane(run, lm=lm, plane=plane),
        "scrubber": lambda: explore.scrubber(run),
        "recall": lambda: explore.recall(run, lm=lm),
        "attribution": lambda: explore.attribution(run, lm=lm),
        "training": lambda: explore.training(run.config, lm=lm, documents=run.documents),
    }[name]()


NAMES = ("key_plane", "scrubber", "recall", "attribution", "training")


@pytest.mark.parametrize("name", NAMES)
def test_a_widget_comes_with_a_picture_that_says_in_words_what_it_shows(
    trained: tuple[LanguageModel, Run], plane: KeyPlane, name: str
) -> None:
    explorer = made(trained, plane, name)
    if name == "training":
        explorer.wait()
    bundle = explorer._repr_mimebundle_()
    json.dumps(bundle)
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.widget.model_id
    assert bundle["text/plain"] == explorer.alt
    assert len(explorer.alt) > 40
    picture = bundle["text/html"]
    if name == "recall":
        assert "<table" in picture
        assert 'aria-label="' in picture
    else:
        assert picture.startswith('<img alt="')
        assert "data:image/png;base64,iVBOR" in picture
    explorer.close()
    assert WIDGET_VIEW not in explorer._repr_mimebundle_()
    assert "text/html" in explorer._repr_mimebundle_()


@pytest.mark.parametrize("name", ("key_plane", "scrubber", "recall", "attribution"))
def test_closing_leaves_no_widget_open(
    trained: tuple[LanguageModel, Run], plane: KeyPlane, name: str
) -> None:
    explorer = made(trained, plane, name)
    open_ones, seen = [explorer.widget], []
    while open_ones:
        widget = open_ones.pop()
        seen.append(widget)
        open_ones += getattr(widget, "children", ())
    assert all(widget.comm is not None for widget in seen)
    explorer.close()
    assert all(widget.comm is None for widget in seen)


def in_cell(monkeypatch: pytest.MonkeyPatch, cell: str, request: str) -> None:
    """What is made next is made by this run of this cell."""
    parent = {"metadata": {"cellId": cell}, "header": {"msg_id": request}}
    shell = SimpleNamespace(get_parent=lambda: parent)
    monkeypatch.setattr(_explorer, "get_ipython", lambda: shell)


def test_a_cell_run_again_closes_what_it_made_before_and_nothing_else(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_explorer, "_made_in", {})
    in_cell(monkeypatch, "a", "first")
    one, two = explore.scrubber(trained[1]), explore.scrubber(trained[1])
    in_cell(monkeypatch, "b", "second")
    other = explore.scrubber(trained[1])
    assert all(made.widget.comm is not None for made in (one, two, other))
    in_cell(monkeypatch, "a", "third")
    again = explore.scrubber(trained[1])
    assert one.widget.comm is None
    assert two.widget.comm is None
    assert other.widget.comm is not None
    assert again.widget.comm is not None


def test_outside_a_notebook_nothing_is_remembered(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_explorer, "_made_in", {})
    explore.scrubber(trained[1])
    assert _explorer._made_in == {}


def test_an_lm_with_modules_of_its_own_shares_weights_but_no_hooks(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm, run = trained
    own = with_own_modules(lm)
    assert lm_fingerprint(own) == lm_fingerprint(lm)
    for mine, theirs in zip(own.model.parameters(), lm.model.parameters(), strict=True):
        assert mine is theirs
    batch = lm.tokenize(["Cyclone Odalys crossed the Brannic Sea"])
    with torch.no_grad():
        bare = own.model(**forward_inputs(own.model, batch)).logits
        with attach(lm.model, run.load_memory(), -1) as hooked, hooked.document(0):
            beside = own.model(**forward_inputs(own.model, batch)).logits
            within = lm.model(**forward_inputs(lm.model, batch)).logits
    assert torch.equal(bare, beside)
    assert not torch.allclose(bare, within)


def test_another_lm_is_refused(trained: tuple[LanguageModel, Run]) -> None:
    from toys import toy_lm

    with pytest.raises(DocmemError, match="has other weights"):
        explore.recall(trained[1], lm=toy_lm(seed=1))


@pytest.mark.parametrize("name", ("key_plane", "training"))
def test_messages_go_to_the_subshell_that_the_page_names(
    trained: tuple[LanguageModel, Run], plane: KeyPlane, name: str
) -> None:
    explorer = made(trained, plane, name)
    widget = explorer.button if name == "training" else explorer.widget
    assert widget.comm._reply_subshell_for({"method": "custom"}, "beside") == "beside"
    explorer.close()


def test_only_the_newest_waiting_job_is_done() -> None:
    jobs, done, go = Latest(), [], threading.Event()
    jobs.ask(lambda: (go.wait(10), done.append("first")))
    while jobs._job is not None:
        pass  # until the first has begun
    jobs.ask(lambda: done.append("overtaken"))
    jobs.ask(lambda: done.append("last"))
    go.set()
    jobs.settle()
    assert done == ["first", "last"]
    jobs.ask(lambda: done.append("later"))
    jobs.settle()
    assert done[-1] == "later"
