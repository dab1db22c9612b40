"""Frames against torch's, and the least-squares wave against a solver."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError
from polyres.dsp.framing import FrameTransform, Framing


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def transform(framing: Framing) -> FrameTransform:
    return FrameTransform(framing, torch.float64)


@given(n_fft=st.integers(4, 90), hop=st.integers(1, 60), extra=st.integers(1, 200), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_centred_frames_are_torchs(n_fft: int, hop: int, extra: int, seed: int) -> None:
    hop = min(hop, n_fft - 1)
    wave = noise(2, n_fft // 2 + extra, seed=seed)
    window = torch.hann_window(n_fft, dtype=torch.float64)
    expected = torch.stft(wave, n_fft, hop, window=window, center=True, pad_mode="reflect", return_complex=True)
    ours = transform(Framing.centred(n_fft, hop, wave.shape[-1])).analyse(wave)
    torch.testing.assert_close(ours.transpose(1, 2), expected)


def test_a_short_window_sits_where_torch_puts_it() -> None:
    wave, window = noise(1, 500), torch.hann_window(33, dtype=torch.float64)
    expected = torch.stft(wave, 64, 16, win_length=33, window=window, center=True, return_complex=True)
    ours = transform(Framing.centred(64, 16, 500, win_length=33)).analyse(wave)
    torch.testing.assert_close(ours.transpose(1, 2), expected)


@given(hops=st.integers(1, 40), rest=st.integers(0, 15), n_fft=st.sampled_from([32, 64, 96]))
def test_frames_between_hops_are_as_many_as_whole_hops(hops: int, rest: int, n_fft: int) -> None:
    length = n_fft + 16 * hops + rest
    framing = Framing.between(n_fft, 16, length)
    wave = noise(1, length)
    padded = F.pad(wave, (framing.pad_samples, framing.pad_samples), mode="reflect")
    assert framing.frames == length // 16
    middle = framing.frames // 2
    frame = padded[:, middle * 16 : middle * 16 + n_fft] * torch.hann_window(n_fft, dtype=torch.float64)
    torch.testing.assert_close(transform(framing).analyse(wave)[:, middle], torch.fft.rfft(frame))
    assert framing.pad_samples - n_fft // 2 == -8  # frame k sits half a hop after sample 16 k


@given(n_fft=st.integers(4, 90), part=st.floats(0.05, 0.7), extra=st.integers(1, 300), seed=st.integers(0, 99))
def test_round_trip_to_the_first_and_last_sample(n_fft: int, part: float, extra: int, seed: int) -> None:
    hop = max(1, int(n_fft * part))
    length = n_fft // 2 + extra
    framing = Framing.centred(n_fft, hop, length - (length - n_fft // 2 - 1) % hop)
    wave = noise(3, framing.length_samples, seed=seed)
    there = transform(framing)
    reached = there.synthesise(there.analyse(torch.ones_like(wave))) > 0.5
    back = there.synthesise(there.analyse(wave))
    torch.testing.assert_close(back[reached], wave[reached], rtol=1e-7, atol=1e-7)
    if 2 * hop <= n_fft:
        assert bool(reached.all())


@pytest.mark.parametrize(
    "framing", [Framing.centred(16, 5, 41), Framing.between(16, 4, 43), Framing.centred(15, 4, 33)]
)
def test_synthesis_is_the_least_squares_solution(framing: Framing) -> None:
    """Against a dense solver, with both halves of the spectrum counted."""
    there = transform(framing)
    columns = there.analyse(torch.eye(framing.length_samples, dtype=torch.float64))
    weight = torch.full((framing.bins,), 2.0, dtype=torch.float64)
    weight[0] = 1
    if framing.n_fft % 2 == 0:
        weight[-1] = 1
    target = torch.complex(noise(1, framing.frames, framing.bins), noise(1, framing.frames, framing.bins, seed=1))

    def flat(spectra: Tensor) -> Tensor:
        return torch.view_as_real(spectra * weight.sqrt()[:, None].squeeze(-1)).flatten(1)

    solution = torch.linalg.lstsq(flat(columns).T, flat(target).T, driver="gelsd").solution.T
    torch.testing.assert_close(there.synthesise(target), solution, rtol=1e-6, atol=1e-8)


def test_projecting_is_analysis_change_and_synthesis() -> None:
    framing = Framing.centred(64, 16, 3000)
    there, wave = transform(framing), noise(2, 3000)
    gains = noise(2, framing.frames, framing.bins)
    direct = there.synthesise(there.analyse(wave) * gains)
    torch.testing.assert_close(there.project(wave, lambda spectra, rows: spectra * gains[:, rows]), direct)


def test_samples_that_no_window_reaches_are_silent() -> None:
    framing = Framing.centred(8, 7, 26)
    wave = transform(framing).synthesise(transform(framing).analyse(noise(1, 26)))
    assert bool(torch.isfinite(wave).all())


@pytest.mark.parametrize(
    ("framing", "message"),
    [
        ((3, 1, 1, 9), "n_fft is 3; 4 or more is needed"),
        ((16, 4, 8, 99, 17), "win_length is 17; 4 to n_fft 16 is possible"),
        ((16, 4, 8, 99, 3), "win_length is 3; 4 to n_fft 16 is possible"),
        ((16, 16, 8, 99), "hop_length is 16; 1 to 15 is possible with windows of 16"),
        ((16, 0, 8, 99), "hop_length is 0; 1 to 15"),
        ((16, 12, 8, 99, 12), "hop_length is 12; 1 to 11 is possible with windows of 12"),
        ((16, 4, 8, 8), "8 samples cannot be reflected by 8 samples .* at least 9 samples are needed"),
        ((16, 4, 0, 15), "frames of 16; at least 16 samples are needed"),
    ],
)
def test_impossible_frames_are_refused(framing: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Framing(*framing)


def test_frames_between_hops_need_an_even_difference() -> None:
    with pytest.raises(InputError, match="n_fft 16 less hop_length 5 is odd"):
        Framing.between(16, 5, 99)
