from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.synth.singer.recordings import (
    SAMPLE_RATE_HZ,
    VoiceBank,
    clean_syllable,
    frequency_of,
    heard_pitch,
    pitch_in,
    pitch_of,
)


def sine(pitch: float, seconds: float, rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_of(pitch) * time_s)).astype(np.float32)


def spectral_pitch(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 18))
    return 69 + 12 * float(np.log2(np.argmax(spectrum) * SAMPLE_RATE_HZ / (1 << 18) / 440.0))


@pytest.mark.parametrize(
    ("name", "pitch"),
    [("C4", 60), ("A4", 69), ("A3", 57), ("F#3", 54), ("Bb2", 46), ("C-1", 0), ("H4", None), ("a4", None)],
)
def test_note_names(name: str, pitch: int | None) -> None:
    assert pitch_of(name) == pitch


@pytest.mark.parametrize(
    ("name", "pitch"),
    [
        ("la_A3", 57),
        ("vowel a F#4 soft", 66),
        ("f1_scales_c4", 60),  # f1 is no note a person can sing
        ("Bb3-02", 58),
        ("singer_Csharp4", 61),
        ("aa", None),
        ("take12", None),
        ("A3b", None),
        ("track_A9", None),
    ],
)
def test_note_names_inside_others(name: str, pitch: int | None) -> None:
    assert pitch_in(name) == pitch


def test_any_layout_of_a_folder_is_understood(tmp_path: Path) -> None:
    # By folder, by the folder around it, by file name, by ear; the nearest folder counts.
    for name, pitch in (("A3/la.wav", 50), ("D4/soft/la_A4.wav", 50), ("mix/la_F#4.flac", 50), ("plain/b.wav", 63.2)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, sine(pitch, 0.4), SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).standard_normal(9000) / 9, SAMPLE_RATE_HZ)
    (tmp_path / ".trash").mkdir()
    soundfile.write(tmp_path / ".trash" / "E3.wav", sine(52, 0.4), SAMPLE_RATE_HZ)
    bank = VoiceBank.open(tmp_path)
    found = {pitch: [path.relative_to(tmp_path).as_posix() for path in paths] for pitch, paths in bank.paths.items()}
    assert found == {57: ["A3/la.wav"], 62: ["D4/soft/la_A4.wav"], 66: ["mix/la_F#4.flac"], 63: ["plain/b.wav"]}
    assert set(VoiceBank.open(tmp_path / "A3").paths) == {57}


def test_useless_folders_are_told(tmp_path: Path) -> None:
    (tmp_path / "A3").mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"no recordings in '.*'; it needs audio files of sung notes"):
            VoiceBank.open(folder)
    soundfile.write(tmp_path / "noise.wav", np.zeros(9000), SAMPLE_RATE_HZ)
    with pytest.raises(InputError, match=r"no recording in '.*' has a pitch; name the files after notes"):
        VoiceBank.open(tmp_path)
    (tmp_path / "broken.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"broken\.wav cannot be read as audio"):
        VoiceBank.open(tmp_path)


@given(st.floats(36.0, 80.0))
def test_pitches_are_heard(pitch: float) -> None:
    time_s = np.arange(SAMPLE_RATE_HZ // 2) / SAMPLE_RATE_HZ
    partials = [np.sin(2 * np.pi * n * frequency_of(pitch) * time_s) / n for n in range(1, 9)]
    heard = heard_pitch(np.sum(partials, axis=0), SAMPLE_RATE_HZ)
    assert heard is not None
    assert abs(heard - pitch) < 0.52
    assert heard_pitch(np.zeros(0), SAMPLE_RATE_HZ) is None


def test_the_nearest_recording_is_taken_and_kept(tmp_path: Path) -> None:
    for name in ("A3", "D4", "A4"):
        soundfile.write(tmp_path / f"{name}.wav", sine(60, 0.5), SAMPLE_RATE_HZ)
    bank = VoiceBank.open(tmp_path)
    assert [bank.nearest_pitch(pitch) for pitch in (40, 59, 60, 65, 66, 90)] == [57, 57, 62, 62, 69, 69]
    sound = bank.sound(bank.paths[57][0], 57)
    assert bank.sound(bank.paths[57][0], 57) is sound
    assert sound.frequency_hz == pytest.approx(frequency_of(60), rel=0.005)


@given(offset=st.floats(-0.3, 0.3), lead=st.integers(0, 9000), rate_hz=st.sampled_from([22_050, 44_100]))
def test_cleaning_removes_offset_silence_and_noise(offset: float, lead: int, rate_hz: int) -> None:
    sung = sine(57, 0.5, rate_hz)
    noise = 0.002 * np.random.default_rng(0).standard_normal(len(sung) + 2 * lead)
    clean = clean_syllable(np.pad(sung, lead) + noise + offset, rate_hz)
    assert len(clean) / SAMPLE_RATE_HZ == pytest.approx(0.5, abs=0.06)
    assert abs(clean.mean()) < 2e-3
    assert np.sqrt((clean**2).mean()) == pytest.approx(0.1, rel=0.1)
    assert clean[0] == clean[-1] == 0.0
    assert spectral_pitch(clean) == pytest.approx(57, abs=0.1)


def test_nothing_is_cleaned_to_nothing() -> None:
    assert len(clean_syllable(np.zeros(0), 44_100)) == 0
    assert len(clean_syllable(np.zeros(9000), 44_100)) == 0
