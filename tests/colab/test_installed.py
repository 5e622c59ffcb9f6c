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


def test_lora_of_this_peft_is_trained(tmp_path: Path) -> None:
    command = ["experiment", "baselines", "--fast", "--seeds", "1", "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "docmem", *command], cwd=tmp_path, check=True)
    assert (tmp_path / "baselines.png").stat().st_size > 0
