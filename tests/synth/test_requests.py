from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.datasets.tracks import index_tracks
from polyres.synth import requests as orders
from polyres.synth.cache import MadeConfig, make_root
from polyres.synth.jobs import Made
from polyres.synth.requests import Order, composed_config, module_jobs, plan_order, write_summary
from polyres.synth.scores.midi import Note, write_score
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


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    for name in ("midi", "choir", "loops"):
        (tmp_path / name).mkdir()
    write_score([Note(0.0, 30.0, 0, 33, 40, 100)], (), 30.0, tmp_path / "midi" / "piece.mid")
    wave = np.sin(np.arange(20_000) * 0.03)
    for name in ("choir/A3.wav", "loops/kick.wav", "loops/snare.wav"):
        soundfile.write(tmp_path / name, wave, 44_100)
    return {"midi": str(tmp_path / "midi"), "singer": str(tmp_path / "choir"), "loops": str(tmp_path / "loops")}


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        ((), ("composed",)),
        (("midi",), ("midi",)),
        (("singer",), ("vocals",)),
        (("loops", "singer"), ("vocals", "loops")),
        (("midi", "singer"), ("midi",)),
        (("compose", "singer"), ("composed",)),
        (("compose", "midi", "loops"), ("midi", "composed", "loops")),
    ],
)
def test_what_is_given_says_what_is_made(asked: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    assert Order.from_dict({key: True if key == "compose" else "folder" for key in asked}).kinds == kinds


def test_hours_are_shared_out(folders: dict[str, str], tmp_path: Path) -> None:
    values = {"hours": 0.5, "compose": True, "instruments": "electronic", "length_s": 30.0}
    jobs = plan_order(Order.from_dict(values | {k: folders[k] for k in ("midi", "loops")}), tmp_path / "out")
    names = [job.folder.name for job in jobs]
    assert sum(name.startswith("song_") for name in names) == 20
    assert sum(name.startswith("loops_") for name in names) == 10
    assert 16 <= sum(name.startswith("piece_take") for name in names) <= 24
    solo = plan_order(Order(hours=0.1, singer=folders["singer"]), tmp_path / "out")
    assert 4 <= len(solo) <= 6
    assert not (tmp_path / "out").exists()


def test_numbers_count_without_hours(folders: dict[str, str], tmp_path: Path) -> None:
    order = Order.from_dict({**folders, "tracks": 3, "takes": 2, "instruments": "electronic", "compose": True})
    names = [job.folder.name for job in plan_order(order, tmp_path)]
    assert names[:3] == ["piece_take0", "piece_take1", "song_00000"]
    assert len(names) == 2 + 3 + 3


def test_instruments_are_those_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "find_bank", lambda: None)
    assert composed_config(Order(styles=("house",), seed=3)).instruments == "electronic"
    monkeypatch.setattr(orders, "find_bank", lambda: Path("a.sf2"))
    monkeypatch.setattr(orders, "sampled_banks", lambda given: ("a.sf2",))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert composed_config(Order()).instruments == "electronic"
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert composed_config(Order()).instruments == "both"
    assert composed_config(Order(instruments="electronic")).banks == ()


def test_wrong_orders_are_told(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="styles are for composed songs; add --compose, or leave --style out"):
        plan_order(Order(loops=folders["loops"], styles=("house",)), tmp_path)
    with pytest.raises(InputError, match="no recordings"):
        plan_order(Order(singer=folders["midi"]), tmp_path)
    with pytest.raises(InputError, match="no kick and snare"):
        plan_order(Order(loops=folders["midi"]), tmp_path)


def test_the_summary_says_what_is_there(tmp_path: Path) -> None:
    order = Order(seed=3, midi="/far/away/scores", banks=("/far/a.sf2",))
    write_summary(tmp_path, order, [Made("a", 2.0, ("drums",), 1.0)])
    stored = json.loads((tmp_path / "songs.json").read_text())
    assert stored["tracks"] == [{"name": "a", "length_s": 2.0, "stems": ["drums"]}]
    assert stored["order"] == order.to_dict() | {"midi": "scores", "banks": ["a.sf2"]}
    assert [path.name for path in tmp_path.iterdir()] == ["songs.json"]
    with pytest.raises(
        OutputError, match=r"cannot write '.*songs.json.songs.json' \(.*\); make room or choose another folder"
    ):
        write_summary(tmp_path / "songs.json", order, [])
