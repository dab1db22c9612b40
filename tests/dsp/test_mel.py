"""Mel front ends against a slow oracle in NumPy, published values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.dsp import mel as mel_module
from polyres.dsp.mel import (
    AUDIOLDM2_16K,
    MEL_CONTROLS,
    MEL_INVERSES,
    MelConfig,
    audioldm2_log_mel,
    decibel_front_end,
    hz_from_mel,
    linear_magnitude,
    log_mel,
    log_mel_to_linear,
    mel_centres_hz,
    mel_filterbank,
    mel_framing,
    mel_from_hz,
    mel_of_magnitude,
    mel_spectrogram,
    mel_to_linear,
    require_front_end,
    transposed_layout,
)
from polyres.dsp.phase import reconstruct_framed

Array = NDArray[np.float64]
FRONT_END_48K = MelConfig(
    sample_rate_hz=48000, n_fft=2048, win_length=2048, hop_length=480, mel_bins=256, min_hz=20, max_hz=24000
)


def music(samples: int, rate_hz: int, seed: int = 0) -> Tensor:
    """Decaying chords, noise and a pause, peak 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / rate_hz
    wave = sum(np.sin(2 * np.pi * f * time) / (i + 1) for i, f in enumerate((110, 220.5, 331, 662, 1500, 3000)))
    wave = wave * np.exp(-3 * (time * 2 % 1)) + 0.02 * rng.standard_normal(samples)
    wave[samples // 2 : samples // 2 + samples // 8] = 0
    return torch.from_numpy(wave / np.abs(wave).max() * 0.5)


# -- slow oracle ------------------------------------------------------------------------------------------------------


def slaney_hz(mel: float) -> float:
    """The Auditory Toolbox's table: 200/3 Hz per mel up to 1000 Hz, then 27 steps per factor of 6.4."""
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def slaney_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def slow_filters(rate_hz: int, n_fft: int, count: int, low_hz: float, high_hz: float) -> Array:
    a, b = slaney_mel(low_hz), slaney_mel(high_hz)
    corners = [slaney_hz(a + (b - a) * i / (count + 1)) for i in range(count + 2)]
    filters = np.zeros((count, n_fft // 2 + 1))
    for i in range(count):
        left, top, right = corners[i : i + 3]
        for k in range(n_fft // 2 + 1):
            hz = k * rate_hz / n_fft
            if left < hz <= top:
                filters[i, k] = (hz - left) / (top - left)
            elif top < hz < right:
                filters[i, k] = (right - hz) / (right - top)
        filters[i] *= 2 / (right - left)
    return filters


def slow_log_mel(wave: Array, n_fft: int, hop: int, filters: Array) -> Array:
    """Reflect by hand, window by hand, transform by a matrix of cosines and sines."""
    pad, last = (n_fft - hop) // 2, len(wave) - 1
    places = [abs(i) if i <= last else 2 * last - i for i in range(-pad, len(wave) + pad)]
    padded = wave[places]
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * i / n_fft) for i in range(n_fft)])
    turns = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) % n_fft / n_fft * 2 * np.pi
    rows = []
    for start in range(0, len(padded) - n_fft + 1, hop):
        frame = padded[start : start + n_fft] * window
        magnitude = np.hypot(np.cos(turns) @ frame, np.sin(turns) @ frame)
        rows.append([math.log(max(value, 1e-5)) for value in filters @ magnitude])
    return np.array(rows)


@pytest.mark.parametrize("samples", [433, 1600, 4000, 4123])
def test_audioldm2_front_end_to_the_letter(samples: int) -> None:
    wave = music(samples, 16000)
    expected = slow_log_mel(wave.numpy(), 1024, 160, slow_filters(16000, 1024, 64, 0, 8000))
    assert expected.shape == (samples // 160, 64)
    np.testing.assert_allclose(audioldm2_log_mel(wave).numpy(), expected, rtol=0, atol=1e-9)
    single = audioldm2_log_mel(wave.float()).double().numpy()
    loud = expected > math.log(1e-2)
    np.testing.assert_allclose(single[loud], expected[loud], rtol=0, atol=1e-5)
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-3)


def test_a_48_khz_front_end_to_the_letter() -> None:
    wave = music(3000, 48000)
    expected = slow_log_mel(wave.numpy(), 2048, 480, slow_filters(48000, 2048, 256, 20, 24000))
    ours = log_mel(wave, FRONT_END_48K).numpy()
    assert ours.shape == (6, 256)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


def test_the_range_is_the_one_the_weights_know() -> None:
    values = audioldm2_log_mel(music(16000, 16000).float())
    assert float(values.min()) == pytest.approx(math.log(1e-5))
    assert 0 < float(values.max()) < 1
    assert float(audioldm2_log_mel(torch.zeros(1600)).max()) == pytest.approx(-11.5129, abs=1e-4)


def test_level_adds_and_nothing_is_normalised() -> None:
    wave = music(3200, 16000)
    shift = audioldm2_log_mel(wave) - audioldm2_log_mel(wave / 8)
    heard = audioldm2_log_mel(wave / 8) > -11
    torch.testing.assert_close(shift[heard], torch.full_like(shift[heard], math.log(8)))


# -- filters ----------------------------------------------------------------------------------------------------------


LIBROSA_SLANEY = {
    (0, 3): 0.0213311523,
    (5, 17): 0.0156007072,
    (20, 62): 0.0186899398,
    (31, 106): 0.0115269461,
    (47, 250): 0.0,
    (63, 495): 0.00194609177,
}
LIBROSA_HTK = {(0, 5): 0.621008889, (3, 12): 0.0, (12, 60): 0.688613827, (25, 170): 0.550312623, (39, 470): 0.542145873}
LIBROSA_SLANEY_SUM, LIBROSA_HTK_SUM = 4.09588016, 466.639807


def test_filters_are_librosas() -> None:
    """Values that librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64) and its relatives give."""
    filters = mel_filterbank(AUDIOLDM2_16K)
    for (mel, k), value in LIBROSA_SLANEY.items():
        assert float(filters[mel, k]) == pytest.approx(value, rel=1e-5)
    htk = mel_filterbank(MelConfig(scale="htk", norm="none", mel_bins=40, min_hz=50, max_hz=7600))
    for (mel, k), value in LIBROSA_HTK.items():
        assert float(htk[mel, k]) == pytest.approx(value, rel=1e-5)
    assert float(filters.sum()) == pytest.approx(LIBROSA_SLANEY_SUM, rel=1e-5)
    assert float(htk.sum()) == pytest.approx(LIBROSA_HTK_SUM, rel=1e-5)


@pytest.mark.parametrize(("hz", "mel"), [(0, 0), (500, 7.5), (1000, 15), (6400, 42), (40960, 69)])
def test_the_slaney_scale_passes_its_corners(hz: float, mel: float) -> None:
    assert float(mel_from_hz(torch.tensor(float(hz)).double())) == pytest.approx(mel)
    assert float(hz_from_mel(torch.tensor(float(mel)).double())) == pytest.approx(hz)


def test_the_htk_scale_has_about_1000_mels_at_1000_hz() -> None:
    assert float(mel_from_hz(torch.tensor(1000.0), "htk")) == pytest.approx(999.9855, abs=1e-2)
    assert float(mel_from_hz(torch.tensor(6300.0).double(), "htk")) == pytest.approx(2595)


@given(hz=st.floats(0, 48000), scale=st.sampled_from(["slaney", "htk"]))
def test_scales_invert(hz: float, scale: str) -> None:
    there = mel_from_hz(torch.tensor(hz, dtype=torch.float64), scale)  # type: ignore[arg-type]
    assert float(hz_from_mel(there, scale)) == pytest.approx(hz, abs=1e-6)  # type: ignore[arg-type]


def test_slaney_filters_have_equal_area_and_plain_ones_add_up_to_one() -> None:
    fine = MelConfig(n_fft=16384, win_length=1024, hop_length=160)
    area = mel_filterbank(fine).sum(dim=1) * 16000 / 16384
    torch.testing.assert_close(area, torch.ones(64, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    plain = mel_filterbank(MelConfig(norm="none"))
    inner = slice(4, 480)  # between the middles of the first and the last filter
    torch.testing.assert_close(plain.sum(dim=0)[inner], torch.ones(476, dtype=torch.float64))


@given(
    scale=st.sampled_from(["slaney", "htk"]),
    count=st.integers(1, 80),
    low=st.floats(0, 500),
    high=st.floats(4000, 8000),
)
def test_filters_of_any_settings(scale: str, count: int, low: float, high: float) -> None:
    values = {"scale": scale, "mel_bins": count, "min_hz": low, "max_hz": high, "n_fft": 4096}
    filters = mel_filterbank(MelConfig.from_dict(values))
    hz = torch.arange(2049) * 16000 / 4096
    assert filters.shape == (count, 2049)
    assert float(filters.min()) == 0
    assert not bool(filters[:, (hz < low) | (hz > high)].any())
    middle = (filters * hz).sum(dim=1) / filters.sum(dim=1)
    assert bool((middle.diff() > 0).all())


# -- framing ----------------------------------------------------------------------------------------------------------


def test_batches_and_channels_keep_their_place() -> None:
    wave = torch.stack([music(2000, 16000, seed) for seed in range(6)]).reshape(2, 3, -1)
    together = audioldm2_log_mel(wave)
    assert together.shape == (2, 3, 12, 64)
    torch.testing.assert_close(together[1, 2], audioldm2_log_mel(wave[1, 2]))


def test_centred_frames_and_power() -> None:
    config = MelConfig(framing="centred", power=2, win_length=800)
    wave = music(4000, 16000)
    window = torch.hann_window(800, dtype=torch.float64)
    power = torch.stft(wave, 1024, 160, 800, window, center=True, return_complex=True).abs().square()
    torch.testing.assert_close(mel_spectrogram(wave, config), (mel_filterbank(config) @ power).T)
    torch.testing.assert_close(mel_of_magnitude(linear_magnitude(wave, config), config), mel_spectrogram(wave, config))


def test_the_gradient_reaches_the_wave() -> None:
    wave = music(2000, 16000).requires_grad_()
    log_mel(wave, AUDIOLDM2_16K).sum().backward()
    assert wave.grad is not None
    assert bool(torch.isfinite(wave.grad).all())


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_hz": 8001.0}, "max_hz 8001 is above 8000 Hz, the highest frequency that a sample rate of 16000 Hz"),
        ({"min_hz": 8000.0}, "min_hz 8000 must be below max_hz 8000"),
        ({"n_fft": 512}, "n_fft 512 is smaller than win_length 1024; raise n_fft to it"),
        ({"hop_length": 1024}, "hop_length 1024 must be smaller than win_length 1024"),
        ({"hop_length": 161}, "n_fft 1024 less hop_length 161 is odd"),
        ({"mel_bins": 600}, r"\d+ of 600 mel filters lie between two frequency bins 15.6 Hz apart and stay empty"),
        ({"floor": 0.0}, "floor = 0.0 is not allowed"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MelConfig.from_dict(change)


def test_a_front_end_that_weights_do_not_know_is_refused() -> None:
    require_front_end(AUDIOLDM2_16K, MelConfig(), "audioldm2")
    wrong = MelConfig(mel_bins=128, n_fft=2048)
    with pytest.raises(ConfigError, match=r"audioldm2 cannot be used with n_fft 2048 \(needs 1024\), mel_bins 128"):
        require_front_end(wrong, AUDIOLDM2_16K, "audioldm2")
    with pytest.raises(ConfigError, match="sample_rate_hz 48000"):
        require_front_end(FRONT_END_48K, AUDIOLDM2_16K, "audioldm2")


def test_what_is_no_audio_is_refused() -> None:
    with pytest.raises(InputError, match="a signal of 432 samples cannot be reflected by 432 samples"):
        audioldm2_log_mel(torch.zeros(432))
    with pytest.raises(InputError, match="the wave holds NaN or infinity"):
        audioldm2_log_mel(torch.full((2000,), torch.nan))
    with pytest.raises(InputError, match=r"type torch.int16; \[..., T\] float32 or float64 is needed"):
        audioldm2_log_mel(torch.zeros(2000, dtype=torch.int16))
    with pytest.raises(InputError, match=r"shape \(512, 9\); \[..., F, N\] with F = 513 bins is needed for n_fft 1024"):
        mel_of_magnitude(torch.zeros(512, 9), AUDIOLDM2_16K)


# -- wrong turns ------------------------------------------------------------------------------------------------------


def test_decibels_are_far_from_what_the_weights_know() -> None:
    wave = music(16000, 16000)
    right, wrong = audioldm2_log_mel(wave), decibel_front_end(wave)
    assert float(wrong.min()) == -4
    assert float(wrong.max()) == 0
    distance = float((right - wrong).abs().mean())
    assert 1.9 < distance < 6.2
    # The level of the file is gone.
    torch.testing.assert_close(decibel_front_end(wave / 4), wrong)
    # A pause is read as a magnitude of 0.018, 65 dB above the floor.
    pause = right.amax(dim=1) == right.min()
    assert bool(pause.any())
    hiss_db = 20 * (wrong[pause] - math.log(1e-5)) / math.log(10)
    assert float(hiss_db.mean()) == pytest.approx(65.3, abs=0.1)


def test_a_transposed_layout_keeps_the_values_and_loses_their_places() -> None:
    wave = music(160 * 150, 16000)
    right, wrong = audioldm2_log_mel(wave), transposed_layout(wave)
    assert wrong.shape == right.shape
    torch.testing.assert_close(wrong[:64], right[:64].T)
    torch.testing.assert_close(wrong[128:], right[128:])
    torch.testing.assert_close(wrong.flatten().sort().values, right.flatten().sort().values)
    assert float((right - wrong)[:128].abs().mean()) > 1


def test_the_wrong_turns_are_named() -> None:
    assert MEL_CONTROLS.names() == ["decibel_front_end", "transposed_layout"]
    assert MEL_CONTROLS.build("decibel_front_end", music(2000, 16000)).shape == (12, 64)


NAMES = ["pinv", "nnls", "smooth"]


def music_of_mel_inverse(samples: int = 8000) -> Tensor:
    rng = np.random.default_rng(0)
    time = np.arange(samples) / 16000
    wave = sum(np.sin(2 * np.pi * f * time) / (i + 1) for i, f in enumerate((131, 262.5, 393, 1180, 3100)))
    return torch.from_numpy(wave * np.exp(-3 * (time * 4 % 1)) * 0.2 + 0.003 * rng.standard_normal(samples))


@pytest.mark.parametrize(("name", "limit"), [("pinv", 0.3), ("nnls", 2e-3), ("smooth", 0.02)])
def test_the_front_end_sees_the_mels_again(name: str, limit: float) -> None:
    mels = log_mel(music_of_mel_inverse(), AUDIOLDM2_16K)
    linear = log_mel_to_linear(mels, AUDIOLDM2_16K, name)
    assert linear.shape == (513, 50)
    assert float(linear.min()) >= 0
    again = mel_of_magnitude(linear, AUDIOLDM2_16K).clamp_min(1e-5).log()
    assert float((again - mels).abs().mean()) < limit


def test_nnls_misses_as_little_as_scipys_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mels that no magnitudes have: noise. SciPy gets the same problem, rows of length 1."""
    filters = mel_filterbank(AUDIOLDM2_16K)
    length = filters.norm(dim=1)
    mels = torch.rand(6, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(4) * length
    monkeypatch.setattr(mel_module, "NNLS_ITERATIONS", 1000)
    ours = mel_to_linear(mels, AUDIOLDM2_16K, "nnls")
    for frame in range(6):
        scaled = (filters / length[:, None]).numpy()
        _, best = scipy.optimize.nnls(scaled, (mels[frame] / length).numpy())
        missed = float(np.linalg.norm(scaled @ ours[:, frame].numpy() - (mels[frame] / length).numpy()))
        assert missed < best * 1.002 + 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_flat_spectrum_stays_flat_and_level_goes_through(name: str) -> None:
    flat = torch.ones(513, 3, dtype=torch.float64)
    mels = mel_of_magnitude(flat, AUDIOLDM2_16K)
    linear = mel_to_linear(mels, AUDIOLDM2_16K, name)
    assert float((linear[10:450] - 1).abs().mean()) < (0.5 if name == "pinv" else 0.2)
    torch.testing.assert_close(mel_to_linear(mels * 1e-3, AUDIOLDM2_16K, name), linear * 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_bins_that_no_filter_hears_are_silent(name: str) -> None:
    config = MelConfig(min_hz=500, max_hz=4000, mel_bins=32)
    linear = mel_to_linear(mel_of_magnitude(torch.ones(513, 2), config), config, name)
    assert not bool(linear[:32].any())
    assert not bool(linear[257:].any())
    assert float(linear[100].min()) > 0
    assert not bool(mel_to_linear(torch.zeros(2, 32), config, name).any())


def test_power_is_rooted() -> None:
    config = MelConfig(power=2)
    magnitude = linear_magnitude(music_of_mel_inverse(), config)
    mels = mel_of_magnitude(magnitude, config)
    again = mel_of_magnitude(mel_to_linear(mels, config), config)
    assert float((again - mels).norm() / mels.norm()) < 1e-2


def test_frames_do_not_depend_on_each_other() -> None:
    mels = torch.rand(2, 3, 5, 64, generator=torch.Generator().manual_seed(1))
    together = mel_to_linear(mels, AUDIOLDM2_16K)
    assert together.shape == (2, 3, 513, 5)
    alone = mel_to_linear(mels[1, 2, 3:4], AUDIOLDM2_16K)[:, 0]
    assert float((together[1, 2, :, 3] - alone).norm()) < 1e-4 * float(alone.norm())


def test_the_way_back_to_a_wave_has_the_same_length_and_place() -> None:
    wave = music_of_mel_inverse()
    magnitude = linear_magnitude(wave, AUDIOLDM2_16K)
    framing = mel_framing(AUDIOLDM2_16K, len(wave))
    back = reconstruct_framed(magnitude, "pghi+fgla", framing, 32)
    assert back.shape == wave.shape
    again = linear_magnitude(back, AUDIOLDM2_16K)
    assert float(20 * torch.log10((again - magnitude).norm() / magnitude.norm())) < -25


def test_what_is_no_mel_spectrogram_is_refused() -> None:
    mels = torch.rand(20, 64)
    with pytest.raises(InputError, match=r"shape \(64, 20\).*\[..., N, 64\] of floats is needed .frames come before"):
        mel_to_linear(mels.T, AUDIOLDM2_16K)
    with pytest.raises(InputError, match="mels hold NaN or infinity"):
        mel_to_linear(mels / 0, AUDIOLDM2_16K)
    with pytest.raises(InputError, match=r"mels go down to -.*; they must be >= 0 \(use log_mel_to_linear for logs"):
        mel_to_linear(mels.log(), AUDIOLDM2_16K)
    with pytest.raises(UnknownNameError, match="unknown mel inverse 'nlls'; did you mean 'nnls'"):
        mel_to_linear(mels, AUDIOLDM2_16K, "nlls")


def test_the_catalogue_says_a_word_on_each() -> None:
    assert MEL_INVERSES.names() == NAMES
    assert all(MEL_INVERSES.summary(name) for name in NAMES)


HTK = MelConfig(scale="htk", min_hz=100, mel_bins=40)


@pytest.mark.parametrize("config", [AUDIOLDM2_16K, FRONT_END_48K, HTK], ids=["16k", "48k", "htk"])
def test_the_middles_of_the_filters_are_where_the_filters_peak(config: MelConfig) -> None:
    bin_hz = config.sample_rate_hz / config.n_fft
    heard = mel_filterbank(config).amax(dim=1) > 0
    peaks_hz = mel_filterbank(config).argmax(dim=1) * bin_hz
    assert (peaks_hz - mel_centres_hz(config))[heard].abs().max() < bin_hz
