"""What formats can hold."""

from __future__ import annotations

import numpy as np
import pytest

from polyres.data.fit import Fitter, downmix_gains, fit_note, held_rate_hz


@pytest.mark.parametrize("channels", range(3, 13))
def test_a_downmix_keeps_sides_apart_and_cannot_clip(channels: int) -> None:
    gains = downmix_gains(channels)
    np.testing.assert_allclose(gains.sum(axis=1), 1.0, rtol=1e-6)
    assert (gains >= 0).all()
    assert gains[0, 1] == gains[1, 0] == 0


def test_five_channels_and_bass_are_mixed_as_broadcasting_does() -> None:
    # Source: ITU-R BS.775-4, annex 4: left = L + 0.7071 C + 0.7071 Ls; the bass channel is not used.
    total = 1 + 2 * 0.70710678
    np.testing.assert_allclose(downmix_gains(6)[0] * total, [1, 0, 0.70710678, 0, 0.70710678, 0], atol=1e-6)
    np.testing.assert_allclose(downmix_gains(6)[1] * total, [0, 1, 0.70710678, 0, 0, 0.70710678], atol=1e-6)


def test_blocks_do_not_matter_and_stems_still_sum_to_the_mixture() -> None:
    wave = np.random.default_rng(0).standard_normal((2, 6, 4000)).astype(np.float32)

    def fitted(part: np.ndarray, block: int) -> np.ndarray:
        fitter = Fitter("mp3", 192_000, 6)
        parts = [fitter.push(part[:, at : at + block]) for at in range(0, part.shape[1], block)]
        return np.concatenate([*parts, fitter.finish()], axis=1)

    whole = fitted(wave[0], 4000)
    assert whole.shape == (2, 1000)
    np.testing.assert_array_equal(fitted(wave[0], 7), whole)
    np.testing.assert_allclose(fitted(wave.sum(axis=0), 4000), whole + fitted(wave[1], 999), atol=1e-5)


def test_a_rate_loses_nothing_where_a_higher_one_is_there() -> None:
    rates_hz = {44_100: 44_100, 44_101: 48_000, 96_000: 48_000, 7999: 8000, 12_001: 16_000}
    assert {rate_hz: held_rate_hz("mp3", rate_hz) for rate_hz in rates_hz} == rates_hz
    assert held_rate_hz("wav", 3_000_000) == 3_000_000


def test_what_changes_is_told_in_one_line() -> None:
    assert fit_note("mp3", 192_000, 6) == (
        "192000 Hz resampled to 48000 Hz and 6 channels mixed down to 2, which mp3 can hold; wav keeps all"
    )
    assert fit_note("flac", 48_000, 9) == "9 channels mixed down to 2, which flac can hold; wav keeps all"
    assert fit_note("wav", 192_000, 9) is None
    assert fit_note("opus", 192_000, 2) is None
