from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.codec.enhance.latent_filters import blur, laplacian, laplacian_pyramid, noise_like, spread_out

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 20), st.integers(1, 20))


def latent(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_a_pyramid_adds_up_and_filters_leave_constants_alone(shape: tuple[int, int, int, int]) -> None:
    value = latent(*shape)
    parts = laplacian_pyramid(value, 3)
    assert torch.allclose(sum(parts), value)  # type: ignore[arg-type]
    constant = torch.full(shape, 3.0, dtype=torch.float64)
    assert torch.allclose(blur(constant), constant)
    assert laplacian(constant).abs().max() < 1e-12
    assert all(part.abs().max() < 1e-12 for part in laplacian_pyramid(constant, 3)[:-1])


def test_laplacian_against_plain_loops() -> None:
    value = latent(1, 2, 5, 6)
    found = laplacian(value)
    for d in range(2):
        for t in range(5):
            for f in range(6):
                around = [
                    value[0, d, min(max(t + i, 0), 4), min(max(f + j, 0), 5)]
                    for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1))
                ]
                assert found[0, d, t, f] == pytest.approx(float((4 * value[0, d, t, f] - sum(around)) / 8))


def test_laplacian_keeps_a_chequerboard_whole() -> None:
    board = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1)[None, None]
    assert torch.equal(laplacian(board)[..., 1:-1, 1:-1], board[..., 1:-1, 1:-1])


def test_pyramid_levels_go_from_fine_to_coarse() -> None:
    t = torch.arange(64, dtype=torch.float64)
    fine, coarse = torch.cos(torch.pi * 0.9 * t), torch.cos(torch.pi * 0.2 * t)
    energy = []
    for wave in (fine, coarse):
        parts = laplacian_pyramid(wave.view(1, 1, 64, 1).expand(1, 1, 64, 64), 3)
        energy.append([float(part.square().mean()) for part in parts])
    assert energy[0][0] > 0.9 * sum(energy[0])
    assert energy[1][1] > energy[1][0]
    assert len(laplacian_pyramid(latent(1, 1, 4, 3), 5)) == 2  # too small to be halved twice


def test_contrast_keeps_means_and_scales_deviations() -> None:
    value = latent(2, 3, 8, 9)
    wide = spread_out(value, 1.5)
    assert torch.allclose(wide.mean(dim=(2, 3)), value.mean(dim=(2, 3)))
    assert torch.allclose(wide.std(dim=(2, 3)), 1.5 * value.std(dim=(2, 3)))


def test_noise_is_seeded_and_as_large_as_its_channel() -> None:
    value = latent(1, 2, 100, 100) * torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    noise = noise_like(value, 7)
    assert torch.equal(noise, noise_like(value, 7))
    assert not torch.equal(noise, noise_like(value, 8))
    assert noise.std(dim=(2, 3)).flatten().tolist() == pytest.approx([1, 10], rel=0.05)
