"""DocReps that are given take the place of the seed's, and belong to the run."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from toys import DOCUMENTS, assert_same, at, files

from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.description import RESUME_IGNORES, to_dict
from docmem.training.run import Run
from docmem.training.setup import default_folder, new_memory
from docmem.training.train import train

PLACES = torch.tensor([[1.0, 0.1], [-0.5, 0.7], [0.3, -1.2]])


def trained(lm: LanguageModel, config: TrainConfig, doc_reps=None, on_epoch=None) -> Run:
    return train(
        config, lm=lm, documents=DOCUMENTS, doc_reps=doc_reps, on_epoch=on_epoch, progress=False
    )


def test_only_the_doc_reps_of_a_new_memory_change(lm, config: TrainConfig):
    usual, given = (new_memory(config, lm, DOCUMENTS, places) for places in (None, PLACES))
    for name, tensor in given.state_dict().items():
        assert torch.equal(tensor, usual.state_dict()[name]) == (name != "doc_reps"), name
    assert torch.equal(given.doc_reps, PLACES)
    given.doc_reps.zero_()
    assert PLACES.any()  # a copy


def test_training_uses_given_doc_reps_and_keeps_them(lm, config: TrainConfig, whole):
    run = trained(lm, config, list(PLACES))
    assert torch.equal(run.load_memory().doc_reps, PLACES)
    assert all(torch.equal(places, PLACES) for places in run.load_snapshots().doc_reps)
    assert run.load_history()[0].positive_ce != whole.load_history()[0].positive_ce


def test_giving_the_doc_reps_of_the_seed_changes_nothing(lm, config: TrainConfig, whole: Run):
    assert_same(trained(lm, config, new_memory(config, lm, DOCUMENTS).doc_reps.double()), whole)


def test_stopped_run_resumes_with_the_same_doc_reps(lm, config: TrainConfig, tmp_path):
    straight = trained(lm, replace(config, save_dir=tmp_path / "straight"), PLACES)
    assert not trained(lm, config, PLACES, at(4, lambda: False)).finished
    assert_same(trained(lm, config, PLACES.clone()), straight)


@pytest.mark.parametrize("epochs", [4, 7])
@pytest.mark.parametrize(
    ("first", "second"), [(PLACES, PLACES.flip(0)), (PLACES, None), (None, PLACES)]
)
def test_other_doc_reps_in_the_same_folder_are_rejected(
    lm, config: TrainConfig, epochs: int, first, second
):
    before = files(trained(lm, config, first, at(epochs, lambda: False)).path)
    with pytest.raises(DocmemError, match=r"holds a run with other DocReps\. Give those it began"):
        trained(lm, config, second)
    assert files(config.save_dir) == before


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("doc_reps", "complaint"),
    [
        (PLACES[:2], r"shape \(2, 2\) were given; 3 documents with a key_dim of 2 take \(3, 2\)"),
        (torch.zeros(3, 3), r"shape \(3, 3\) were given"),
        (torch.zeros(6), r"shape \(6,\) were given"),
        (PLACES / torch.tensor([1.0, 0.0]), "not all finite"),
        (PLACES * float("nan"), "not all finite"),
    ],
)
def test_invalid_doc_reps_are_rejected_and_leave_no_folder(
    lm, config: TrainConfig, doc_reps, complaint: str
):
    with pytest.raises(DocmemError, match=complaint):
        trained(lm, config, doc_reps)
    assert not config.save_dir.exists()


def test_default_folder_differs_for_given_doc_reps(lm, config: TrainConfig):
    config = replace(config, save_dir=None)
    folders = [
        default_folder(config, lm, DOCUMENTS),
        default_folder(config, lm, DOCUMENTS, PLACES),
        default_folder(config, lm, DOCUMENTS, PLACES + 1),
    ]
    assert len(set(folders)) == 3
    assert default_folder(config, lm, DOCUMENTS, PLACES.double()) == folders[1]


def test_folders_without_given_doc_reps_keep_their_names(lm, config: TrainConfig):
    """What an earlier docmem trained is found again."""
    config = replace(config, save_dir=None)
    settings = {n: v for n, v in to_dict(config).items() if n not in RESUME_IGNORES}
    settings["dtype"] = "float32"  # its default, and what auto comes to here
    content = json.dumps([settings, lm.name, [document.text for document in DOCUMENTS]])
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    assert default_folder(config, lm, DOCUMENTS).name == f"tanh-24-{digest}"
