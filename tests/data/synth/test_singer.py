from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.data.synth.melody import Key, MelodyNote
from polyres.data.synth.singer import (
    SAMPLE_RATE_HZ,
    SingerStyle,
    VoiceBank,
    clean_syllable,
    draw_style,
    pitch_of,
    sing_melody,
    sing_note,
    sing_track,
)

PLAIN = SingerStyle(
    centre=60,
    recorded_shift=0,
    tempo_bpm=100.0,
    vibrato_cents=0.0,
    vibrato_hz=5.0,
    glide_cents=0.0,
    voices=((0, 0.0, 0.0, 1.0),),
    tilt_db=0.0,
    reverb=None,
    echo_beats=None,
)


def frequency(pitch: float) -> float:
    return 440.0 * 2.0 ** ((pitch - 69) / 12)


def sine(pitch: float, seconds: float, rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency(pitch) * time_s)).astype(np.float32)


def heard_pitch(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 18))
    return 69 + 12 * float(np.log2(np.argmax(spectrum) * SAMPLE_RATE_HZ / (1 << 18) / 440.0))


@pytest.fixture
def bank(tmp_path: Path) -> VoiceBank:
    for name, pitch in (("A3", 57), ("D4", 62), ("A4", 69)):
        (tmp_path / name).mkdir()
        for number in range(2):
            wave = np.concatenate([np.zeros(4000), sine(pitch, 1.2), np.zeros(4000)]) + 0.2
            soundfile.write(tmp_path / name / f"{number}.wav", wave, SAMPLE_RATE_HZ)
    return VoiceBank.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "pitch"),
    [("C4", 60), ("A4", 69), ("A3", 57), ("F#3", 54), ("Bb2", 46), ("C-1", 0), ("H4", None), ("a4", None)],
)
def test_note_names(name: str, pitch: int | None) -> None:
    assert pitch_of(name) == pitch


def test_banks_without_recordings_are_told(tmp_path: Path) -> None:
    (tmp_path / "A3").mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"no recordings in '.*'; it needs sub-folders named after pitches"):
            VoiceBank.open(folder)


def test_the_nearest_recording_is_taken(bank: VoiceBank) -> None:
    assert [bank.nearest_pitch(pitch) for pitch in (40, 59, 60, 65, 66, 90)] == [57, 57, 62, 62, 69, 69]


@given(offset=st.floats(-0.3, 0.3), lead=st.integers(0, 9000), rate_hz=st.sampled_from([22_050, 44_100]))
def test_cleaning_removes_offset_silence_and_noise(offset: float, lead: int, rate_hz: int) -> None:
    sung = sine(57, 0.5, rate_hz)
    noise = 0.002 * np.random.default_rng(0).standard_normal(len(sung) + 2 * lead)
    clean = clean_syllable(np.pad(sung, lead) + noise + offset, rate_hz)
    assert len(clean) / SAMPLE_RATE_HZ == pytest.approx(0.5, abs=0.06)
    assert abs(clean.mean()) < 2e-3
    assert np.sqrt((clean**2).mean()) == pytest.approx(0.1, rel=0.1)
    assert clean[0] == clean[-1] == 0.0
    assert heard_pitch(clean) == pytest.approx(57, abs=0.1)


def test_nothing_is_cleaned_to_nothing() -> None:
    assert len(clean_syllable(np.zeros(0), 44_100)) == 0
    assert len(clean_syllable(np.zeros(9000), 44_100)) == 0


@pytest.mark.parametrize("semitones", [-4.0, 0.0, 3.0])
def test_notes_are_sung_at_the_wanted_pitch(semitones: float) -> None:
    note = sing_note(sine(60, 2.0), 2 ** (semitones / 12), 1.0, PLAIN, np.random.default_rng(0))
    assert len(note) == SAMPLE_RATE_HZ
    assert heard_pitch(note) == pytest.approx(60 + semitones, abs=0.15)
    assert note[0] == note[-1] == 0.0


def test_short_syllables_end_early_and_empty_ones_are_silent() -> None:
    assert len(sing_note(sine(60, 0.5), 2.0, 1.0, PLAIN, np.random.default_rng(0))) == SAMPLE_RATE_HZ // 4
    assert len(sing_note(np.zeros(0, np.float32), 1.0, 1.0, PLAIN, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("shift", [0, -7])
def test_a_melody_is_sung_in_time_and_tune(bank: VoiceBank, shift: int) -> None:
    key = Key(0, "major")
    style = SingerStyle(**{**PLAIN.__dict__, "recorded_shift": shift})
    melody = [MelodyNote(0.5, 0.5, 60, 0), MelodyNote(1.5, 0.5, 64, 2)]
    wave = sing_melody(bank, melody, key, 2.5, style, 0)
    assert wave.shape == (2, round(2.5 * SAMPLE_RATE_HZ))
    for note in melody:
        start = round((note.start_s + 0.1) * SAMPLE_RATE_HZ)
        assert heard_pitch(wave[0, start : start + 15_000]) == pytest.approx(note.pitch, abs=0.2)
    assert np.abs(wave[:, : round(0.4 * SAMPLE_RATE_HZ)]).max() == 0.0
    assert np.abs(wave[:, round(1.15 * SAMPLE_RATE_HZ) : round(1.4 * SAMPLE_RATE_HZ)]).max() == 0.0


def test_tracks_depend_on_the_seed_alone(bank: VoiceBank) -> None:
    wave, manifest = sing_track(bank, 3, 8.0)
    again, _ = sing_track(VoiceBank(bank.paths), 3, 8.0)
    other, _ = sing_track(bank, 4, 8.0)
    assert np.array_equal(wave, again)
    assert not np.array_equal(wave, other)
    assert wave.shape == (2, 8 * SAMPLE_RATE_HZ)
    assert wave.dtype == np.float32
    assert np.abs(wave).max() == pytest.approx(0.7, rel=1e-3)
    assert manifest["seed"] == 3


def test_tracks_take_the_given_key(bank: VoiceBank) -> None:
    _, manifest = sing_track(bank, 3, 4.0, Key(7, "dorian"))
    assert manifest["key"] == {"tonic": 7, "scale": "dorian"}


def test_styles_vary() -> None:
    styles = [draw_style(np.random.default_rng(seed)) for seed in range(60)]
    assert {len(style.voices) for style in styles} >= {1, 2, 3}
    assert min(style.centre for style in styles) < 55
    assert max(style.centre for style in styles) > 65
    assert any(style.vibrato_cents for style in styles)
    assert any(style.reverb is None for style in styles)
