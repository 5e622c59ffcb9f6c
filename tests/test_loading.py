"""The LM: its blocks, its tokens, and where it is loaded from."""

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toys import BLOCKS, CONTEXT, FAMILIES, toy_lm
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from docmem.core.blocks import find_blocks, resolve_layer
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.lm.forward import TokenBatch, forward_inputs, frozen
from docmem.lm.loading import TINY, LanguageModel, load_lm

TEXTS = ["Thornwick Light stands on the Shrike", "the Sea", "a granite tower"]


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_of_every_family_are_found(family: str):
    lm = toy_lm(family)
    assert find_blocks(lm.model) is lm.model.get_submodule(FAMILIES[family][1])
    assert (len(lm.blocks), lm.d_model) == (BLOCKS, 32)
    assert lm.context == (None if family == "bloom" else CONTEXT)


def test_lists_inside_the_blocks_are_not_mistaken_for_them(lm: LanguageModel):
    blocks = find_blocks(lm.model)
    blocks[0].experts = nn.ModuleList([nn.Linear(2, 2)] * BLOCKS)
    assert find_blocks(lm.model) is blocks


def test_two_lists_of_blocks_are_rejected(lm: LanguageModel):
    lm.model.gpt_neox.other = nn.ModuleList([nn.Linear(2, 2)] * BLOCKS)
    with pytest.raises(DocmemError, match=r"2 lists of 3 blocks \(gpt_neox.layers, gpt_neox.other"):
        find_blocks(lm.model)


def test_a_vision_tower_as_deep_as_the_lm_is_not_mistaken_for_it():
    sees = CLIPVisionConfig(hidden_size=8, num_hidden_layers=BLOCKS, num_attention_heads=2,
                            intermediate_size=8, image_size=28, patch_size=14)  # fmt: skip
    config = LlavaConfig(vision_config=sees, text_config=toy_lm("llama").model.config)
    model = LlavaForConditionalGeneration(config)
    assert find_blocks(model) is model.model.language_model.layers


def test_a_block_for_images_alone_takes_no_memory(lm: LanguageModel, memory: DocumentMemory):
    lm.model.config.cross_attention_layers = [1]  # as of Mllama, which leaves it out for text
    for layer in (1, -2):
        with pytest.raises(DocmemError, match="Layer 1 of this LM is run for images alone"):
            attach(lm.model, memory, layer)
    attach(lm.model, memory, 2)


def test_lm_without_a_list_of_blocks_is_rejected(lm: LanguageModel):
    lm.model.gpt_neox.layers = nn.ModuleList(lm.blocks[:2])
    with pytest.raises(DocmemError, match=r"has 0 lists of 3 blocks \(but of 2\)"):
        find_blocks(lm.model)


def test_resolve_layer_counts_from_either_end():
    assert [resolve_layer(layer, 3) for layer in (0, 1, 2, -1, -2, -3)] == [0, 1, 2, 2, 1, 0]


@pytest.mark.parametrize("layer", [3, -4])
def test_layer_out_of_range_names_both_ranges(layer: int):
    with pytest.raises(DocmemError, match=f"Layer {layer} .* 3 blocks, .* 0 to 2, or -3 to -1"):
        resolve_layer(layer, 3)


def test_frozen_restores_flags_and_modes_after_an_error(lm: LanguageModel):
    lm.model.lm_head.requires_grad_(True)
    lm.blocks[1].train()
    flags = {name: p.requires_grad for name, p in lm.model.named_parameters()}
    modes = {name: module.training for name, module in lm.model.named_modules()}
    with pytest.raises(KeyboardInterrupt), frozen(lm.model):
        assert not any(p.requires_grad for p in lm.model.parameters())
        assert not any(module.training for module in lm.model.modules())
        raise KeyboardInterrupt
    assert {name: p.requires_grad for name, p in lm.model.named_parameters()} == flags
    assert {name: module.training for name, module in lm.model.named_modules()} == modes


def test_texts_are_padded_on_the_left_to_the_longest(lm: LanguageModel):
    batch = lm.tokenize(TEXTS)
    rows = [lm.tokenizer(text)["input_ids"] for text in TEXTS]
    longest = max(map(len, rows))
    assert batch.input_ids.tolist() == [[0] * (longest - len(row)) + row for row in rows]
    assert batch.attention_mask.sum(1).tolist() == [len(row) for row in rows]
    assert batch.attention_mask[:, -1].all()


def test_only_tokens_after_a_real_token_are_predicted(lm: LanguageModel):
    batch = TokenBatch(torch.ones(2, 4).long(), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]).bool())
    assert batch.predicted.tolist() == [[False, False, True], [True, True, True]]


def test_texts_are_cut_at_max_length(lm: LanguageModel):
    whole = lm.tokenizer(TEXTS[0])["input_ids"]
    assert lm.tokenize(TEXTS, max_length=4).input_ids[0].tolist() == whole[:4]


def test_texts_are_cut_at_their_end_whatever_the_tokenizer_says(lm: LanguageModel):
    whole = lm.tokenizer(TEXTS[0])["input_ids"]
    lm.tokenizer.truncation_side = "left"
    try:
        assert lm.tokenize(TEXTS, max_length=4).input_ids[0].tolist() == whole[:4]
        assert lm.tokenizer.truncation_side == "left"
    finally:
        lm.tokenizer.truncation_side = "right"


def test_a_pad_token_that_the_lm_lacks_is_not_read():
    lm = toy_lm(seed=3)
    lm = dataclasses.replace(lm, tokenizer=copy.deepcopy(lm.tokenizer))
    lm.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert lm.tokenizer.pad_token_id >= lm.model.config.vocab_size
    batch = lm.tokenize(TEXTS)
    assert lm.model(**forward_inputs(lm.model, batch)).logits.isfinite().all()


def test_a_path_is_a_folder_also_where_docmem_knows_its_name(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lm.model.save_pretrained(tmp_path / "tiny")
    lm.tokenizer.save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert load_lm(Path("tiny")).d_model == lm.d_model != load_lm("tiny").d_model
    with pytest.raises(DocmemError, match=r"no folder '\./elsewhere'"):
        load_lm(Path("elsewhere"))


def test_text_beyond_the_context_is_rejected(lm: LanguageModel):
    text = "storm " * CONTEXT
    with pytest.raises(DocmemError, match=rf"\d+ tokens exceeds .* toy-gpt_neox, {CONTEXT} tokens"):
        lm.tokenize([text])
    assert lm.tokenize([text], max_length=CONTEXT).input_ids.shape == (1, CONTEXT)


def test_text_without_tokens_is_rejected(lm: LanguageModel):
    with pytest.raises(DocmemError, match="without tokens"):
        lm.tokenize(["a tower", ""])


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_row_has_the_logits_of_the_row_alone(family: str):
    lm = toy_lm(family)
    batch = lm.tokenize(TEXTS)
    together = lm.model(**forward_inputs(lm.model, batch)).logits
    for row, text in enumerate(TEXTS):
        alone = lm.model(**lm.tokenizer(text, return_tensors="pt", return_token_type_ids=False))
        length = alone.logits.shape[1]
        torch.testing.assert_close(together[row, -length:], alone.logits[0], atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:A bfloat16 product takes")
def test_saved_lm_is_loaded_frozen_with_the_same_weights(lm: LanguageModel, tmp_path: Path):
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    loaded = load_lm(tmp_path)
    assert loaded.name == str(tmp_path)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    weights = loaded.model.state_dict()
    assert weights.keys() == lm.model.state_dict().keys()
    assert all(torch.equal(weights[k], v) for k, v in lm.model.state_dict().items())
    assert torch.equal(loaded.tokenize(TEXTS).input_ids, lm.tokenize(TEXTS).input_ids)
    assert load_lm(str(tmp_path), dtype="bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["no/such/folder", "nobody-docmem/no-such-lm"])
def test_load_lm_error_names_alternatives(name: str):
    with pytest.raises(DocmemError, match=rf"'{name}' could not(.|\n)*pythia-1b(.|\n)*hf download"):
        load_lm(name)


def test_load_lm_rejects_damaged_weights(lm: LanguageModel, tmp_path: Path):
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DocmemError, match="could not be loaded"):
        load_lm(tmp_path)


def test_unknown_number_format_is_rejected():
    with pytest.raises(DocmemError, match="'int8'; choose one of auto, float32, bfloat16, float16"):
        load_lm("tiny", dtype="int8")


@pytest.mark.parametrize("device", ["cuda:7", "meta", "hpu", "nonsense"])
def test_device_that_torch_cannot_use_is_a_sentence(device: object, unchecked: None):
    with pytest.raises(DocmemError, match=f"device is '{device}', which torch cannot use"):
        load_lm("tiny", device=device)  # type: ignore[arg-type]


def test_device_and_num_gpus_say_the_same_thing():
    with pytest.raises(DocmemError, match="device is 'cpu' and num_gpus is 0"):
        load_lm("tiny", device="cpu", num_gpus=0)
    with pytest.raises(DocmemError, match="num_gpus is -1"):
        load_lm("tiny", num_gpus=-1)
    for device in (None, "cpu:0", torch.device("cpu")):
        assert load_lm("tiny", device=device).device == torch.device("cpu")


def test_load_lm_rejects_more_gpus_than_available(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DocmemError, match="num_gpus is 2, but torch sees 1"):
        load_lm("tiny", num_gpus=2)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *((f"pythia-{size}", (f"EleutherAI/pythia-{size}-deduped", "step143000"))
          for size in ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")),
        ("llama2-7b", ("meta-llama/Llama-2-7b-hf", "main")),
        ("llama2-13b", ("meta-llama/Llama-2-13b-hf", "main")),
        ("tiny", (str(TINY), "main")),
        ("someone/else", ("someone/else", "main")),
    ],
)  # fmt: skip
def test_short_name_loads_its_repository(
    name: str, place: tuple[str, str], lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def loader(result):
        def from_pretrained(repository, revision, output_loading_info=False, **_):
            asked.append((repository, revision))
            return (result, {"missing_keys": set()}) if output_loading_info else result

        return SimpleNamespace(from_pretrained=from_pretrained)

    monkeypatch.setattr("transformers.AutoTokenizer", loader(lm.tokenizer))
    monkeypatch.setattr("transformers.AutoModelForCausalLM", loader(lm.model))
    load_lm(name)
    assert asked == [place, place]


def test_a_name_longer_than_any_file_has_is_a_sentence() -> None:
    with pytest.raises(DocmemError, match="The LM 'xxx"):
        load_lm("x" * 5000)
