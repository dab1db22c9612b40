from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.core.errors import ConfigError, InputError
from polyres.synth.composed import ComposedConfig, make_song
from polyres.synth.instruments.recorded import open_recordings, render_recorded
from polyres.synth.requests import Order, plan_order
from polyres.synth.scores.midi import Note, Score

RATE_HZ = 44_100


def sine(pitch: float, level: float = 0.5, seconds: float = 1.0) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * k * 440 * 2 ** ((pitch - 69) / 12) * time_s) / k for k in (1, 2, 3))
    return level * tone * np.exp(-time_s)


def pitch_of(wave: np.ndarray) -> float:
    """MIDI pitch of the strongest partial up to 2 kHz."""
    spectrum = np.abs(np.fft.rfft(wave.mean(0) * np.hanning(wave.shape[1]), 8 * wave.shape[1]))
    frequency_hz = np.fft.rfftfreq(8 * wave.shape[1], 1 / RATE_HZ)
    return float(69 + 12 * np.log2(frequency_hz[np.argmax(spectrum * (frequency_hz < 2000))] / 440))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    silence = np.zeros(2000)
    sounds = {
        "bass_low/c3_soft": sine(36, 0.1),  # sounds an octave below its name
        "bass_low/c3_hard": sine(36, 0.8),
        "bass_low/gb3": sine(42),
        "keys/a4": sine(69),
        "drums_kit/kick_01": sine(30, 0.9, 0.2),
        "drums_kit/snare_01": sine(60, 0.9, 0.2),
        "drums_kit/notes": sine(60),
    }
    for name, wave in sounds.items():
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / f"{name}.wav", np.concatenate([silence, wave]), RATE_HZ, subtype="FLOAT")
    return folder


def played(recordings: Path, stem: str, *notes: tuple[float, float, int, int]) -> np.ndarray:
    score = Score(
        "piece", {stem: tuple(Note(start, end, 0, 0, pitch, vel) for start, end, pitch, vel in notes)}, (), 2.0
    )
    return render_recorded(score, np.random.default_rng(1), 2.0, str(recordings), (stem,))[stem]


def test_names_tell_notes_and_drums_and_octaves_are_heard(recordings: Path) -> None:
    by_name = {one.name: one for one in open_recordings(str(recordings))}
    assert sorted(by_name["bass_low"].notes) == [36, 42]
    assert [sound.path.stem for sound in by_name["bass_low"].notes[36]] == ["c3_soft", "c3_hard"]
    assert sorted(by_name["keys"].notes) == [69]
    assert sorted(by_name["drums_kit"].hits) == ["kick", "snare"]


@pytest.mark.parametrize("pitch", [36, 38, 40, 45])
def test_notes_sound_at_their_pitch_from_their_start_to_their_end(recordings: Path, pitch: int) -> None:
    wave = played(recordings, "bass", (0.5, 1.0, pitch, 100))
    assert wave.shape == (2, 2 * RATE_HZ)
    assert wave.dtype == np.float32
    assert not wave[:, : round(0.5 * RATE_HZ) - 1].any()
    assert np.abs(wave[:, round(0.5 * RATE_HZ) :][:, :441]).max() > 0.1 * np.abs(wave).max()
    assert np.abs(wave[:, round(1.6 * RATE_HZ) :]).max() < 1e-3 * np.abs(wave).max()
    assert pitch_of(wave) == pytest.approx(pitch, abs=0.3)


@pytest.mark.parametrize(("pitch", "heard"), [(120, 72), (20, 68)])
def test_notes_out_of_reach_sound_octaves_away(recordings: Path, pitch: int, heard: int) -> None:
    assert pitch_of(played(recordings, "other", (0.0, 1.0, pitch, 100))) % 12 == pytest.approx(heard % 12, abs=0.3)


def test_drums_play_what_the_kit_has(recordings: Path) -> None:
    wave = played(recordings, "drums", (0.0, 0.1, 36, 100), (1.0, 1.1, 39, 100), (1.5, 1.6, 75, 100))
    assert pitch_of(wave[:, :8000]) == pytest.approx(30, abs=0.5)
    assert pitch_of(wave[:, RATE_HZ : RATE_HZ + 8000]) == pytest.approx(60, abs=0.5)  # no clap: the snare
    assert not wave[:, round(1.5 * RATE_HZ) :].any()  # no wood block, and nothing in its place


def test_a_song_is_played_by_recordings_and_comes_again(recordings: Path) -> None:
    config = ComposedConfig(length_s=8.0, seed=2, recordings=str(recordings), always=("drums", "bass"))
    (waves, manifest), (again, _) = make_song(config, 0), make_song(config, 0)
    players = manifest["players"]
    assert isinstance(players, dict)
    assert "recorded" in players.values()
    assert waves.keys() == again.keys()
    assert all(np.array_equal(waves[stem], again[stem]) for stem in waves)
    assert config.identity() != ComposedConfig(length_s=8.0, seed=2, always=("drums", "bass")).identity()


def test_what_cannot_play_is_told(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no instrument in"):
        open_recordings(str(tmp_path))
    with pytest.raises(InputError, match="cannot open"):
        open_recordings(str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="recordings play scores and composed songs"):
        plan_order(Order(recordings=str(recordings), loops=str(recordings)), tmp_path)
