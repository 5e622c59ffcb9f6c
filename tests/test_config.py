"""Settings: what the presets hold, and which values are refused with a sentence."""

import dataclasses
from pathlib import Path

import pytest

from docmem.core.config import MemoryConfig
from docmem.errors import DocmemError
from docmem.training.config import PRESETS, TrainConfig, preset, preset_for
from docmem.training.description import to_dict

BAD_TRAIN_VALUES = [
    ("max_labels", 0),
    ("segment_length", 0),
    ("max_segments", -1),
    ("max_length", 1),
    ("key_dim", 0),
    ("hook_memory_dim", 0),
    ("batch_size", 0),
    ("num_accumulation_steps", 0),
    ("num_epochs", 0),
    ("save_freq", 0),
    ("num_gpus", -1),
    ("negative_delta", -0.1),
    ("negative_delta", float("nan")),
    ("target_negative_ce", -4.5),
    ("target_negative_ce", float("inf")),
    ("guidance", -0.1),
    ("guidance", float("nan")),
    ("lr", 0.0),
    ("lr", float("nan")),
    ("grad_clip_coeff", 0.0),
    ("grad_clip_coeff", -5.0),
    ("weight_decay", -0.01),
    ("gpu_cache_gb", -1.0),
    ("cpu_cache_gb", float("inf")),
]
BAD_CHOICES = [
    ("negative_key_type", "others", "other, random, zero, perturb"),
    ("loss_form", "l2", "squared, absolute"),
    ("dtype", "float8", "auto, float32, bfloat16, float16"),
    ("document_key_module_type", "mlp", "linear, nonlinear"),
]


@pytest.mark.parametrize(("name", "value"), BAD_TRAIN_VALUES)
def test_config_rejects_invalid_number(name: str, value: float):
    with pytest.raises(DocmemError, match=f"^{name} is {value}; it must be .*\\d\\.$"):
        TrainConfig(**{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("name", "value", "choices"), BAD_CHOICES)
def test_unknown_choice_is_rejected_with_the_known_ones(name: str, value: str, choices: str):
    with pytest.raises(DocmemError, match=f"^{name} is '{value}'; choose one of {choices}"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", ["d_model", "n_docs", "memory_dim", "key_dim",
                                  "key_internal_dim", "key_internal_layers"])  # fmt: skip
def test_memory_config_rejects_size_zero(name: str):
    with pytest.raises(DocmemError, match=f"^{name} is 0; .* at least 1"):
        MemoryConfig(
            **{"d_model": 8, "n_docs": 2, "document_key_module_type": "nonlinear", name: 0}
        )


@pytest.mark.usefixtures("unchecked")
def test_unknown_key_generator_is_rejected():
    with pytest.raises(DocmemError, match="document_key_module_type is 'deep'; choose one of"):
        MemoryConfig(8, 2, document_key_module_type="deep")  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [TrainConfig(), MemoryConfig(8, 2)])
def test_configuration_cannot_be_changed(config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.key_dim = 3


@pytest.mark.parametrize("word", ["none", "None"])
def test_word_none_means_absent(word: str):
    optional = ("lm_size", "documents", "key_internal_activation")
    paths = ("lm_cache_dir", "data_cache_dir", "save_dir")
    config = TrainConfig(**dict.fromkeys(optional, word), **dict.fromkeys(paths, Path(word)))
    assert all(getattr(config, name) is None for name in optional + paths)


@pytest.mark.parametrize(
    ("settings", "lm", "source"),
    [
        ({}, "tiny", "encyclopedia"),
        ({"lm_name": "pythia", "lm_size": "1b"}, "pythia-1b", "wikitext-103"),
        ({"lm_name": "gpt2"}, "gpt2", "wikitext-103"),
        ({"lm_name": "gpt2", "lm_size": "none", "documents": "none"}, "gpt2", "wikitext-103"),
        ({"lm_name": "gpt2", "documents": "encyclopedia"}, "gpt2", "encyclopedia"),
        ({"documents": "my/folder"}, "tiny", "my/folder"),
    ],
)
def test_config_resolves_lm_and_documents(settings: dict, lm: str, source: str):
    config = TrainConfig(**settings)
    assert (config.lm, config.source) == (lm, source)


def test_memory_settings_reach_the_memory():
    config = TrainConfig(
        hook_memory_dim=7,
        key_dim=3,
        key_activation="swiglu",
        lm_act="relu",
        document_key_module_type="nonlinear",
        key_internal_dim=5,
        key_internal_activation="silu",
        key_internal_layers=4,
    )
    assert config.memory_config(d_model=16, n_docs=9) == MemoryConfig(
        d_model=16,
        n_docs=9,
        memory_dim=7,
        key_dim=3,
        key_activation="swiglu",
        lm_act="relu",
        document_key_module_type="nonlinear",
        key_internal_dim=5,
        key_internal_activation="silu",
        key_internal_layers=4,
    )


def test_one_and_one_point_zero_are_one_setting():
    one, other = preset("tiny", guidance=1), preset("tiny", guidance=1.0)
    assert (repr(one.guidance), repr(one.num_epochs)) == ("1.0", "20")
    assert to_dict(one) == to_dict(other)


def test_pythia_1b_has_the_published_settings():
    published = {
        "lm_name": "pythia",
        "lm_size": "1b",
        "lm_cache_dir": None,
        "data_cache_dir": None,
        "max_labels": 10,
        "segment_length": 128,
        "max_segments": 10,
        "max_length": 256,
        "key_dim": 2,
        "key_activation": "tanh",
        "hook_memory_dim": 32,
        "hook_memory_layer": 15,
        "lm_act": "gelu",
        "negative_key_type": "other",
        "document_key_module_type": "linear",
        "target_negative_ce": 4.5,
        "guidance": 0.1,
        "loss_form": "squared",
        "batch_size": 16,
        "lr": 1e-3,
        "num_accumulation_steps": 1,
        "grad_clip_coeff": 5,
        "num_epochs": 500,
        "save_freq": 10,
        "seed": 1,
    }
    settings = dataclasses.asdict(preset("pythia-1b"))
    assert {name: settings[name] for name in published} == published
    assert preset("pythia-1b").source == "wikitext-103"


def test_preset_tiny_needs_no_gpu_and_no_network():
    tiny = preset("tiny")
    assert tiny == TrainConfig()
    assert (tiny.lm, tiny.source, tiny.num_gpus) == ("tiny", "encyclopedia", None)


def test_preset_can_be_changed_in_parts_without_changing_the_preset():
    changed = preset("pythia-1b", guidance=0.5)
    assert changed == dataclasses.replace(PRESETS["pythia-1b"], guidance=0.5)
    assert PRESETS["pythia-1b"].guidance == 0.1


def test_changed_preset_is_checked():
    with pytest.raises(DocmemError, match="guidance is -1"):
        preset("tiny", guidance=-1.0)


def test_unknown_preset_is_rejected_with_the_known_ones():
    with pytest.raises(
        DocmemError, match="no preset 'pythia-1B'; choose one of tiny, smollm2-135m, pythia"
    ):
        preset("pythia-1B")


def test_a_path_is_a_folder_whatever_its_name():
    assert preset_for("tiny") == preset("tiny")
    assert preset_for(Path("tiny")) == preset("smollm2-135m", lm_name="./tiny")
    assert preset("tiny", documents=Path("encyclopedia")).documents == "./encyclopedia"


def test_lm_size_applies_only_to_pythia_and_llama2(tmp_path):
    assert preset("pythia-1b").lm == "pythia-1b"
    assert preset("pythia-1b", lm_name=str(tmp_path)).lm == str(tmp_path)
    assert preset("pythia-1b", lm_name="llama2", lm_size="7b").lm == "llama2-7b"


@pytest.mark.parametrize(
    ("name", "value"),
    [("key_internal_layers", 3), ("key_internal_dim", 16), ("key_internal_activation", "relu")],
)
@pytest.mark.parametrize("settings", [TrainConfig, lambda **kw: MemoryConfig(8, 2, **kw)])
def test_inside_of_a_linear_key_generator_is_rejected(settings, name: str, value: int | str):
    complaint = f"{name} is {value!r}, but a linear key generator has nothing inside"
    with pytest.raises(DocmemError, match=complaint):
        settings(**{name: value})
    assert settings(**{name: value, "document_key_module_type": "nonlinear"})
