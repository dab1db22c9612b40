from __future__ import annotations

import math

import pytest
import torch

from polyres.codec.enhance.sweep import Chain
from polyres.codec.ladder.distribution import (
    CELLS,
    LATENT,
    MEL_DECODED,
    MEL_GIVEN,
    Distribution,
    _measured,
    distributions,
    expected_std,
    joined,
    overlap,
)
from polyres.codec.ladder.rungs import Workshop, piece_of
from polyres.codec.load import load_codec

RATE_HZ = 16000


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(Chain(load_codec("audioldm2_tiny", "cpu").model))


def normal(count: int, mean: float, std: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(count, 3, generator=generator, dtype=torch.float64)


def test_averages_and_histogram_of_known_values() -> None:
    values = torch.tensor([[0.0, 2.0], [1.0, 2.0], [2.0, 2.0], [99.0, 2.0]], dtype=torch.float64)
    one = _measured("x", values, (0.0, 4.0))
    assert one.bin_mean == pytest.approx([25.5, 2.0])
    assert one.bin_std == pytest.approx([float(values[:, 0].std(unbiased=False)), 0.0], abs=1e-6)
    assert sum(one.counts) == 8
    assert one.counts[0] == 1
    assert one.counts[-1] == 1  # what lies outside counts in the last cell
    assert one.counts[CELLS // 2] == 5
    assert Distribution.from_dict(one.to_dict()) == one


def test_files_together_are_as_one_file() -> None:
    values = normal(1000, 0.4, 1.3)
    whole = _measured("x", values, (-5.0, 5.0))
    parts = joined([_measured("x", values[:100], (-5.0, 5.0)), _measured("x", values[100:], (-5.0, 5.0))])
    assert parts.counts == whole.counts
    assert parts.frames == 1000
    assert parts.bin_mean == pytest.approx(whole.bin_mean)
    assert parts.bin_std == pytest.approx(whole.bin_std)
    assert parts.std == pytest.approx(float(values.std(unbiased=False)))


def test_overlap_of_normal_distributions() -> None:
    one = _measured("x", normal(20000, 0.0, 1.0), (-8.0, 8.0))
    assert overlap(one, one) == pytest.approx(1)
    other = _measured("x", normal(20000, 2.0, 1.0, 1), (-8.0, 8.0))
    # Two standard deviations apart: twice the tail beyond one.
    assert overlap(one, other) == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=0.02)


def test_a_piece_is_measured_before_in_and_after_the_autoencoder(shop: Workshop) -> None:
    wave = 0.2 * torch.randn(2, 12 * 640, generator=torch.Generator().manual_seed(1))
    piece = piece_of(wave, RATE_HZ, shop.codec, "a.wav")
    given, decoded, latent = distributions(shop, piece)
    assert [one.name for one in (given, decoded, latent)] == [MEL_GIVEN, MEL_DECODED, LATENT]
    mel = shop.chain.mel(piece.grouped).double()
    assert given.bin_mean == pytest.approx(mel.mean(dim=(0, 1)).tolist())
    z = shop.chain.encode(piece.grouped).double()
    assert latent.bin_mean == pytest.approx(z.mean(dim=(0, 2, 3)).tolist())
    assert latent.bin_std == pytest.approx(z.permute(1, 0, 2, 3).flatten(1).std(dim=1, unbiased=False).tolist())
    assert latent.frames == z.shape[0] * z.shape[2] * z.shape[3]


def test_the_default_codec_has_a_latent_among_other_numbers() -> None:
    wave = Workshop(Chain(load_codec("default", "cpu").model))
    codec = wave.codec
    samples = 0.2 * torch.randn(1, 8 * codec.hop_samples, generator=torch.Generator().manual_seed(1))
    piece = piece_of(samples, RATE_HZ, codec, "a.wav")
    given, decoded, latent = distributions(wave, piece)
    with torch.no_grad():
        z = codec.encode(piece.grouped)["latent"].double()
    assert latent.bin_mean == pytest.approx(z.mean(dim=(0, 2, 3)).tolist())
    assert decoded.frames == given.frames
    assert decoded.mean == pytest.approx(given.mean, abs=1.0)


def test_what_weights_expect(shop: Workshop) -> None:
    std, reason = expected_std(shop.codec)
    assert std == pytest.approx(1 / 0.41)
    assert "scaling factor 0.41" in reason
    std, reason = expected_std(load_codec("default", "cpu").model)
    assert (std, reason[:2]) == (1.0, "1,")
