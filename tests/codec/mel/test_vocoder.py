from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polyres.codec.mel.vocoder import MelVocoder, MelVocoderConfig
from polyres.dsp.framing import FrameTransform
from polyres.dsp.mel import MelConfig, linear_magnitude, log_mel, mel_framing, mel_of_magnitude

MEL = MelConfig(sample_rate_hz=8000, n_fft=256, win_length=256, hop_length=64, mel_bins=16, max_hz=4000.0)
SMALL = MelVocoderConfig(width=16, depth=2)


def noise(frames: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(1, frames * MEL.hop_length, generator=torch.Generator().manual_seed(seed))


def busy(mel: MelConfig = MEL) -> MelVocoder:
    model = MelVocoder(SMALL, mel, seed=1)
    with torch.no_grad():
        model.head.weight.mul_(5)
    return model.eval()


def test_a_frame_makes_a_hop_of_samples() -> None:
    with torch.no_grad():
        assert busy()(log_mel(noise(20), MEL)).shape == (1, 20 * 64)


@pytest.mark.parametrize("power", [1, 2])
def test_magnitudes_have_the_mel_bands_they_were_given(power: int) -> None:
    front_end = MEL.with_values({"power": power})
    mel = log_mel(noise(30), front_end) - torch.linspace(0, 4, 16)
    with torch.no_grad():
        given = mel_of_magnitude(busy(front_end).magnitude(mel), front_end).clamp_min(1e-5).log()
    assert float((given - mel).abs().mean()) < 0.1 * power


def test_only_its_own_phases_make_it_louder_than_it_was_told() -> None:
    model, mel = busy(), log_mel(noise(30), MEL)
    with torch.no_grad():
        before, spoken = model.magnitude(mel), model(mel)
        model.louder.bias.fill_(1.0)
        assert torch.equal(model.magnitude(mel), before)
        assert torch.allclose(model(mel), spoken * torch.e, rtol=1e-3, atol=1e-5)


def test_level_moves_the_wave_and_nothing_else() -> None:
    model = MelVocoder(SMALL, MEL, seed=1).eval()
    torch.nn.init.zeros_(model.embed.weight)
    mel = log_mel(noise(30), MEL)
    with torch.no_grad():
        assert torch.allclose(model(mel + 1), model(mel) * torch.e, rtol=1e-3, atol=1e-5)


def test_a_sample_depends_on_its_context_and_on_nothing_else() -> None:
    model, frames = busy(), 60
    mel = log_mel(noise(frames), MEL)
    other = mel.clone()
    other[:, 30] += 1.0
    with torch.no_grad():
        moved = ((model(other) - model(mel)).abs()[0] > 0).nonzero()[:, 0]
    reach = max(30 - int(moved[0]) // 64, int(moved[-1]) // 64 - 30)
    assert model.context_frames - 3 <= reach <= model.context_frames


def test_spectra_of_a_wave_give_back_the_wave() -> None:
    wave, model = noise(16), busy()
    spectra = FrameTransform(mel_framing(MEL, wave.shape[-1]), torch.float32, wave.device).analyse(wave)
    assert torch.allclose(spectra.abs().transpose(1, 2), linear_magnitude(wave, MEL), atol=1e-4)
    assert torch.allclose(model.wave(spectra), wave, atol=1e-5)


def test_bins_that_no_filter_reaches_stay_silent() -> None:
    front_end = MEL.with_values({"max_hz": 2000.0})
    with torch.no_grad():
        magnitude = busy(front_end).magnitude(log_mel(noise(20), front_end))
    assert float(magnitude[:, 66:].abs().max()) == 0
    assert float(magnitude[:, 1:60].min()) > 0


def test_it_learns_to_speak_a_tone() -> None:
    time_s = torch.arange(16 * MEL.hop_length) / MEL.sample_rate_hz
    wave = 0.4 * torch.sin(2 * torch.pi * 500 * time_s)[None]
    mel, model = log_mel(wave, MEL), MelVocoder(SMALL, MEL, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    found = []
    for _ in range(40):
        loss = (log_mel(model(mel), MEL) - mel).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.6 * found[0]
