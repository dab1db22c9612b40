from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from polyres.core.errors import InputError
from polyres.datasets.tracks import index_tracks
from polyres.synth.cache import MadeConfig, make_root
from polyres.synth.requests import module_jobs
from tests.synth.modules.module_files import LENGTH_S, needs_openmpt, write_module

pytestmark = needs_openmpt


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one module and one that is broken."""
    folder = tmp_path_factory.mktemp("modules")
    write_module(folder / "tune.mod")
    (folder / "broken.it").write_bytes(b"IMPM")
    return folder


def test_takes_differ_and_come_again_from_the_same_seed(modules: Path, tmp_path: Path) -> None:
    jobs = module_jobs(tmp_path, modules, takes=2, length_s=None, seed=3)
    assert [job.folder.name for job in jobs] == ["tune_mod_take0", "tune_mod_take1"]
    (first, facts), (second, _), (again, _) = jobs[0].make(), jobs[1].make(), jobs[0].make()
    assert list(first) == ["drums", "bass", "other"]
    assert facts["instruments"] == {"drums": (0,), "bass": (1,), "other": (2,)}
    np.testing.assert_array_equal(first["bass"], again["bass"])
    assert first["bass"].shape != second["bass"].shape or not np.allclose(first["bass"], second["bass"])
    assert np.abs(sum(first.values())).max() <= 0.981
    other_seed = module_jobs(tmp_path, modules, takes=1, length_s=None, seed=4)[0]
    assert other_seed.made_from != jobs[0].made_from


def test_takes_are_added_up_to_a_length(modules: Path, tmp_path: Path) -> None:
    jobs = module_jobs(tmp_path, modules, takes=1, length_s=2.5 * LENGTH_S, seed=0)
    assert [job.number for job in jobs] == [0, 1, 2]


def test_a_folder_without_clear_modules_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tracker module in '.*' whose instruments are clear; give a folder of"):
        module_jobs(tmp_path, tmp_path, takes=1, length_s=None, seed=0)


def test_the_command_and_a_recipe_play_modules(
    modules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synth", str(tmp_path / "out"), "--modules", str(modules), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stems"]["drums"]["tracks"] == 1
    (track,) = index_tracks(tmp_path / "out", layout="synthetic")
    assert set(track.stems) == {"drums", "bass", "other"}
    spec = MadeConfig(kind="modules", modules=modules.name)
    made = make_root(spec, str(modules.parent), tmp_path / "cache", lambda line: None)
    for stem in track.stems:
        a, b = (soundfile.read(folder / "tune_mod_take0" / f"{stem}.wav")[0] for folder in (tmp_path / "out", made))
        np.testing.assert_array_equal(a, b)
