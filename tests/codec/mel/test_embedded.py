"""The mel codec that comes with the package."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polyres.codec.load import load_codec
from polyres.codec.mel.codec import EMBEDDED, MelCodec
from polyres.codec.registry import codec_names, codec_summary
from polyres.metrics.reconstruction.metrics import score

RATE_HZ = 44100


def chord(seconds: float) -> Tensor:
    """Plucked notes and noise, left and right apart."""
    time_s = torch.arange(int(seconds * RATE_HZ)) / RATE_HZ
    notes = sum(torch.sin(2 * torch.pi * f * time_s) * torch.exp(-2 * (time_s % 0.5)) for f in (220.0, 277.2, 330.0))
    hiss = torch.randn(2, len(time_s), generator=torch.Generator().manual_seed(0)) * torch.exp(-8 * (time_s % 0.25))
    return 0.15 * notes + 0.05 * hiss


def test_it_is_small_and_known_by_name() -> None:
    assert EMBEDDED.stat().st_size < 8_000_000
    assert "polyres_mel" in codec_names()
    assert "5 513 numbers a second" in codec_summary("polyres_mel")
    model = load_codec("polyres_mel", "cpu").model
    assert isinstance(model, MelCodec)
    assert model.config.synthesis == "vocoder+fgla"


def test_its_rate_is_what_it_says() -> None:
    codec = load_codec("polyres_mel", "cpu")
    latent = codec.encode(chord(2.0)[:1], RATE_HZ)
    assert latent.tensors["z"].shape[1:] == (8, 44, 32)
    per_step = latent.tensors["z"][:, :, 0].numel()
    assert per_step * RATE_HZ / codec.model.hop_samples == pytest.approx(5512.5)


def test_stereo_comes_back_close_and_as_loud() -> None:
    wave = chord(2.0)
    codec = load_codec("polyres_mel", "cpu")
    back = codec.reconstruct(wave, RATE_HZ)
    found = score(wave, back, RATE_HZ)
    assert back.shape == wave.shape
    assert found["log_mel_l1"] < 0.35
    assert found["lsd"] < 1.0
    for band in ("low", "mid", "high"):
        assert abs(found[f"band_error_{band}"]) < 3
    swapped = codec.reconstruct(wave.flip(0), RATE_HZ)
    assert torch.allclose(swapped.flip(0), back, atol=1e-4)
