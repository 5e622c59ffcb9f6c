"""A memory knows its layer, its LM and its documents, and attaches nowhere else unasked."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from toys import DOCUMENTS, quick_config, toy_lm

import docmem
from docmem.core.blocks import lm_fingerprint
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.editing.add import add
from docmem.editing.doc_reps import drop_doc_rep
from docmem.editing.forget import forget
from docmem.errors import DocmemError
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.train import train

DIGESTS = [hashlib.sha256(document.text.encode()).hexdigest() for document in DOCUMENTS]


@pytest.fixture(scope="module")
def middle(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run at layer 1 of three."""
    config = dataclasses.replace(
        quick(tmp_path_factory.mktemp("middle") / "run"), hook_memory_layer=1
    )
    return train(config, lm=toy_lm(), documents=DOCUMENTS, progress=False)


def quick(folder: Path) -> TrainConfig:
    return dataclasses.replace(quick_config(folder), num_epochs=2)


def test_saved_memory_says_what_it_was_trained_on(whole: Run, lm: LanguageModel):
    last = whole.load_history()[-1]
    assert whole.load_memory().origin == {
        "layer": 2,
        "lm": "toy-gpt_neox",
        "dtype": "float32",
        "fingerprint": lm_fingerprint(lm.model),
        "documents": DIGESTS,
        "epochs": 7,
        "own_ce": last.positive_ce,
        "negative_ce": last.negative_ce,
    }


def test_memory_attaches_at_its_own_layer_and_no_other(middle: Run, lm: LanguageModel):
    memory = middle.load_memory()
    for layer in (1, -2):
        with docmem.attach(lm.model, memory, layer=layer) as hooked:
            assert hooked.layer == 1
    with pytest.raises(DocmemError, match="not at layer 2"), attach(lm.model, memory):
        pass
    for layer in (-1, 0):
        with (
            pytest.raises(
                DocmemError, match=r"trained at layer 1 of the LM 'toy-gpt_neox'.*check="
            ),
            attach(lm.model, memory, layer=layer),
        ):
            pass
    with attach(lm.model, memory, layer=-1, check=False) as hooked:
        assert hooked.layer == 2


@pytest.mark.parametrize("other", ["seed", "dtype"])
def test_memory_is_refused_at_another_lm_unless_asked_for(middle: Run, other: str):
    lm = toy_lm(seed=1) if other == "seed" else toy_lm()
    if other == "dtype":
        lm.model.bfloat16()
    memory = middle.load_memory()
    with pytest.raises(DocmemError, match="fingerprint"), attach(lm.model, memory, 1):
        pass
    with attach(lm.model, memory, layer=1, check=False) as hooked:
        assert hooked.layer == 1


@pytest.mark.parametrize("layer", [0, 1, 2, -1])
def test_memory_that_does_not_say_attaches_anywhere(
    memory: DocumentMemory, layer: int, tmp_path: Path
):
    assert memory.origin == {}
    memory.save_pretrained(tmp_path)
    for one in (memory, DocumentMemory.from_pretrained(tmp_path)):
        for lm in (toy_lm(), toy_lm(seed=1)):
            with attach(lm.model, one, layer=layer) as hooked:
                assert hooked.layer == layer % 3


def test_changed_memory_keeps_its_lm_and_claims_no_old_measurement(middle: Run, lm: LanguageModel):
    memory = middle.load_memory()
    text = cache_hidden_states(lm, [*DOCUMENTS, docmem.Document("New", "A new text .")],
                               middle.config)  # fmt: skip
    expected = {
        forget(middle.cache_hidden_states(lm), memory, 0, epochs=1): DIGESTS,
        add(text, memory, "New", epochs=1): [*DIGESTS, None],
        drop_doc_rep(memory, 1): [DIGESTS[0], DIGESTS[2]],
    }
    for changed, documents in expected.items():
        assert changed.origin["documents"] == documents
        assert {name: changed.origin[name] for name in ("layer", "fingerprint")} == {
            "layer": 1,
            "fingerprint": lm_fingerprint(lm.model),
        }
        assert not {"epochs", "own_ce", "negative_ce"} & changed.origin.keys()
        assert "was changed since" in str(changed.generate_model_card())
    assert memory.origin["epochs"] == 2


def test_model_card_says_what_it_is_how_to_load_it_and_how_well_it_did(
    middle: Run, lm: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    card = (middle.path / "memory" / "README.md").read_text()
    last = middle.load_history()[-1]
    for said in (
        "toy-gpt_neox in float32", "after block 1,", "of 2 epochs",
        f"{last.positive_ce:.2f} nats per token under the document's own",
        f"{last.negative_ce:.2f} nats per token under negative",
        "0. Cyclone Odalys", DIGESTS[2][:16],
    ):  # fmt: skip
        assert said in card
    middle.load_memory().save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == card
    # What it says about loading works as it stands.
    lm.model.save_pretrained("lm")
    lm.tokenizer.save_pretrained("lm")
    code = card.split("```python\n")[1].split("```")[0].replace("toy-gpt_neox", "lm")
    exec(code.replace("this folder, or its id on the Hub", str(middle.path / "memory")))
    assert capsys.readouterr().out.strip()


def test_memory_of_another_run_is_refused(whole: Run, middle: Run, tmp_path: Path):
    mixed = Run.open(shutil.copytree(middle.path, tmp_path / "mixed"))
    assert torch.equal(mixed.load_memory().doc_reps, middle.load_memory().doc_reps)
    config = dataclasses.replace(quick(tmp_path / "other"), hook_memory_dim=8)
    for other in (
        train(config, lm=toy_lm(), documents=DOCUMENTS, progress=False),
        train(quick(tmp_path / "lm"), lm=toy_lm(seed=1), documents=DOCUMENTS, progress=False),
        train(quick(tmp_path / "two"), lm=toy_lm(), documents=DOCUMENTS[:2], progress=False),
    ):
        shutil.rmtree(mixed.path / "memory")
        shutil.copytree(other.path / "memory", mixed.path / "memory")
        with pytest.raises(DocmemError, match="is of another run"):
            mixed.load_memory()
