import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from slow import slow

import docmem
from docmem.cli.commands import Train
from docmem.cli.main import exit_status, flags_in, main, parse
from docmem.core.hook import attach
from docmem.errors import DocmemError
from docmem.lm.generation import generate
from docmem.lm.loading import LanguageModel
from docmem.training.config import PAPER_PROCEDURE, PRESETS, TrainConfig
from docmem.training.run import Run

PAPER = [
    "train",
    "--lm_name",
    "pythia",
    "--lm_size",
    "1b",
    "--lm_cache_dir",
    "none",
    "--num_gpus",
    "1",
    "--max_labels",
    "10",
    "--segment_length",
    "128",
    "--max_segements",
    "10",
    "--max_length",
    "256",
    "--data_cache_dir",
    "none",
    "--lr",
    "1e-3",
    "--batch_size",
    "16",
    "--num_epochs",
    "500",
    "--save_freq",
    "10",
    "--num_accumulation_steps",
    "1",
    "--grad_clip_coeff",
    "5",
    "--seed",
    "1",
    "--hook_memory_dim",
    "32",
    "--hook_memory_layer",
    "15",
    "--lm_act",
    "gelu",
    "--key_dim",
    "2",
    "--key_activation",
    "tanh",
    "--negative_key_type",
    "other",
    "--document_key_module_type",
    "linear",
    "--target_negative_ce",
    "4.5",
    "--guidance",
    "0.1",
]


def parsed(arguments: list[str]) -> TrainConfig:
    command = parse(arguments)
    assert isinstance(command, Train)
    return command.config


def test_the_papers_command_gives_the_papers_preset() -> None:
    config = parsed(PAPER)
    assert config == dataclasses.replace(PRESETS["pythia-1b"], num_gpus=1)
    assert (config.lm, config.source) == ("pythia-1b", "wikitext-103")


def test_flags_change_the_named_preset() -> None:
    config = parsed(["train", "--preset", "pythia-1b", "--lr", "0.5", "--max-segments", "3"])
    assert (config.lr, config.max_segments, config.hook_memory_layer) == (0.5, 3, 15)
    assert parsed(["train", "--preset=pythia-1b"]) == PRESETS["pythia-1b"]
    assert parsed(["train"]) == PRESETS["tiny"]


@pytest.mark.parametrize("flags", [["--lr", "1e-3"], ["--lr=1e-3"], PAPER[1:]])
def test_a_command_that_sets_adamws_rate_trains_as_the_authors_program_does(
    flags: list[str],
) -> None:
    config = dataclasses.asdict(parsed(["train", *flags, "--hook_memory_layer", "-1"]))
    assert {name: config[name] for name in PAPER_PROCEDURE} == PAPER_PROCEDURE
    assert parsed(["train", *flags, "--optimizer", "muon"]).doc_rep_init == "spread"
    assert parsed(["train", "--preset", "tiny", "--lr", "1e-3"]).optimizer == "muon"


def test_settings_of_a_file_that_have_no_effect_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('optimizer = "adamw"\nmuon_lr = 0.5\n')
    assert main(["train", "--config", str(file)]) == 1
    assert "muon_lr is 0.5, but optimizer is adamw" in capsys.readouterr().err
    assert parsed(["train", "--config", str(file), "--optimizer", "muon"]).muon_lr == 0.5


def test_a_command_that_asks_for_the_authors_procedure_by_its_rate_is_told_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flags in (["--lr", "4e-3"], ["--lr", "4e-3", "--preset", "tiny"]):
        assert main(["plan", *flags, "--max_labels", "2", "--max_segments", "1"]) == 0
    assert capsys.readouterr().err.count("--lr without --preset or --optimizer begins with") == 1


def test_a_file_of_settings_keeps_its_optimizer(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("seed = 2\n")
    assert parsed(["train", "--config", str(file), "--lr", "1e-3"]).optimizer == "muon"
    file.write_text("max_segements = 3\n")  # as the authors' program spells it
    assert parsed(["train", "--config", str(file)]).max_segments == 3
    file.write_text('preset = "tiny"\n')
    with pytest.raises(DocmemError, match="give --preset beside --config"):
        parse(["train", "--config", str(file)])


def test_a_file_of_settings_can_be_none_as_the_help_says() -> None:
    for none in ("none", "None"):
        assert parsed(["train", "--config", none]) == TrainConfig()
        flags = ["--config", none, "--lr", "1e-3"]
        assert parsed(["train", *flags]) == parsed(["train", "--lr", "1e-3"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", "[" * 100_000), ("deep.toml", "a = " + "[" * 100_000),
        ("twice.json", '{"seed": 1, "seed": 2}'), ("list.json", "[]"), ("binary.toml", "\0"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_settings_is_a_sentence(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    assert main(["train", "--config", str(tmp_path / name)]) == 1
    assert f"{name} cannot be read as settings: " in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--negative_rows", "--snapshot_freq", "--num_gpus", "--save_dir"])
def test_an_absent_value_is_written_none(flag: str) -> None:
    for words in ([flag, "none"], [f"{flag}=none"]):
        assert getattr(parsed(["train", *words]), flag[2:]) is None
    assert parsed(["train", "--titles", "none"]).titles == ("none",)


def test_a_full_gpu_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    said = "CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 8 GiB."

    def full() -> int:
        raise torch.cuda.OutOfMemoryError(said)

    assert exit_status(full) == 1
    message = capsys.readouterr().err
    assert message.startswith("docmem: CUDA out of memory. Tried to allocate 9.00 GiB. Give a ")
    assert "batch_size or max_length" in message


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"docmem {docmem.__version__}\n"


def test_an_error_is_one_sentence_and_status_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["attribute", str(tmp_path), "--text", "x"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("docmem: ")
    assert "is not a run" in message
    assert "Traceback" not in message


def test_a_bad_value_is_one_sentence_and_status_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--hook_memory_dim", "0"]) == 1
    assert "hook_memory_dim is 0" in capsys.readouterr().err


@pytest.fixture
def run_folder(
    trained: tuple[LanguageModel, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A finished run, its LM served by name."""
    lm, run = trained
    monkeypatch.setattr("docmem.training.run.load_lm", lambda *_, **__: lm)
    shutil.copytree(run.path, tmp_path / "run")
    return tmp_path / "run"


def test_attribute_ranks_the_document_a_text_comes_from_first(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(run_folder)
    text = " ".join(run.documents[1].text.split()[:12])
    assert main(["attribute", str(run_folder), "--text", text]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(run.titles[1])


def test_generate_prints_the_text_written_under_the_document(
    run_folder: Path, trained: tuple[LanguageModel, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    lm, run = trained
    prompt, title = "Cyclone Odalys crossed", "Cyclone Odalys"
    arguments = ["generate", str(run_folder), "--document", title, "--prompt", prompt]
    assert main([*arguments, "--max_new_tokens", "6"]) == 0
    with attach(lm.model, run.load_memory()) as hooked:
        expected = generate(hooked, lm.tokenizer, prompt, title, max_new_tokens=6)
        under_none = generate(hooked, lm.tokenizer, prompt, None, max_new_tokens=6)
    assert capsys.readouterr().out == f"{prompt}{expected}\n"
    assert expected != under_none


def test_generate_suggests_the_nearest_title(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", str(run_folder), "--document", "Cyclone Odalis", "--prompt", "The"]
    assert main(arguments) == 1
    assert "Did you mean 'Cyclone Odalys'" in capsys.readouterr().err


@pytest.mark.slow
def test_figures_command_writes_figures_and_results(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures"
    assert main(["figures", str(run_folder), "--out", str(out), "--points", "5"]) == 0
    names = {path.name for path in out.iterdir() if path.suffix != ".mp4"}
    assert names == {
        "memory_selection_tanh.gif", "losses.png", "key_plane.png", "perplexity_wells.png",
        "results.json", "results.md",
    }  # fmt: skip
    (numbers,) = json.loads((out / "results.json").read_text())["runs"].values()
    page = (out / "results.md").read_text()
    for text, sep in ((capsys.readouterr().out, "  "), (page, "|")):
        (row,) = [line for line in text.splitlines() if "3 of 3" in line]
        cells = [cell.strip() for cell in row.strip("|").split(sep) if cell.strip()]
        base = sum(numbers["base_ce"]) / 3
        means = [f"{one:.2f}" for one in (base, numbers["own_ce"], numbers["other_ce"])]
        assert cells[:4] == ["tanh", *means]
        assert cells[4:6] == [f"{numbers['lowest_pair']['ce']:.2f}", f"{numbers['margin']:.2f}"]
        shares = [f"{numbers['completion'][whose]:.0%}" for whose in ("own", "other", "none")]
        assert cells[7:10] == shares
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines()]
    for number, title in enumerate(Run.open(run_folder).titles):
        base, own = numbers["base_ce"][number], numbers["ce"][number][number]
        assert [title, f"{base:.2f}", f"{own:.2f}"] in rows
    assert "after the last block, negative: another document's DocRep" in page


@pytest.mark.slow
def test_a_reader_that_stops_early_ends_the_command_in_silence(tmp_path: Path):
    code = "import sys; from docmem.cli.main import main; sys.exit(main(['train', '--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as command:
        command.stdout.close()
        said = command.stderr.read()
    assert (command.returncode, said) == (1, b"")


HELP = "import sys; from docmem.cli.main import main; sys.exit(main(['runs', sys.argv[1]]))"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_output_that_cannot_be_written_is_a_sentence(run_folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", HELP, run_folder], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", slow("latin-1")])
def test_output_in_another_encoding_and_closed_output_are_no_fault(
    run_folder: Path, encoding: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "Łódź" / "run").parent
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", HELP, folder.parent], env=environment, capture_output=True,
        encoding=encoding,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "d\\u017a/run" in done.stdout
    closed = f"import sys; sys.stdout = sys.stderr = None; {HELP}"
    assert subprocess.run([sys.executable, "-c", closed, folder]).returncode == 0


def test_an_interrupt_while_the_command_is_imported_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os; os.kill(os.getpid(), 2); raise KeyError")
    done = subprocess.run(
        [sys.executable, "-m", "docmem", "runs"], capture_output=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs are deaf
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_flags_with_hyphens_say_the_same() -> None:
    for flag in ("--max_labels", "--max-labels"):
        assert flags_in(["train", flag, "3"]).max_labels == "3"


def test_help_ends_in_the_narrowest_terminal() -> None:
    command = [sys.executable, "-m", "docmem", "train", "--help"]
    narrow = {**os.environ, "COLUMNS": "1"}
    done = subprocess.run(command, env=narrow, capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"--seed" in done.stdout
