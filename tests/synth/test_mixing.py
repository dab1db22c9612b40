from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.synth.instruments.oscillators import SAMPLE_RATE_HZ
from polyres.synth.mixing import MixConfig, active_rms, limit_together, mix_stems


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
