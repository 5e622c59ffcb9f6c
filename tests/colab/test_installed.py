"""The installed package and the source archive hold every file of docmem, not modules alone."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALLED = Path(sysconfig.get_path("purelib"))
BUILD = "import setuptools.build_meta as backend; backend.build_sdist('dist')"


def package_files() -> dict[str, bytes]:
    """What is below docmem/ in this tree, without bytecode."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "docmem").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_is_installed() -> None:
    expected = package_files()
    for part in ("docmem/py.typed", "docmem/assets/tiny/", "docmem/explore/static/"):
        assert any(name.startswith(part) for name in expected), f"the tree holds no {part}"
    for name, content in expected.items():
        assert (INSTALLED / name).is_file(), f"{name} is not installed"
        assert (INSTALLED / name).read_bytes() == content, f"{name} differs from the tree's"


def test_every_file_of_the_installed_package_is_in_the_source_archive(tmp_path: Path) -> None:
    copy = tmp_path / "docmem"
    shutil.copytree(ROOT / "docmem", copy / "docmem")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    (archive,) = (copy / "dist").iterdir()
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    assert not {*package_files(), "LICENSE"} - packed


RIVALS = """
import docmem
from docmem.experiments.rivals_lora import LoRA
from docmem.experiments.rivals_prefix import Cartridge

config = docmem.preset("tiny", max_segments=1, optimizer="adamw")
documents = docmem.load_documents("encyclopedia", max_documents=2)
for kind in (LoRA, Cartridge):
    rival = kind(docmem.load_lm("tiny"), documents, config)
    rival.epoch()
    assert rival.losses[0] > 0
"""


def test_lora_and_cartridge_of_this_peft_are_trained(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", RIVALS], cwd=tmp_path, check=True)
