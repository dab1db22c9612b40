from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.synth.singer.recordings import (
    SAMPLE_RATE_HZ,
    VoiceBank,
    clean_syllable,
    frequency_of,
    heard_pitch,
    mark_periods,
    pitch_in,
    pitch_of,
    resynthesise,
    track_pitch,
)

RATE_HZ = 44_100


def vowel(pitch_hz: float, formants_hz: tuple[float, ...] = (700.0, 1200.0), seconds: float = 1.0) -> np.ndarray:
    """Pulses through resonances, harmonic by harmonic."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = np.zeros(len(time_s))
    for n in range(1, int(6000 / pitch_hz)):
        response = np.prod([f**2 / (f**2 - (n * pitch_hz) ** 2 + 90j * n * pitch_hz) for f in formants_hz])
        wave += np.abs(response) * np.cos(2 * np.pi * n * pitch_hz * time_s + np.angle(response))
    return (0.1 * wave / np.std(wave)).astype(np.float32)


def envelope_db(wave: np.ndarray, pitch_hz: float, at_hz: np.ndarray) -> np.ndarray:
    """Level of the harmonics, read between them by straight lines."""
    cut = wave[8000:-8000]
    spectrum = np.abs(np.fft.rfft(cut * np.hanning(len(cut)), 1 << 17))
    number = np.arange(1, int(4000 / pitch_hz))
    bins = np.rint(number * pitch_hz * (1 << 17) / RATE_HZ).astype(int)
    level = [20 * np.log10(spectrum[b - 40 : b + 41].max() * pitch_hz**-0.5) for b in bins]
    return np.interp(at_hz, number * pitch_hz, level)


def shape_db(wave: np.ndarray, pitch_hz: float) -> np.ndarray:
    level_db = envelope_db(wave, pitch_hz, np.arange(300.0, 2000.0, 20.0))
    return level_db - level_db.mean()


@given(st.floats(70.0, 900.0), st.sampled_from([16_000, 44_100, 48_000]))
@settings(max_examples=20)
def test_the_pitch_of_harmonic_sounds_is_found(frequency_hz: float, rate_hz: int) -> None:
    time_s = np.arange(rate_hz // 2) / rate_hz
    wave = sum(np.sin(2 * np.pi * n * frequency_hz * time_s + n) / n for n in range(1, 6))
    found, strength = track_pitch(np.asarray(wave), rate_hz)
    assert found == pytest.approx(np.full(len(found), frequency_hz), rel=0.01)
    assert strength.min() > 0.9


def test_noise_and_silence_have_no_pitch() -> None:
    _, strength = track_pitch(np.random.default_rng(0).standard_normal(20_000), RATE_HZ)
    assert np.median(strength) < 0.5
    _, strength = track_pitch(np.zeros(20_000), RATE_HZ)
    assert strength.max() == 0.0
    assert len(track_pitch(np.zeros(100), RATE_HZ)[0]) == 0


def test_marks_are_one_period_apart_and_keep_to_its_phase() -> None:
    sound = mark_periods(vowel(220.0), RATE_HZ, 230.0)
    assert sound.voiced[3:-12].all()
    assert sound.frequency_hz == pytest.approx(220.0, rel=0.002)
    assert np.diff(sound.position)[3:-12] == pytest.approx(np.full(len(sound.position) - 16, RATE_HZ / 220), abs=1.0)
    assert not mark_periods(np.zeros(5000), RATE_HZ).voiced.any()
    assert mark_periods(np.zeros(5000), RATE_HZ).frequency_hz is None


@pytest.mark.parametrize("semitones", [-6, 0, 5])
def test_pitch_moves_and_formants_stay(semitones: int) -> None:
    wave = vowel(200.0)
    sound = mark_periods(wave, RATE_HZ, 200.0)
    wanted_hz = 200.0 * 2 ** (semitones / 12)
    sung = resynthesise(sound, np.full(len(wave), wanted_hz), np.arange(len(wave)))
    found, _ = track_pitch(sung[4000:-4000], RATE_HZ)
    assert np.median(found) == pytest.approx(wanted_hz, rel=0.004)
    assert np.mean(np.abs(shape_db(sung, wanted_hz) - shape_db(wave, 200.0))) < 2.5
    if semitones:  # played faster or slower, the formants go along
        ratio = wanted_hz / 200.0
        moved = np.interp(np.arange(len(wave) / ratio) * ratio, np.arange(len(wave)), wave)
        assert np.mean(np.abs(shape_db(moved, wanted_hz) - shape_db(wave, 200.0))) > 4.0
    assert np.std(sung[4000:-4000]) == pytest.approx(np.std(wave), rel=0.35)


@pytest.mark.parametrize("size", [0.8, 1.25])
def test_size_moves_the_formants_alone(size: float) -> None:
    wave = vowel(100.0, (800.0,))
    sung = resynthesise(mark_periods(wave, RATE_HZ, 100.0), np.full(len(wave), 100.0), np.arange(len(wave)), size)
    found, _ = track_pitch(sung[4000:-4000], RATE_HZ)
    assert np.median(found) == pytest.approx(100.0, rel=0.004)
    at_hz = np.arange(300.0, 1500.0, 10.0)
    assert at_hz[np.argmax(envelope_db(sung, 100.0, at_hz))] == pytest.approx(800.0 * size, rel=0.09)


def test_an_unchanged_sound_comes_back() -> None:
    wave = vowel(180.0)
    sound = mark_periods(wave, RATE_HZ, 180.0)
    sung = resynthesise(
        sound, RATE_HZ / np.interp(np.arange(len(wave)), sound.position, sound.period), np.arange(len(wave))
    )
    shifts = [np.corrcoef(np.roll(sung, shift)[8000:-8000], wave[8000:-8000])[0, 1] for shift in range(-150, 150)]
    assert max(shifts) > 0.97


def test_time_is_held_where_the_source_stands_still() -> None:
    wave = np.concatenate([vowel(150.0, seconds=0.5), np.zeros(RATE_HZ // 2, np.float32)])
    sound = mark_periods(wave, RATE_HZ, 150.0)
    held = resynthesise(sound, np.full(2 * RATE_HZ, 150.0), np.full(2 * RATE_HZ, 0.25 * RATE_HZ))
    level = np.std(held[4000:-4000].reshape(-1, 100), axis=0).mean()
    assert level == pytest.approx(np.std(wave[: RATE_HZ // 2]), rel=0.3)
    assert not np.any(resynthesise(sound, np.full(500, 150.0), np.full(500, 0.9 * RATE_HZ)))
    assert len(resynthesise(sound, np.zeros(0), np.zeros(0))) == 0


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
