"""A training as it is seen: callbacks and loggers, a run in words, settings from files."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from toys import at, raising

import docmem
from docmem.cli.main import main, parse
from docmem.core.files import write_json
from docmem.documents import Document, load_documents
from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.training import settings_file
from docmem.training.callbacks import logger
from docmem.training.config import PRESETS, TrainConfig, preset
from docmem.training.description import describe
from docmem.training.history import Epoch
from docmem.training.run import Run


class Library(ModuleType):
    """A stand-in for a tracking library, which notes its calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            return self

        return call


class Watcher:
    """Notes the moments it is told of."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_start(self, run: Run) -> None:
        self.heard.append(f"start {len(run.load_history())}")

    def on_epoch(self, epoch: Epoch) -> bool:
        self.heard.append(f"epoch {epoch.epoch}")
        return epoch.epoch != 2

    def on_end(self, run: Run) -> None:
        self.heard.append(f"end {len(run.load_history())}")


def test_an_object_hears_of_start_epochs_and_end(go: Any) -> None:
    watcher = Watcher()
    assert not go(watcher).finished
    assert watcher.heard == ["start 0", "epoch 1", "epoch 2", "end 2"]
    assert go(watcher).finished
    assert watcher.heard[4:] == ["start 2", *(f"epoch {n}" for n in range(3, 8)), "end 7"]


def test_an_object_hears_of_the_end_after_an_error(go: Any) -> None:
    watcher = Watcher()
    watcher.on_epoch = at(1, raising(OSError("no network")))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no network"):
        go(watcher)
    assert watcher.heard == ["start 0", "end 0"]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_tracker_logs_every_epoch(name: Any, go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(name)
    monkeypatch.setitem(sys.modules, name, library)
    run = go(logger(name))
    begun, *logged, ended = library.calls
    assert begun[0] == "init"
    assert begun[2]["name"] == "run"
    assert json.dumps(begun[2]["config"])
    assert [call[2]["step"] for call in logged] == list(range(1, 8))
    assert logged[-1][1][0]["positive_ce"] == run.load_history()[-1].positive_ce
    assert ended[0] == "finish"


def test_tensorboard_writes_into_the_runs_folder(go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library("torch.utils.tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", library)
    run = go(logger("tensorboard"))
    assert library.calls[0][:2] == ("SummaryWriter", (str(run.path / "tensorboard"),))
    scalars = [call[1] for call in library.calls if call[0] == "add_scalar"]
    assert scalars[-3:] == [
        (name, getattr(run.load_history()[-1], name), 7)
        for name in ("positive_ce", "negative_ce", "guidance")
    ]
    assert library.calls[-1][0] == "close"


@pytest.mark.parametrize("moment", ["on_start", "on_epoch", "on_end"])
def test_what_watches_may_have_one_method_only(moment: str, go: Any) -> None:
    heard: list[Any] = []
    go(SimpleNamespace(**{moment: heard.append}))
    assert len(heard) == (7 if moment == "on_epoch" else 1)


@pytest.mark.parametrize("name", ["trackio", "wandb", "tensorboard"])
def test_missing_library_is_a_sentence_before_anything_is_read(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["train", "--log", name, "--lm_name", "no/such-lm"]) == 1
    assert f"pip install 'docmem[{name}]'" in capsys.readouterr().err


@pytest.mark.usefixtures("unchecked")
def test_unknown_logger_is_rejected() -> None:
    with pytest.raises(DocmemError, match="choose one of tensorboard, trackio, wandb"):
        logger("comet")  # type: ignore[arg-type]


def test_a_run_says_what_it_is(trained: tuple[LanguageModel, Run], tmp_path: Path) -> None:
    run = trained[1]
    last = run.load_history()[-1]
    for text in (repr(run), run._repr_html_()):
        for part in ("toy-gpt_neox", "3: Cyclone Odalys", "60 of 60", "finished",
                     f"own {last.positive_ce:.2f}"):  # fmt: skip
            assert part in text
    shutil.copytree(run.path, tmp_path / "copy")
    (tmp_path / "copy/history.jsonl").write_text("nonsense")
    assert "cannot be read" in repr(Run.open(tmp_path / "copy"))


def test_titles_are_escaped_and_shortened(lm: LanguageModel, tmp_path: Path) -> None:
    documents = [Document(f"<b>$x$</b> & {'long ' * 20}{n}", "text") for n in range(7)]
    page = Run(tmp_path, describe(TrainConfig(), lm, documents))._repr_html_()
    assert "<b>" not in page
    assert "$x$" not in page
    assert "…" in page
    assert "and 2 more" in page


def parsed(*arguments: str) -> TrainConfig:
    command: Any = parse(["train", *arguments])
    return command.config


def test_a_toml_file_changes_the_preset_and_flags_change_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('guidance = 0.5\nnum_epochs = 3\ntitles = ["A", "B"]\nsave_dir = "here"\n')
    changes: dict[str, Any] = {"guidance": 0.5, "titles": ("A", "B"), "save_dir": Path("here")}
    assert parsed("--config", str(path), "--num_epochs", "4") == preset(
        "tiny", num_epochs=4, **changes
    )
    assert parsed(f"--config={path}", "--preset", "pythia-1b").hook_memory_layer == 15
    plan: Any = parse(["plan", "--config", str(path)])
    assert plan.config.guidance == 0.5


@pytest.mark.parametrize("name", list(PRESETS))
def test_what_a_run_wrote_is_fed_back(name: Any, lm: LanguageModel, tmp_path: Path) -> None:
    config = preset(name, seed=7, weight_decay=0.5)
    documents = load_documents(max_documents=config.max_labels)
    write_json(tmp_path / "run.json", describe(config, lm, documents))
    for path in (tmp_path / "run.json", tmp_path):
        assert parsed("--config", str(path)) == config


def test_articles_chosen_in_python_are_fed_back_by_their_titles(
    lm: LanguageModel, tmp_path: Path
) -> None:
    chosen = load_documents()[5:8]
    write_json(tmp_path / "run.json", describe(preset("tiny"), lm, chosen))
    titles = tuple(one.title for one in chosen)
    path = str(tmp_path / "run.json")
    assert parsed("--config", path) == preset("tiny", titles=titles)
    assert parsed("--config", path, "--max_labels", "2") == preset("tiny", max_labels=2)


def test_files_chosen_in_python_are_fed_back_too(lm: LanguageModel, tmp_path: Path) -> None:
    folder, path = tmp_path / "texts", tmp_path / "run.json"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"the text of {name}")
    config = preset("tiny", documents=str(folder))
    chosen = load_documents(folder)[1:]
    write_json(path, describe(config, lm, chosen))
    assert parsed("--config", str(path)).titles == ("b", "c")
    (folder / "c.txt").write_text("another text")
    with pytest.raises(DocmemError, match="it read other documents"):
        parsed("--config", str(path))


def test_pages_given_in_python_are_not_taken_for_those_of_wikitext(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config = tmp_path / "run.json", preset("tiny", documents="wikitext-2")
    pages = load_documents(max_documents=3)
    monkeypatch.setattr(settings_file, "configured_documents", lambda _: pages)
    write_json(path, describe(config, lm, pages))
    assert parsed("--config", str(path)) == config
    write_json(path, describe(config, lm, [Document("Mine", "a text")]))
    with pytest.raises(DocmemError, match="it read other documents than wikitext-2"):
        parsed("--config", str(path))


def test_doc_reps_given_in_python_are_not_left_out(lm: LanguageModel, tmp_path: Path) -> None:
    path, documents = tmp_path / "run.json", load_documents(max_documents=3)
    given = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    write_json(path, describe(preset("tiny"), lm, documents, given))
    with pytest.raises(DocmemError, match="DocReps were given in Python"):
        parsed("--config", str(path))


def test_documents_given_in_python_are_not_taken_for_the_encyclopedia(
    lm: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, (first, *_) = tmp_path / "run.json", load_documents()
    for other in (Document("Mine", first.text), Document(first.title, "another text")):
        write_json(path, describe(preset("tiny"), lm, [other]))
        assert main(["train", "--config", str(path)]) == 1
        assert "it read other documents than encyclopedia holds" in capsys.readouterr().err
        assert parsed("--config", str(path), "--documents", "mine") == preset(
            "tiny", documents="mine"
        )


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.toml", "guidence = 1", "Did you mean 'guidance'"),
        ("a.toml", 'seed = "1"', "seed is '1'"),
        ("a.toml", "lr = nan", "lr is nan"),
        ("a.toml", "seed = ", "cannot be read as settings"),
        ("a.toml", "max_segments = 1\nmax_segements = 2", "says max_segments 2 times"),
        ("a.toml", "[memory]\nkey_dim = 2", "memory"),
        ("a.json", "[1]", "cannot be read as settings"),
        ("a.json", "{", "cannot be read as settings"),
        ("a.json", '{"config": {"lrr": 1}, "versions": {}}', "cannot be read as settings"),
        ("a.json", '{"config": 5, "versions": {}}', "no setting"),
        ("missing.toml", None, "cannot be read as settings"),
    ],
)
def test_a_wrong_file_is_a_sentence_that_names_it(
    name: str, content: str | None, complaint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["train", "--config", str(tmp_path / name)]) == 1
    message = capsys.readouterr().err
    assert f"docmem: {tmp_path / name}" in message
    assert complaint in message


def test_quiet_and_log_reach_the_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: Any
) -> None:
    seen: dict[str, Any] = {}

    def train(config: TrainConfig, **options: Any) -> Run:
        seen.update(options)
        return trained[1]

    monkeypatch.setattr("docmem.cli.commands.train", train)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())
    assert main(["train", "--quiet", "--log", "wandb"]) == 0
    assert (seen["progress"], seen["on_epoch"].library) == (False, sys.modules["wandb"])
    captured = capsys.readouterr()
    assert (len(captured.out.splitlines()), captured.err) == (1, "")
    assert docmem.Run is Run


def test_a_tracker_that_could_not_begin_is_not_ended(
    go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library("trackio")
    library.init = lambda **_: raising(OSError("no network"))()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", library)
    with pytest.raises(OSError, match="no network"):
        go(logger("trackio"))
    assert not library.calls
