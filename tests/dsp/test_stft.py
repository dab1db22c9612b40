"""The transform against slow oracles, and its two inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError
from polyres.dsp.stft import check_sizes, frame_count, istft, overlap_add, reflect_pad, stft

Array = NDArray[np.float64]
SIZES = [512 * 2**i for i in range(7)]
HOPS = [(n, n // 4) for n in SIZES] + [(n, n // 2) for n in SIZES] + [(n, 256) for n in SIZES[:5]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hann(n_fft: int) -> Array:
    window: Array = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return window


def padded_by_hand(wave: Array, n_fft: int, hop: int) -> Array:
    """Mirror around the first and last sample; zeros first where there is too little to mirror."""
    left = (n_fft - hop) // 2
    right = left + -(-len(wave) // hop) * hop - len(wave)
    zeros_left = zeros_right = 0
    while len(wave) + zeros_left + zeros_right <= max(left, right):
        if zeros_right < right:
            zeros_right += 1
        else:
            zeros_left += 1
    body = np.concatenate([np.zeros(zeros_left), wave, np.zeros(zeros_right)])
    left, right = left - zeros_left, right - zeros_right
    last = len(body) - 1
    places = [abs(i) if i <= last else 2 * last - i for i in range(-left, len(body) + right)]
    result: Array = body[places]
    return result


def frames_by_hand(wave: Array, n_fft: int, hop: int) -> Array:
    padded, window = padded_by_hand(wave, n_fft, hop), hann(n_fft)
    return np.stack([padded[k * hop : k * hop + n_fft] * window for k in range(-(-len(wave) // hop))])


def nyquist_part(wave: Array, n_fft: int, hop: int) -> Array:
    """What the dropped bin holds, put back into a wave by plain overlap-add."""
    window, sign = hann(n_fft), (-1.0) ** np.arange(n_fft)
    frames = frames_by_hand(wave, n_fft, hop)
    total = np.zeros((len(frames) - 1) * hop + n_fft)
    energy = np.zeros_like(total)
    for k, frame in enumerate(frames):
        total[k * hop : k * hop + n_fft] += (frame @ sign) / n_fft * sign * window
        energy[k * hop : k * hop + n_fft] += window**2
    pad = (n_fft - hop) // 2
    part: Array = (total / np.where(energy > 0, energy, 1))[pad : pad + len(wave)]
    return part


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (16, 8), (32, 2), (64, 16), (512, 128), (512, 256)])
@pytest.mark.parametrize("length", [1, 2, 5, 17, 64, 129, 700])
def test_equals_explicit_frames(n_fft: int, hop: int, length: int) -> None:
    wave = noise(2, length).double()
    spec = stft(wave, n_fft, hop)
    assert spec.shape == (2, n_fft // 2, frame_count(length, hop))
    turns = np.outer(np.arange(n_fft), np.arange(n_fft // 2)) / n_fft
    for row in range(2):
        frames = frames_by_hand(wave[row].numpy(), n_fft, hop)
        wanted = (frames @ np.exp(-2j * np.pi * turns)).T / np.sqrt(n_fft)
        np.testing.assert_allclose(spec[row].numpy(), wanted, atol=1e-12 * n_fft)


@pytest.mark.parametrize("n_fft", [512, 4096, 16384])
@pytest.mark.parametrize("length", [1, 1000, 20011, 32768])
def test_equals_the_recipe_of_demucs_at_a_quarter_hop(n_fft: int, length: int) -> None:
    """Centred transform of a signal padded by 3/2 hops, without two frames on each side and without Nyquist."""
    wave, hop = noise(1, length), n_fft // 4
    frames = -(-length // hop)
    padded = torch.from_numpy(padded_by_hand(wave[0].double().numpy(), n_fft, hop)).float()[None]
    window = torch.hann_window(n_fft)
    centred = torch.stft(padded, n_fft, hop, window=window, center=True, normalized=True, return_complex=True)
    assert centred.shape[-1] == frames + 4
    torch.testing.assert_close(stft(wave, n_fft, hop), centred[:, :-1, 2 : 2 + frames], atol=1e-5, rtol=0)


@settings(max_examples=60)
@given(sizes=st.sampled_from(HOPS), length=st.one_of(st.integers(1, 40), st.integers(1, 12000)), seed=st.integers(0, 9))
def test_round_trip_loses_the_nyquist_bin_and_nothing_else(sizes: tuple[int, int], length: int, seed: int) -> None:
    wave = noise(1, length, seed=seed)
    back = istft(stft(wave, *sizes), sizes[1], length)
    wanted = wave[0].double().numpy() - nyquist_part(wave[0].double().numpy(), *sizes)
    assert np.abs(back[0].numpy() - wanted).max() <= 1e-6 * float(wave.abs().max())


@pytest.mark.parametrize(("n_fft", "hop"), [pair for pair in HOPS if pair[1] != 256 or pair[0] == 4096])
def test_round_trip_is_exact_without_a_nyquist_part(n_fft: int, hop: int) -> None:
    """To the first and last sample, for a signal whose frames hold nothing at half the sample rate."""
    length = 2 * n_fft + 77
    wave = noise(length).double()
    frames = frame_count(length, hop)
    sign = (-1.0) ** torch.arange(n_fft).double() * torch.from_numpy(hann(n_fft))
    pad = (n_fft - hop) // 2

    def nyquist(x: Tensor) -> Tensor:
        return reflect_pad(x, pad, pad + frames * hop - length).unfold(0, n_fft, hop) @ sign

    rows = torch.autograd.functional.jacobian(nyquist, wave)
    wave = (wave - rows.T @ torch.linalg.lstsq(rows @ rows.T, rows @ wave).solution).float()
    error = istft(stft(wave, n_fft, hop), hop, length) - wave
    assert float(error.abs().max() / wave.abs().max()) <= 1e-6


def test_round_trip_of_a_tone_is_exact_away_from_the_ends() -> None:
    tone = torch.sin(torch.arange(20011).double() * 0.06)
    error = (istft(stft(tone, 512, 128), 128, 20011) - tone).abs()
    assert float(error.max()) < 2e-4
    assert float(error[512:-512].max()) < 1e-8


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 128), (512, 256), (2048, 256), (4096, 1024)])
@pytest.mark.parametrize("length", [1, 300, 9001])
def test_inverse_of_demucs_equals_its_recipe(n_fft: int, hop: int, length: int) -> None:
    """Zero frames around, a centred inverse of the padded length, and a cut."""
    spec = torch.view_as_complex(noise(3, n_fft // 2, frame_count(length, hop), 2))
    spec[:, 0] = spec[:, 0].real + 0j
    absent, pad = n_fft // (2 * hop), (n_fft - hop) // 2
    full = F.pad(torch.view_as_real(spec), (0, 0, absent, absent, 0, 1))
    window = torch.hann_window(n_fft)
    size = hop * spec.shape[-1] + 2 * pad
    wanted = torch.istft(torch.view_as_complex(full), n_fft, hop, window=window, normalized=True, length=size)
    torch.testing.assert_close(istft(spec, hop, length, "demucs"), wanted[:, pad : pad + length], atol=2e-5, rtol=1e-5)


def test_the_inverses_differ_at_the_ends_only() -> None:
    wave = noise(1, 8192)
    spec = stft(wave, 512, 128)
    exact, faded = istft(spec, 128, 8192), istft(spec, 128, 8192, "demucs")
    torch.testing.assert_close(exact[:, 512:-512], faded[:, 512:-512], atol=1e-6, rtol=0)
    assert float((exact - faded)[:, :64].abs().max()) > 0.1
    assert float((exact - faded)[:, -64:].abs().max()) > 0.1


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 128), (2048, 512), (512, 256), (2048, 256)])
def test_frames_are_centred_half_a_hop_into_their_cell(n_fft: int, hop: int) -> None:
    """An impulse there meets the peak of the window: a flat spectrum with alternating sign."""
    wave = torch.zeros(1, 8192)
    wave[0, 5 * hop + hop // 2] = 1
    frame = stft(wave, n_fft, hop)[0, :, 5]
    sign = (-1.0) ** torch.arange(n_fft // 2)
    torch.testing.assert_close(frame, torch.complex(sign, torch.zeros_like(sign)) / n_fft**0.5, atol=1e-6, rtol=0)


def test_a_tone_lands_in_its_bin_with_the_right_size() -> None:
    tone = torch.cos(2 * torch.pi * 37 / 512 * torch.arange(8192))
    level = stft(tone[None], 512, 128)[0, :, 30].abs()
    assert int(level.argmax()) == 37
    assert float(level[37]) == pytest.approx(512 / 4 / 512**0.5, rel=1e-4)


def test_is_linear_and_keeps_leading_axes() -> None:
    a, b = noise(2, 3, 1001), noise(2, 3, 1001, seed=1)
    torch.testing.assert_close(stft(2 * a - b, 512, 128), 2 * stft(a, 512, 128) - stft(b, 512, 128), atol=1e-5, rtol=0)
    spec = stft(a, 512, 128)
    torch.testing.assert_close(spec[1, 2], stft(a[1, 2], 512, 128))
    torch.testing.assert_close(istft(spec, 128, 1001)[1, 2], istft(spec[1, 2], 128, 1001))


def test_inverse_lets_gradients_through() -> None:
    spec = torch.view_as_complex(noise(8, 5, 2).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: istft(x, 4, 19), spec)


@given(length=st.integers(1, 60), left=st.integers(0, 40), right=st.integers(0, 40))
def test_padding_keeps_the_signal_in_its_place(length: int, left: int, right: int) -> None:
    wave = noise(2, length)
    padded = reflect_pad(wave, left, right)
    assert padded.shape == (2, left + length + right)
    torch.testing.assert_close(padded[:, left : left + length], wave)
    if max(left, right) < length:
        torch.testing.assert_close(padded, F.pad(wave, (left, right), mode="reflect"))


@given(frames=st.integers(1, 9), parts=st.integers(1, 5), hop=st.integers(1, 4))
def test_overlap_add_equals_a_loop(frames: int, parts: int, hop: int) -> None:
    pieces = noise(2, frames, parts * hop)
    wanted = torch.zeros(2, (frames - 1) * hop + parts * hop)
    for k in range(frames):
        wanted[:, k * hop : k * hop + parts * hop] += pieces[:, k]
    torch.testing.assert_close(overlap_add(pieces, hop), wanted)


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 100), (512, 512), (512, 0), (2, 1), (6, 3), (512, -128)])
def test_impossible_sizes_are_refused(n_fft: int, hop: int) -> None:
    with pytest.raises(
        InputError, match=rf"n_fft {n_fft} with hop_length {hop} is not possible: hop_length must divide"
    ):
        check_sizes(n_fft, hop)
    with pytest.raises(InputError, match="is not possible"):
        stft(torch.zeros(1, 1000), n_fft, hop)


def test_unusable_signals_are_refused() -> None:
    with pytest.raises(InputError, match="the signal has 0 samples; at least 1 is needed"):
        stft(torch.zeros(2, 0), 512, 128)
    with pytest.raises(InputError, match="4 frames of hop 128 do not make 513 samples"):
        istft(torch.zeros(1, 256, 4, dtype=torch.complex64), 128, 513)


@pytest.mark.parametrize(("frames", "size", "hop_length"), [(1, 8, 4), (5, 8, 4), (4, 12, 3)])
def test_overlap_add_has_the_gradient_of_its_sum(frames: int, size: int, hop_length: int) -> None:
    pieces = torch.randn(2, frames, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pieces.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: overlap_add(x, hop_length), (pieces,))
    expected = torch.zeros(2, (frames - 1) * hop_length + size, dtype=torch.float64)
    for frame in range(frames):
        expected[:, frame * hop_length : frame * hop_length + size] += pieces.detach()[:, frame]
    torch.testing.assert_close(overlap_add(pieces, hop_length).detach(), expected)
