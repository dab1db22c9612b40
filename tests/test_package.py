"""The package as others get it: wheel, sdist, `torch.hub`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PARTS = ("src", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"
MAX_WHEEL_MB = 40


def run(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist, built from a copy of the project."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "project").mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
        copy(ROOT / part, folder / "project" / part)
    for kind in ("wheel", "sdist"):
        run([sys.executable, "-c", BUILD, kind, str(folder)], folder / "project")
    return folder


@pytest.mark.slow
def test_the_wheel_separates_a_song_by_itself(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < MAX_WHEEL_MB * 1e6
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"polyres", wheel.name.split("-py3")[0] + ".dist-info"}
    site = tmp_path / "site"
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], tmp_path)
    where = run([sys.executable, "-c", "import polyres; print(polyres.__file__)"], tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site)
    for words in (["synth", "songs", "--tracks", "1", "--length", "6"], ["separate", "songs", "--stems", "vocals"]):
        run([sys.executable, "-m", "polyres", *words], tmp_path, PYTHONPATH=str(site))
    inputs = list((tmp_path / "songs").rglob("*.wav"))
    assert len(inputs) >= 3
    assert len(list((tmp_path / "separated").rglob("vocals.wav"))) == len(inputs)


@pytest.mark.slow
def test_the_sdist_holds_the_code_and_no_results(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/polyres/cli/main.py"} <= names
    assert not any(name.startswith(("docs", "tests/", "benchmarks")) for name in names)


@pytest.mark.slow
def test_torch_hub_loads_the_default_model() -> None:
    separator = torch.hub.load(str(ROOT), "separator", source="local")
    stems = separator.separate(torch.zeros(2, 4410) + 1e-3, 44100)
    assert {name: tuple(stem.shape) for name, stem in stems.items()} == dict.fromkeys(separator.sources, (2, 4410))
