from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from polyres.core.errors import InputError
from polyres.data.synth import songs
from polyres.data.synth.bank import find_bank
from polyres.data.synth.loops import LoopBank
from polyres.data.synth.midi import Note, write_score
from polyres.data.synth.singer import SAMPLE_RATE_HZ, VoiceBank
from polyres.data.synth.songs import SongsConfig, list_midi, make_loops, make_songs, make_vocals

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
def voices(tmp_path: Path) -> VoiceBank:
    (tmp_path / "voices" / "A3").mkdir(parents=True)
    wave = 0.5 * np.sin(2 * np.pi * 220 * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "voices" / "A3" / "a.wav", wave, SAMPLE_RATE_HZ)
    return VoiceBank.open(tmp_path / "voices")


def read_folder(folder: Path) -> dict[str, Any]:
    return {path.stem: soundfile.read(path)[0] for path in sorted(folder.glob("*.wav"))}


def test_midi_files_are_found_at_any_depth(midi: Path, tmp_path: Path) -> None:
    assert [path.name for path in list_midi(midi)] == ["piece.mid"]
    with pytest.raises(InputError, match=r"no MIDI files in '.*nowhere'; give a folder with \.mid files"):
        list_midi(tmp_path / "nowhere")


def test_a_missing_bank_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(songs, "find_bank", lambda: None)
    with pytest.raises(InputError, match=r"no instrument bank found; install a General MIDI SoundFont or pass one"):
        make_songs(tmp_path, [], SongsConfig())


@needs_bank
def test_songs_are_made_once_with_manifest_and_balance(midi: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    config, out = SongsConfig(takes=2, seed=3, jobs=2), tmp_path / "out"
    (midi / "broken.mid").write_text("no MIDI")
    assert make_songs(out, list_midi(midi), config, report=lines.append) == 2
    assert sorted(path.name for path in out.iterdir()) == ["piece_take0", "piece_take1"]
    assert sum(line.startswith("left out: cannot read") for line in lines) == 2
    waves = read_folder(out / "piece_take0")
    assert set(waves) == {"drums", "bass"}
    peak = max(np.abs(wave).max() for wave in [waves["drums"] + waves["bass"], *waves.values()])
    assert -3.1 < 20 * np.log10(peak) < -0.9
    manifest = json.loads((out / "piece_take0" / "manifest.json").read_text())
    assert manifest["stems"] == ["drums", "bass"]
    assert manifest["take"]["seed"] == 3
    assert manifest["length_s"] == pytest.approx(len(waves["bass"]) / SAMPLE_RATE_HZ)
    (midi / "broken.mid").unlink()
    assert make_songs(out, list_midi(midi), config, report=lines.append) == 0
    assert make_songs(tmp_path / "again", list_midi(midi), config, report=lines.append) == 2
    for stem, wave in read_folder(tmp_path / "again" / "piece_take1").items():
        assert np.array_equal(wave, read_folder(out / "piece_take1")[stem])


@needs_bank
def test_a_singer_adds_vocals_at_the_level_of_the_song(midi: Path, voices: VoiceBank, tmp_path: Path) -> None:
    part = [Note(t, t + 0.9, 0, 33, 40 + t % 5, 100) for t in range(20)]
    write_score(part, (), 20.0, midi / "deep" / "piece.mid")
    make_songs(tmp_path / "out", list_midi(midi), SongsConfig(), voices=voices, report=lambda line: None)
    waves = read_folder(tmp_path / "out" / "piece_take0")
    assert set(waves) == {"bass", "vocals"}
    assert waves["vocals"].shape == waves["bass"].shape
    rms = {stem: np.sqrt((wave**2).mean()) for stem, wave in waves.items()}
    assert abs(20 * np.log10(rms["vocals"] / rms["bass"])) < 8.0


def test_vocals_and_loops_are_numbered_and_made_once(
    voices: VoiceBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    wave = np.zeros((2, 100), np.float32)
    monkeypatch.setattr(songs, "sing_track", lambda bank, seed, length_s: (wave, {"length": length_s}))
    monkeypatch.setattr(songs, "loop_track", lambda bank, seed, length_s: {"drums": wave})
    assert make_vocals(tmp_path / "out", voices, 2, 0, lines.append) == 2
    assert make_vocals(tmp_path / "out", voices, 3, 0, lines.append) == 1
    assert make_loops(tmp_path / "out", LoopBank({}, [], [], []), 1, 0, lines.append) == 1
    made = {path.name: sorted(p.name for p in path.iterdir()) for path in (tmp_path / "out").iterdir()}
    assert made["singer_002"] == ["manifest.json", "vocals.wav"]
    assert made["loops_000"] == ["drums.wav", "manifest.json"]
    assert len(made) == 4
    manifest = json.loads((tmp_path / "out" / "singer_000" / "manifest.json").read_text())
    assert 60.0 <= manifest["length"] <= 90.0


def test_written_midi_is_a_standard_file(midi: Path) -> None:
    assert mido.MidiFile(midi / "deep" / "piece.mid").length == pytest.approx(2.0, abs=0.01)
