from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.synth import songs
from polyres.synth.instruments.bank import Preset, find_bank
from polyres.synth.jobs import run_jobs
from polyres.synth.scores.midi import Note, write_score
from polyres.synth.singer.recordings import SAMPLE_RATE_HZ
from polyres.synth.songs import SongsConfig, list_midi, loops_jobs, make_songs, plan_songs, sampled_banks, vocals_jobs

ELECTRONIC = SongsConfig(instruments="electronic")

needs_bank = pytest.mark.skipif(
    find_bank() is None or shutil.which("fluidsynth") is None, reason="needs fluidsynth and a General MIDI bank"
)


@pytest.fixture
def midi(tmp_path: Path) -> Path:
    folder = tmp_path / "midi"
    (folder / "deep").mkdir(parents=True)
    part = [Note(t / 2, t / 2 + 0.4, 9, 0, 38, 100) for t in range(4)] + [Note(0.0, 2.0, 0, 33, 40, 100)]
    write_score(part, (), 2.0, folder / "deep" / "piece.mid")
    return folder


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    (tmp_path / "voices" / "A3").mkdir(parents=True)
    wave = 0.5 * np.sin(2 * np.pi * 220 * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "voices" / "A3" / "a.wav", wave, SAMPLE_RATE_HZ)
    return tmp_path / "voices"


def read_folder(folder: Path) -> dict[str, Any]:
    return {path.stem: soundfile.read(path)[0] for path in sorted(folder.glob("*.wav"))}


def test_midi_files_are_found_at_any_depth(midi: Path, tmp_path: Path) -> None:
    assert [path.name for path in list_midi(midi)] == ["piece.mid"]
    with pytest.raises(InputError, match=r"no MIDI files in '.*nowhere'; give a folder with \.mid files"):
        list_midi(tmp_path / "nowhere")


def test_what_sampled_instruments_need_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(songs, "find_bank", lambda: None)
    with pytest.raises(InputError, match=r"no instrument bank found; install a General MIDI SoundFont or pass one"):
        sampled_banks()
    monkeypatch.setattr(songs, "read_presets", lambda bank: [])
    with pytest.raises(InputError, match=r"the bank '.*a.sf2' has no instruments; give another"):
        sampled_banks([tmp_path / "a.sf2"])
    monkeypatch.setattr(songs, "read_presets", lambda bank: [Preset(0, 0, "Piano")])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        InputError, match=r"'fluidsynth' is not installed; install it, or take --instruments electronic"
    ):
        sampled_banks([tmp_path / "a.sf2"])
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert sampled_banks([tmp_path / "a.sf2"]) == (str(tmp_path / "a.sf2"),)
    for instruments in ("sampled", "both"):
        with pytest.raises(ConfigError, match=rf"instruments is '{instruments}' but there are no banks"):
            SongsConfig(instruments=instruments)


def test_takes_are_planned_until_the_hours_are_reached(midi: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    (midi / "broken.mid").write_text("no MIDI")
    shutil.copy(midi / "deep" / "piece.mid", midi / "other.mid")
    config = ELECTRONIC.with_values({"hours": 12.0 / 3600.0})
    jobs = plan_songs(tmp_path, list_midi(midi), config, lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("left out: cannot read")
    assert [job.folder.name for job in jobs][:3] == ["piece_take0", "other_take0", "piece_take1"]
    lengths = [run_jobs([job])[0].length_s for job in jobs]
    assert sum(lengths) >= 12.0 > sum(lengths[:-1])
    with pytest.raises(InputError, match=r"none of the 1 MIDI files can be read; give a folder with other ones"):
        plan_songs(tmp_path, [midi / "broken.mid"], config, lines.append)


@pytest.mark.slow
def test_songs_are_made_once_whatever_the_number_of_processes(midi: Path, tmp_path: Path) -> None:
    config = ELECTRONIC.with_values({"takes": 2, "seed": 3})
    made = make_songs(tmp_path / "one", list_midi(midi), config)
    assert [(one.name, one.skipped) for one in made] == [("piece_take0", False), ("piece_take1", False)]
    assert all(one.skipped for one in make_songs(tmp_path / "one", list_midi(midi), config))
    waves = read_folder(tmp_path / "one" / "piece_take0")
    assert set(waves) == {"drums", "bass"}
    assert np.abs(waves["drums"] + waves["bass"]).max() < 1.0
    manifest = json.loads((tmp_path / "one" / "piece_take0" / "manifest.json").read_text())
    assert manifest["stems"] == ["drums", "bass"]
    assert manifest["take"]["seed"] == 3
    assert manifest["length_s"] == pytest.approx(len(waves["bass"]) / SAMPLE_RATE_HZ)
    make_songs(tmp_path / "two", list_midi(midi), config, jobs=2)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 6
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    other = make_songs(tmp_path / "three", list_midi(midi), config.with_values({"seed": 4, "takes": 1}))
    for stem, wave in read_folder(tmp_path / "three" / other[0].name).items():
        assert not np.array_equal(wave, waves[stem])


@needs_bank
def test_banks_and_synthesisers_share_the_stems(midi: Path, tmp_path: Path) -> None:
    config = SongsConfig(instruments="both", banks=sampled_banks(), seed=2, takes=3)
    make_songs(tmp_path, list_midi(midi), config)
    manifests = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/manifest.json"))]
    assert {tuple(manifest["electronic"]) for manifest in manifests} >= {("drums",), ("bass",)}
    assert all(manifest["stems"] == ["drums", "bass"] for manifest in manifests)


@needs_bank
def test_a_singer_adds_vocals_at_the_level_of_the_song(midi: Path, voices: Path, tmp_path: Path) -> None:
    part = [Note(t, t + 0.9, 0, 33, 40 + t % 5, 100) for t in range(20)]
    write_score(part, (), 20.0, midi / "deep" / "piece.mid")
    config = SongsConfig(banks=sampled_banks(), singer=str(voices), effects=False)
    make_songs(tmp_path / "out", list_midi(midi), config)
    waves = read_folder(tmp_path / "out" / "piece_take0")
    assert set(waves) == {"bass", "vocals"}
    assert waves["vocals"].shape == waves["bass"].shape
    rms = {stem: np.sqrt((wave**2).mean()) for stem, wave in waves.items()}
    assert abs(20 * np.log10(rms["vocals"] / rms["bass"])) < 8.0


def test_vocals_and_loops_are_numbered_and_made_once(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = np.zeros((2, 100), np.float32)
    monkeypatch.setattr(songs, "sing_track", lambda bank, seed, length_s: (wave, {"length": length_s}))
    monkeypatch.setattr(songs, "open_loops", lambda folder: None)
    monkeypatch.setattr(songs, "loop_track", lambda bank, seed, length_s: {"drums": wave})
    out = tmp_path / "out"
    assert [made.skipped for made in run_jobs(vocals_jobs(out, voices, 2, 0))] == [False, False]
    assert [made.skipped for made in run_jobs(vocals_jobs(out, voices, 3, 0))] == [True, True, False]
    run_jobs(loops_jobs(out, tmp_path, 1, 0))
    made = {path.name: sorted(p.name for p in path.iterdir()) for path in out.iterdir()}
    assert made["singer_002"] == ["manifest.json", "vocals.wav"]
    assert made["loops_000"] == ["drums.wav", "manifest.json"]
    assert len(made) == 4
    manifest = json.loads((out / "singer_000" / "manifest.json").read_text())
    assert 60.0 <= manifest["length"] <= 90.0
    with pytest.raises(OutputError, match=r"singer_000' was made with another seed or other options"):
        run_jobs(vocals_jobs(out, voices, 1, 1))


def test_written_midi_is_a_standard_file(midi: Path) -> None:
    assert mido.MidiFile(midi / "deep" / "piece.mid").length == pytest.approx(2.0, abs=0.01)
