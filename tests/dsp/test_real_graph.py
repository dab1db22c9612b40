"""Transforms without complex numbers give what torch's own give."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from polyres.dsp.real_graph import ComplexParts, RealDft, RealGraph
from polyres.dsp.stft import Inverse, istft, resample_grid, stft


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [4, 12, 100, 512, 1536, 4096, 8192])
def test_two_products_are_the_transform_and_its_inverse(size: int) -> None:
    frames, dft = noise(2, size, 3), RealDft(size)
    bins, expected = dft.forward(frames), torch.fft.rfft(frames, dim=1)[:, :-1]
    scale = size**0.5
    torch.testing.assert_close(bins.real / scale, expected.real / scale, rtol=0, atol=4e-6)
    torch.testing.assert_close(bins.imag / scale, expected.imag / scale, rtol=0, atol=4e-6)
    back = torch.fft.irfft(torch.cat([expected, torch.zeros(2, 1, 3)], dim=1), dim=1)
    torch.testing.assert_close(dft.inverse(bins), back, rtol=0, atol=4e-6)


@pytest.mark.parametrize("hop", [64, 32, 16])
@pytest.mark.parametrize("inverse", ["exact", "demucs"])
def test_short_time_spectra_and_waves(hop: int, inverse: Inverse) -> None:
    wave = noise(2, 3, 700)
    spec = stft(wave, 128, hop)
    expected = istft(spec, hop, 700, inverse)
    with RealGraph():
        parts = stft(wave, 128, hop)
        made = istft(parts, hop, 700, inverse)
    assert isinstance(cast(object, parts), ComplexParts)
    torch.testing.assert_close(torch.complex(parts.real, parts.imag), spec, rtol=0, atol=2e-6)
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(8, 30), (16, 40), (3, 40), (5, 7)])
def test_grids_are_resampled_by_matrices(size: tuple[int, int]) -> None:
    features = noise(1, 2, 8, 40)
    with RealGraph():
        made = resample_grid(features, size)
    torch.testing.assert_close(made, resample_grid(features, size), rtol=0, atol=2e-6)


def test_what_stands_for_complex_numbers_calculates_as_they_do() -> None:
    a, b = (torch.complex(noise(2, 3), noise(2, 3).flip(0)) * factor for factor in (1, 2j))
    x, y = (ComplexParts(z.real, z.imag) for z in (a, b))
    for made, expected in ((x * y, a * b), (x + 0.25, a + 0.25), (x * a.real, a * a.real), (x[:, 1:], a[:, 1:])):
        torch.testing.assert_close(torch.complex(made.real, made.imag), expected)


def test_deviations_are_taken_axis_by_axis() -> None:
    x = 3 + noise(2, 4, 50, 60)
    with RealGraph():
        made = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)
    for part, expected in zip(made, torch.std_mean(x.double(), dim=(1, 2, 3), keepdim=True), strict=True):
        torch.testing.assert_close(part, expected.float(), rtol=1e-6, atol=0)


def test_chunks_and_rows_need_no_sequences() -> None:
    x = noise(4, 6)
    with RealGraph():
        made = (*x.chunk(2, dim=-1), *x.unbind(dim=0))
    for part, expected in zip(made, (*x.chunk(2, dim=-1), *x.unbind(dim=0)), strict=True):
        assert torch.equal(part, expected)
