from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from polyres.synth.effects import (
    Band,
    Compressor,
    MixConfig,
    active_rms,
    band_filter,
    block_peaks,
    compress,
    echo,
    equalise,
    limit_together,
    mix_stems,
    place,
    ramped,
    reverberate,
    saturate,
    tilt_eq,
    widen,
)
from polyres.synth.instruments.oscillators import SAMPLE_RATE_HZ

RATE_HZ = 16_000


def sine(frequency_hz: float, length: int = RATE_HZ) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * np.arange(length) / RATE_HZ).astype(np.float32)


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(wave[..., 2000:-2000] ** 2) + 1e-20))


@pytest.mark.parametrize(("frequency_hz", "octaves"), [(250.0, -2.0), (1000.0, 0.0), (4000.0, 2.0)])
def test_tilt_is_in_db_per_octave(frequency_hz: float, octaves: float) -> None:
    wave = sine(frequency_hz)
    assert level_db(tilt_eq(wave, RATE_HZ, 1.5)) - level_db(wave) == pytest.approx(1.5 * octaves, abs=0.1)


def test_low_cut_takes_the_lowest_octaves() -> None:
    for frequency_hz, loss_db in ((50.0, 12.3), (100.0, 3.0), (1000.0, 0.0)):
        wave = sine(frequency_hz, 4 * RATE_HZ)
        assert level_db(wave) - level_db(tilt_eq(wave, RATE_HZ, 0.0, 100.0)) == pytest.approx(loss_db, abs=0.2)


@given(st.floats(-1.0, 1.0))
def test_placing_keeps_the_power(pan: float) -> None:
    left, right = place(np.ones(4), pan)
    assert left[0] ** 2 + right[0] ** 2 == pytest.approx(1.0, abs=1e-5)
    assert (right[0] - left[0]) * pan >= -1e-6


def test_echo_repeats_on_the_other_side_and_decays() -> None:
    wave = np.zeros((2, 100), np.float32)
    wave[0, 0] = 1.0
    heard = echo(wave, 30, 0.5, 0.4)
    expected = np.zeros((2, 100))
    expected[0, [0, 60]] = 1.0, 0.2
    expected[1, [30, 90]] = 0.4, 0.1
    assert heard == pytest.approx(expected)


def test_reverberation_has_the_asked_energy_and_decay() -> None:
    wave = np.zeros((2, 2 * RATE_HZ), np.float32)
    wave[:, 0] = 1.0
    tail = reverberate(wave, RATE_HZ, 1.0, 0.1, np.random.default_rng(0)) - wave
    assert (tail**2).sum(axis=1) == pytest.approx([0.1, 0.1], rel=0.01)
    early, late = ((tail[:, s : s + RATE_HZ // 10] ** 2).sum() for s in (RATE_HZ // 5, 7 * RATE_HZ // 10))
    assert 10 * np.log10(early / late) == pytest.approx(30.0, abs=2.0)
    assert np.abs(tail[:, RATE_HZ:]).max() < 1e-5
    assert np.corrcoef(tail)[0, 1] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("gain_db", [-9.0, 6.0])
@pytest.mark.parametrize(
    ("kind", "levels"), [("low_shelf", (1.0, 0.5, 0.0)), ("peak", (0.0, 1.0, 0.0)), ("high_shelf", (0.0, 0.5, 1.0))]
)
def test_bands_lift_what_they_name(kind: str, levels: tuple[float, ...], gain_db: float) -> None:
    # At 0 Hz, at the band's frequency and at half the rate.
    section = band_filter(Band(kind, 1000.0, gain_db), RATE_HZ)
    at = 2 * np.pi * np.array([0.0, 1000.0, RATE_HZ / 2]) / RATE_HZ
    _, response = scipy.signal.sosfreqz(section[None], at)
    assert 20 * np.log10(np.abs(response)) == pytest.approx(gain_db * np.array(levels), abs=1e-6)


def test_an_equaliser_chains_its_bands() -> None:
    bands = (Band("low_shelf", 200.0, 4.0), Band("high_shelf", 3000.0, -6.0))
    for frequency_hz, gain_db in ((30.0, 4.0), (7800.0, -6.0)):
        wave = np.stack([sine(frequency_hz)] * 2)
        assert level_db(equalise(wave, RATE_HZ, bands)) - level_db(wave) == pytest.approx(gain_db, abs=0.1)
    assert equalise(wave, RATE_HZ, ()) == pytest.approx(wave)


@given(st.floats(-30.0, -6.0), st.floats(1.5, 10.0))
def test_compression_follows_its_static_curve(threshold_db: float, ratio: float) -> None:
    wave = np.stack([sine(440.0), 0.5 * sine(440.0)])  # the louder side has its peak at 0 dB
    pressed = compress(wave, RATE_HZ, Compressor(threshold_db, ratio, 0.002, 30.0))
    expected_db = threshold_db * (1.0 - 1.0 / ratio)
    for side in range(2):
        gain_db = level_db(pressed[side]) - level_db(wave[side])
        assert gain_db == pytest.approx(expected_db, abs=0.1)


def test_compression_leaves_quiet_sound_alone_and_lets_go_at_its_rate() -> None:
    wave = np.full((1, 2 * RATE_HZ), 0.01, np.float32)
    assert compress(wave, RATE_HZ, Compressor(-30.0, 4.0)) == pytest.approx(wave, rel=1e-6)
    wave[0, : RATE_HZ // 2] = 1.0  # 0 dB, then -40 dB: the held level falls by 60 dB per second
    pressed = compress(wave, RATE_HZ, Compressor(-30.0, 1e9, 1e-5, 60.0))
    gain_db = 20 * np.log10(pressed / wave)[0]
    assert gain_db[RATE_HZ // 4] == pytest.approx(-30.0, abs=0.01)
    assert gain_db[RATE_HZ * 3 // 4] == pytest.approx(-15.0, abs=0.1)
    assert gain_db[RATE_HZ * 5 // 4] == pytest.approx(0.0, abs=1e-4)


@given(st.integers(1, 200), st.integers(1, 40))
def test_block_peaks_and_ramps(length: int, block: int) -> None:
    wave = np.random.default_rng(length).standard_normal((2, length)).astype(np.float32)
    peaks = block_peaks(wave, block)
    slow = [np.abs(wave[:, start : start + block]).max() for start in range(0, length, block)]
    assert peaks.tolist() == slow
    line = ramped(peaks, block, length)
    points = np.arange(len(peaks)) * block
    assert line == pytest.approx(np.interp(np.arange(length), points, peaks), abs=1e-5)


def test_saturation_keeps_the_level_and_makes_odd_harmonics() -> None:
    wave = np.stack([sine(500.0), 0.5 * sine(500.0)])
    for drive in (0.5, 4.0):
        bent = saturate(wave, drive)
        assert level_db(bent) == pytest.approx(level_db(wave), abs=0.1)
        assert bent == pytest.approx(-saturate(-wave, drive), abs=1e-6)
    spectrum = np.abs(np.fft.rfft(saturate(wave, 4.0)[0]))
    assert spectrum[1000] < 1e-3 * spectrum[500] < 0.1 * spectrum[1500]
    assert np.abs(np.fft.rfft(saturate(wave, 4.0, 0.3)[0]))[1000] > 0.01 * spectrum[500]
    assert saturate(wave, 1e-3) == pytest.approx(wave, abs=1e-5)
    assert np.array_equal(saturate(wave, 0.0), wave)
    assert np.array_equal(saturate(0 * wave, 2.0), 0 * wave)


def test_width_scales_the_difference_of_the_sides() -> None:
    wave = np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32)
    assert widen(wave, 1.0) == pytest.approx(wave, abs=1e-6)
    narrow, wide = widen(wave, 0.0), widen(wave, 1.7)
    assert narrow[0] == pytest.approx(narrow[1])
    assert np.std(wide[0] - wide[1]) / np.std(wide[0] + wide[1]) == pytest.approx(
        1.7 * np.std(wave[0] - wave[1]) / np.std(wave[0] + wave[1]), rel=1e-4
    )
    for moved in (narrow, wide):
        assert np.mean(moved**2) == pytest.approx(np.mean(wave**2), rel=1e-5)
    same = np.stack([wave[0], wave[0]])
    assert widen(same, 1.7) == pytest.approx(same, abs=1e-6)
    assert np.array_equal(widen(np.zeros((2, 9)), 0.5), np.zeros((2, 9)))


def noise(seed: int, length: int, level: float = 1.0) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal((2, length))).astype(np.float32)


@given(st.integers(1, 3000), st.floats(0.05, 4.0), st.floats(0.2, 1.0))
def test_limiting_keeps_the_sum_and_the_ceiling(length: int, level: float, ceiling: float) -> None:
    waves = {"drums": noise(0, length, level), "bass": noise(1, length, level)}
    waves["drums"][:, length // 2] *= 5.0
    limited = limit_together(waves, ceiling)
    mixture, result = (sum(w.values()) for w in (waves, limited))
    for wave in [result, *limited.values()]:
        assert np.abs(wave).max() <= ceiling * (1.0 + 1e-5)
    # One gain for all: what holds for the stems holds for their sum.
    gain = limited["drums"][0] / waves["drums"][0]
    assert result == pytest.approx(gain * mixture, abs=1e-4)
    assert gain.max() <= 1.0 + 1e-6


def test_limiting_touches_nothing_but_the_surroundings_of_a_peak() -> None:
    waves = {"drums": np.full((2, 8000), 0.1, np.float32), "bass": np.full((2, 8000), -0.1, np.float32)}
    assert all(np.array_equal(limit_together(waves, 0.9)[stem], waves[stem]) for stem in waves)
    waves["drums"][0, 4000] = 10.0
    limited = limit_together(waves, 0.9, reach_s=0.004)
    gain = limited["bass"][1] / waves["bass"][1]
    assert gain[4000] == pytest.approx(0.9 / 10.0, rel=0.02)
    assert np.array_equal(np.flatnonzero(gain < 1.0), np.arange(*np.flatnonzero(gain < 1.0)[[0, -1]] + [0, 1]))
    early, late = np.flatnonzero(gain < 1.0)[[0, -1]]
    assert 150 < 4000 - early < 500
    assert 150 < late - 4000 < 500
    assert np.abs(np.diff(gain)).max() < 0.02  # no clicks
    assert limit_together({}, 0.9) == {}


def test_the_limiter_bends_softly_between_knee_and_ceiling() -> None:
    level = 0.9
    limited = limit_together({"drums": np.full((1, 4000), level, np.float32)}, 1.0)["drums"]
    assert limited == pytest.approx(np.full((1, 4000), 0.7 + 0.3 * np.tanh((level - 0.7) / 0.3)), rel=1e-5)


def test_the_level_is_that_of_the_seconds_that_play() -> None:
    wave = np.zeros((2, 4 * SAMPLE_RATE_HZ), np.float32)
    assert active_rms(wave) == 0.0
    assert active_rms(wave[:, :0]) == 0.0
    wave[:, :SAMPLE_RATE_HZ] = 0.5
    wave[:, SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ] = 0.001
    assert active_rms(wave) == pytest.approx(0.5)


@given(st.integers(0, 1000))
def test_mixes_have_the_drawn_balance_and_loudness(seed: int) -> None:
    config = MixConfig(balance_db={"drums": (0.0, 0.0), "bass": (-6.0, 0.0)}, loudness_dbfs=(-24.0, -24.0))
    waves = {"drums": noise(2, 30_000, 3.0), "bass": noise(3, 30_000, 0.01), "other": np.zeros((2, 30_000))}
    mixed = mix_stems(waves, np.random.default_rng(seed), config)
    assert set(mixed) == {"drums", "bass"}
    levels = {stem: 20 * np.log10(active_rms(wave)) for stem, wave in mixed.items()}
    assert levels["drums"] - levels["bass"] == pytest.approx(6.0, abs=0.01)
    assert 20 * np.log10(active_rms(mixed["drums"] + mixed["bass"])) == pytest.approx(-24.0, abs=0.05)


def test_loud_mixes_stay_below_the_ceiling_and_are_limited_no_more_than_allowed() -> None:
    config = MixConfig(loudness_dbfs=(0.0, 0.0), ceiling_dbfs=(-1.0, -1.0), most_limited_db=3.0)
    waves = {"drums": noise(2, 30_000), "vocals": noise(3, 30_000)}
    mixed = mix_stems(waves, np.random.default_rng(0), config)
    mixture = mixed["drums"] + mixed["vocals"]
    assert -2.0 < 20 * np.log10(np.abs(mixture).max()) <= -1.0 + 1e-4
    before = waves["drums"] * (active_rms(mixed["drums"]) / active_rms(waves["drums"]))
    assert 20 * np.log10(np.abs(before).max() / np.abs(mixed["drums"]).max()) < 4.0
    assert mix_stems({}, np.random.default_rng(0), config) == {}
    again = mix_stems(waves, np.random.default_rng(0), config)
    assert all(np.array_equal(again[stem], mixed[stem]) for stem in mixed)
