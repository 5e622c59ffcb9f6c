"""Training equals a plain loop over the hooked LM, and leaves the LM alone."""

import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from toys import DOCUMENTS, raising, toy_lm

from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document, segments
from docmem.errors import DocmemError
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.negatives import negative_doc_rep
from docmem.training.run import Run
from docmem.training.selection import memory_selection
from docmem.training.setup import check_given_lm, default_folder, new_memory
from docmem.training.train import train
from docmem.training.trainer import new_optimizer


def read(lm: LanguageModel, memory: DocumentMemory, layer: int, texts, doc_rep: Tensor) -> Tensor:
    """Mean cross entropy of texts read one by one, without padding, by the whole LM."""
    losses = []
    with attach(lm.model, memory, layer) as hooked, hooked.document(doc_rep):
        for text in texts:
            ids = lm.tokenizer(text, return_tensors="pt")["input_ids"][:, :20]
            logits = lm.model(input_ids=ids, use_cache=False).logits
            losses.append(functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none"))
    return torch.cat(losses).mean()


def naive(
    config: TrainConfig, lm: LanguageModel, documents: list[Document]
) -> tuple[DocumentMemory, list[list[float]]]:
    """The paper's loop: full forwards of each batch, under its DocRep and under negatives."""
    memory = new_memory(config, lm, documents)
    optimizer = new_optimizer(config, memory)
    generator = torch.Generator().manual_seed(config.seed)
    batches = []
    for doc_id, document in enumerate(documents):
        texts = segments(document.text, config.segment_length, config.max_segments)
        for start in range(0, len(texts), config.batch_size):
            batches.append((doc_id, texts[start : start + config.batch_size]))
    history = []
    for _ in range(config.num_epochs):
        epoch = []
        for number, (doc_id, texts) in enumerate(batches, start=1):
            own = read(lm, memory, config.hook_memory_layer, texts, memory.doc_reps[doc_id])
            read_under = [texts]
            if config.negative_rows is not None:
                order = torch.randperm(len(texts), generator=generator)[: config.negative_rows]
                read_under = [[texts[row]] for row in order]
            others = []
            for some in read_under:
                negative = negative_doc_rep(
                    config.negative_key_type,
                    memory.doc_reps,
                    doc_id,
                    generator,
                    config.negative_delta,
                )
                others.append(read(lm, memory, config.hook_memory_layer, some, negative))
            other = torch.stack(others).mean()
            distance = other - config.target_negative_ce
            if config.loss_form == "absolute":
                term = config.guidance * distance.abs()
            else:
                term = config.guidance * (own if distance**2 > own else distance**2)
            first = (number - 1) // config.num_accumulation_steps * config.num_accumulation_steps
            group = min(config.num_accumulation_steps, len(batches) - first)
            ((own + term) / group).backward()
            epoch.append([own.item(), other.item(), term.item()])
            if number % config.num_accumulation_steps == 0 or number == len(batches):
                gradients = [parameter.grad for parameter in memory.parameters()]
                norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
                for gradient in gradients:
                    gradient *= min(1.0, config.grad_clip_coeff / norm)
                optimizer.step()
                optimizer.zero_grad()
        history.append(torch.tensor(epoch).mean(0).tolist())
    return memory, history


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt_neox", {}),
        ("gpt_neox", {"hook_memory_layer": 0, "key_activation": "swiglu", "grad_clip_coeff": 0.3}),
        ("gpt_neox", {"num_accumulation_steps": 2, "guidance": 2.0, "negative_key_type": "zero"}),
        ("gpt2", {"loss_form": "absolute", "negative_key_type": "random", "batch_size": 3}),
        ("llama", {"weight_decay": 0.0, "num_accumulation_steps": 3}),
        ("llama", {"weight_decay": 0.5}),
        ("gpt_neox", {"optimizer": "muon", "doc_rep_init": "spread", "negative_rows": 1}),
        ("llama", {"negative_rows": 2, "negative_key_type": "random", "batch_size": 3}),
        ("gptj", {"negative_key_type": "perturb", "document_key_module_type": "nonlinear"}),
    ],
)
def test_training_equals_a_plain_loop_over_the_hooked_lm(
    family: str, changes: dict, config: TrainConfig, documents: list[Document]
):
    lm = toy_lm(family)
    config = replace(config, **{"num_epochs": 2, "max_length": 20, "guidance": 0.5, **changes})
    memory, history = naive(config, lm, documents)
    run = train(config, lm=lm, documents=documents, progress=False)
    for epoch, losses in zip(run.load_history(), history, strict=True):
        assert [*epoch][1:4] == pytest.approx(losses, rel=1e-4)
    initial = new_memory(config, lm, documents).state_dict()
    for name, tensor in run.load_memory().state_dict().items():
        torch.testing.assert_close(
            tensor, memory.state_dict()[name], atol=1e-4, rtol=1e-3, msg=name
        )
        assert torch.equal(tensor, initial[name]) == (name == "doc_reps"), name


def test_training_leaves_the_lm_bitwise_unchanged(
    lm: LanguageModel, config: TrainConfig, documents: list[Document]
):
    lm.model.requires_grad_(True)
    lm.model.lm_head.requires_grad_(False)
    lm.model.train()
    weights = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    blocks = list(lm.blocks)
    train(config, lm=lm, documents=documents, progress=False)
    assert all(torch.equal(lm.model.state_dict()[k], tensor) for k, tensor in weights.items())
    assert all(now is then for now, then in zip(lm.blocks, blocks, strict=True))
    assert all(module.training for module in lm.model.modules())
    frozen = [name for name, p in lm.model.named_parameters() if not p.requires_grad]
    assert frozen == ["lm_head.weight"]
    assert all(p.grad is None for p in lm.model.parameters())
    assert not any(module._forward_hooks for module in lm.model.modules())


def test_dropout_is_off_even_if_the_lm_is_in_training_mode(
    config: TrainConfig, documents: list[Document], tmp_path: Path
):
    lm, memories = toy_lm("gpt2"), []
    assert lm.model.config.resid_pdrop > 0
    for mode in (False, True):
        lm.model.train(mode)
        changed = replace(config, save_dir=tmp_path / str(mode), num_epochs=1)
        memories.append(train(changed, lm=lm, documents=documents, progress=False).load_memory())
    assert torch.equal(memories[0].values.weight, memories[1].values.weight)


def test_training_memorises_each_document_under_its_own_doc_rep(trained: tuple[LanguageModel, Run]):
    lm, run = trained
    cache, memory = run.cache_hidden_states(lm), run.load_memory()
    assert run.finished
    assert run.load_history()[0].positive_ce > 6
    assert run.load_history()[-1].positive_ce < 3.2
    with torch.no_grad():
        for index, doc_id in enumerate(cache.doc_ids):
            losses = cache.cross_entropies(index, memory, memory.doc_reps)
            assert losses.argmin() == doc_id
            others = torch.cat([losses[:doc_id], losses[doc_id + 1 :]])
            assert (others > losses[doc_id] + 1).all()


def test_snapshots_hold_the_start_and_every_save_freq_epochs(
    lm: LanguageModel, config: TrainConfig, documents: list[Document]
):
    config = replace(config, num_epochs=6)
    run = train(config, lm=lm, documents=documents, progress=False)
    snapshots, cache = run.load_snapshots(), run.cache_hidden_states(lm)
    assert snapshots.epochs == [0, 3, 6]
    for index, memory in ((0, new_memory(config, lm, documents)), (-1, run.load_memory())):
        selection = memory_selection(memory, cache)
        assert torch.equal(snapshots.at(index).token, selection.token)
        assert torch.equal(snapshots.at(index).document, selection.document)
        assert torch.equal(snapshots.doc_reps[index], memory.doc_reps)
    assert not torch.equal(snapshots.document[0], snapshots.document[1])


def test_initial_memory_is_a_function_of_the_seed_alone(lm, config: TrainConfig, documents):
    state = torch.get_rng_state()
    first = new_memory(config, lm, documents)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second = new_memory(config, lm, documents)
    third = new_memory(replace(config, seed=2), lm, documents)
    assert torch.equal(first.values.weight, second.values.weight)
    assert not torch.equal(first.values.weight, third.values.weight)
    assert first.titles == [document.title for document in documents]


def test_training_by_names_equals_training_on_objects(
    lm: LanguageModel, documents: list[Document], config: TrainConfig, tmp_path: Path, monkeypatch
):
    lm.model.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "texts").mkdir()
    for number, document in enumerate(documents):
        (tmp_path / "texts" / f"{number}.txt").write_text(document.text)
    monkeypatch.chdir(tmp_path)
    config = replace(config, num_epochs=1)
    given = train(config, lm=lm, documents=documents[:2], progress=False)
    named = train(
        replace(config, save_dir=None, lm_name="lm", documents="texts", max_labels=2),
        progress=False,
    )
    assert named.path.parts[:2] == ("outputs", "lm")
    assert named.titles == given.titles
    assert torch.equal(named.load_memory().values.weight, given.load_memory().values.weight)


def test_default_folder_differs_for_every_setting_and_text(lm, config: TrainConfig, documents):
    config = replace(config, save_dir=None)
    folders = [
        default_folder(config, lm, documents),
        default_folder(replace(config, seed=2), lm, documents),
        default_folder(replace(config, key_activation="relu"), lm, documents),
        default_folder(config, lm, documents[:2]),
        default_folder(config, toy_lm("gpt2"), documents),
    ]
    assert len(set(folders)) == 5
    assert default_folder(config, toy_lm(), list(documents)) == folders[0]
    assert [folder.name[:8] for folder in folders[1:3]] == ["tanh-24-", "relu-24-"]


def test_training_works_outside_the_main_thread(lm, config: TrainConfig, documents):
    runs: list[Run] = []
    thread = threading.Thread(
        target=lambda: runs.append(train(config, lm=lm, documents=documents, progress=False))
    )
    thread.start()
    thread.join()
    assert runs[0].finished


@pytest.mark.parametrize(
    ("changes", "count", "complaint"),
    [
        ({}, 1, "negative 'other' needs a second document"),
        ({"hook_memory_layer": 3}, 3, "Layer 3 is out of range: this LM has 3 blocks"),
        ({"key_activation": "tanhh"}, 3, "no activation 'tanhh'"),
        ({"segment_length": 60, "max_length": 999}, 3, "exceeds the context of toy-gpt_neox, 64"),
    ],
)
def test_invalid_settings_leave_no_folder(lm, config, documents, changes, count, complaint):
    with pytest.raises(DocmemError, match=complaint):
        train(replace(config, **changes), lm=lm, documents=documents[:count], progress=False)
    assert not config.save_dir.exists()


def test_documents_of_one_title_are_rejected(lm, config: TrainConfig, documents):
    with pytest.raises(DocmemError, match="2 documents are called 'Cyclone Odalys'"):
        train(config, lm=lm, documents=[*documents, documents[0]], progress=False)


def test_weight_decay_defaults_to_that_of_the_authors_program(
    lm: LanguageModel, config: TrainConfig, documents: list[Document], tmp_path: Path
):
    changes: list[dict] = [{}, {"weight_decay": 0.01}, {"weight_decay": 0.5}]
    weights = []
    for number, change in enumerate(changes):
        changed = replace(config, num_epochs=1, save_dir=tmp_path / str(number), **change)
        run = train(changed, lm=lm, documents=documents, progress=False)
        weights.append(run.load_memory().values.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_segments_of_one_token_are_left_out_of_training(
    lm: LanguageModel, config: TrainConfig, documents: list[Document]
):
    """A batch of them has nothing to predict, and its mean would be 0 / 0."""
    longer = Document("Odd", "Sallow " * 6 + "a")
    config = replace(config, segment_length=6, max_length=1 + 1, batch_size=1, num_epochs=1)
    assert len(lm.tokenizer("a")["input_ids"]) == 1
    cache = cache_hidden_states(lm, [Document("Odd", "a tower")], replace(config, segment_length=1))
    assert cache.doc_ids == [0]  # "a" is left out, "tower" is not
    run = train(config, lm=lm, documents=[longer, *documents], progress=False)
    assert math.isfinite(run.load_history()[0].positive_ce)
    with pytest.raises(DocmemError, match="'A' is read as 1 segment of a single token"):
        cache_hidden_states(lm, [Document("A", "a")], config)


def test_another_gpu_than_the_lms_is_refused(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LanguageModel, "device", torch.device("cuda:0"))
    for device in ("auto", "cuda", "cuda:0"):
        check_given_lm(replace(config, device=device), toy_lm())
    for device in ("cuda:1", "cpu"):
        with pytest.raises(DocmemError, match=f"device is {device}"):
            check_given_lm(replace(config, device=device), toy_lm())


def test_a_gpus_generators_are_left_to_the_caller(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: raising(AssertionError())())
    new_memory(config, toy_lm(), DOCUMENTS)
