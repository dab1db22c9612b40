from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.codec.mel.autoencoder import SCALINGS, LatentNormal, MelAutoencoder, MelAutoencoderConfig, MelScaling
from polyres.core.errors import ConfigError, InputError

SMALL = MelAutoencoderConfig(widths=(4, 6, 8), latent_channels=3, middle_blocks=1)


def busy(config: MelAutoencoderConfig = SMALL) -> MelAutoencoder:
    """An autoencoder all of whose layers do something."""
    model = MelAutoencoder(config, 16, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            if not value.abs().sum():
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return model.eval()


def mel(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 1, frames, 16, generator=torch.Generator().manual_seed(seed)) - 4


def through(model: MelAutoencoder, spectrum: Tensor) -> Tensor:
    with torch.no_grad():
        return model.decode(model.encode(spectrum).latent_dist.mode()).sample


def test_latents_have_a_quarter_of_frames_and_bins() -> None:
    model = busy()
    assert model.encode(mel(24)).latent_dist.mode().shape == (1, 3, 6, 4)
    assert through(model, mel(24)).shape == (1, 1, 24, 16)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_frame_depends_on_its_context_and_on_nothing_else(blocks: int) -> None:
    model = busy(SMALL.with_values({"blocks": blocks}))
    context = -(-model.context_frames // 4) * 4
    spectrum = mel(2 * context + 40)
    other = spectrum.clone()
    other[:, :, context + 20] += 1.0
    moved = (through(model, other) - through(model, spectrum)).abs().amax(dim=(0, 1, 3)).nonzero()[:, 0]
    reach = max(context + 20 - int(moved[0]), int(moved[-1]) - context - 20)
    assert context / 2 < reach <= model.context_frames


def test_the_divergence_is_that_of_the_distributions() -> None:
    posterior = LatentNormal(torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(2)))
    normal = torch.distributions.Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    wanted = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=(1, 2, 3))
    assert torch.allclose(posterior.kl(), wanted, rtol=1e-5)


def test_draws_follow_the_distribution_and_the_seed() -> None:
    posterior = LatentNormal(torch.cat([torch.full((1, 1, 100, 100), 2.0), torch.full((1, 1, 100, 100), -1.0)], dim=1))
    draws = posterior.sample(torch.Generator().manual_seed(3))
    assert torch.equal(draws, posterior.sample(torch.Generator().manual_seed(3)))
    assert float(draws.mean()) == pytest.approx(2, abs=0.03)
    assert float(draws.std()) == pytest.approx(float(torch.tensor(-0.5).exp()), rel=0.05)


def test_first_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two = MelAutoencoder(SMALL, 16, seed=5), MelAutoencoder(SMALL, 16, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_layers_without_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="every width must be 1 or more"):
        MelAutoencoderConfig(widths=(4, 0, 8))


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
