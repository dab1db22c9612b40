from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.codec.mel.autoencoder import SCALINGS, MelScaling
from polyres.core.errors import InputError


def spectra(frames: int = 4000, bins: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, bins, generator=generator) * torch.linspace(0.5, 3, bins) - torch.linspace(1, 9, bins)


def fitted(kind: str, mels: Tensor) -> MelScaling:
    scaling = MelScaling(kind, mels.shape[-1])  # type: ignore[arg-type]
    scaling.fit(mels)
    return scaling


def test_each_kind_does_what_its_name_says() -> None:
    mels = spectra()
    assert torch.equal(fitted("none", mels)(mels), mels)
    whole = fitted("standard", mels)(mels)
    assert float(whole.mean()) == pytest.approx(0, abs=1e-4)
    assert float(whole.std(unbiased=False)) == pytest.approx(1, abs=1e-4)
    assert float(whole.mean(dim=0).abs().max()) > 0.5
    banded = fitted("z_score", mels)(mels)
    assert torch.allclose(banded.mean(dim=0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(banded.std(dim=0, unbiased=False), torch.ones(6), atol=1e-4)
    ends = torch.quantile(fitted("percentile", mels)(mels), torch.tensor([0.01, 0.99]), dim=0)
    assert torch.allclose(ends, torch.tensor([[-1.0], [1.0]]).expand(2, 6), atol=1e-3)
    assert torch.allclose(fitted("tanh", mels)(mels), torch.tanh(banded / 2), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SCALINGS), st.integers(0, 1000))
def test_undo_gives_back_what_was_scaled(kind: str, seed: int) -> None:
    scaling = fitted(kind, spectra())
    mels = spectra(50, seed=seed)
    assert torch.allclose(scaling.undo(scaling(mels)), mels, atol=2e-3)


def test_a_window_is_scaled_like_the_file_it_is_part_of() -> None:
    mels = spectra()
    scaling = fitted("percentile", mels)
    assert torch.equal(scaling(mels)[10:20], scaling(mels[10:20]))


def test_bands_that_do_not_move_are_not_blown_up() -> None:
    scaling = fitted("z_score", torch.full((10, 3), -11.5))
    assert float(scaling(torch.full((1, 3), -11.4)).abs().max()) < 3


@pytest.mark.parametrize("mels", [torch.zeros(0, 6), torch.zeros(6), torch.zeros(4, 5)])
def test_what_cannot_be_measured_is_refused(mels: Tensor) -> None:
    with pytest.raises(InputError, match="log-mel spectra have shape"):
        MelScaling("z_score", 6).fit(mels)
