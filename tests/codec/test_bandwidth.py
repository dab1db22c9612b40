from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from polyres.audio.resample import StreamResampler, resample, resampled_length
from polyres.codec import bandwidth as band_stream
from polyres.codec.bandwidth import (
    BandStream,
    BandwidthConfig,
    BandwidthExtender,
    copy_low_band,
    extend,
    low_band,
    way_out,
)
from polyres.core.errors import ConfigError, InputError

CONFIG = BandwidthConfig(sample_rate_hz=16000, cutoff_hz=3500, n_fft=256, width=16, depth=2)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sine(frequency_hz: float, length: int = 8000) -> Tensor:
    return torch.sin(2 * math.pi * frequency_hz * torch.arange(length) / 16000)[None, None]


def high_energy(wave: Tensor, from_hz: float = 4000) -> float:
    spectrum = torch.fft.rfft(wave)
    return float(spectrum[..., round(from_hz * wave.shape[-1] / 16000) :].abs().square().sum())


def awake() -> BandwidthExtender:
    model = BandwidthExtender(CONFIG, seed=1)
    with torch.no_grad():
        model.last.bias[: model.high_bins].fill_(0.0)
    return model.eval()


def test_what_the_codec_gave_is_kept_below_the_cutoff() -> None:
    decoded = low_band(noise(2, 1, 6000), CONFIG)
    with torch.no_grad():
        wide = awake()(decoded)
    assert high_energy(wide) > 0.1 * float(decoded.square().sum()) * 3000
    for frequency_hz in (200, 1000, 3000):
        tone = sine(frequency_hz)
        with torch.no_grad():
            kept = awake()(tone)
        along = float((kept * tone).sum() / tone.square().sum())
        assert along == pytest.approx(1, abs=1e-3)
    below = low_band(wide - decoded, CONFIG)[..., 200:-200]
    assert below.norm() < 0.05 * decoded.norm()


def test_bands_are_split_at_the_cutoff() -> None:
    for frequency_hz, share in ((1000, 1.0), (6000, 0.0)):
        tone = sine(frequency_hz)
        inside = slice(500, -500)
        assert float(low_band(tone, CONFIG)[..., inside].norm() / tone[..., inside].norm()) == pytest.approx(
            share, abs=0.01
        )
    generated, decoded = sine(6000) + 0.3 * sine(1000), sine(500)
    joined = copy_low_band(generated, decoded, CONFIG)
    assert (joined - sine(6000) - sine(500))[..., 500:-500].abs().max() < 0.02


def test_louder_input_gives_as_much_louder_output() -> None:
    wave = noise(1, 1, 4000)
    with torch.no_grad():
        assert torch.allclose(awake()(10 * wave), 10 * awake()(wave), rtol=1e-3, atol=1e-3)
        assert not awake()(torch.zeros(1, 1, 4000)).any()


def test_training_fills_the_band_that_was_lost() -> None:
    model = BandwidthExtender(CONFIG)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    window = torch.hann_window(256)

    def distance(given: Tensor, wanted: Tensor) -> Tensor:
        spectra = [
            torch.stft(w[:, 0], 256, 64, window=window, return_complex=True).abs().clamp_min(1e-2).log()
            for w in (given, wanted)
        ]
        return (spectra[0] - spectra[1]).abs().mean()

    losses = []
    for step in range(40):
        full = noise(4, 1, 4000, seed=step) * torch.linspace(0.1, 1, 4000)
        narrow = low_band(full, CONFIG)
        loss = distance(model(narrow), full)
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    quiet = low_band(noise(1, 1, 4000, seed=77), CONFIG)
    with torch.no_grad():
        wide = model(quiet)
    wanted, found = high_energy(noise(1, 1, 4000, seed=77)), high_energy(wide)
    assert abs(10 * math.log10(found / wanted)) < 10  # 40 steps end elsewhere on processors that round differently
    assert 10 * math.log10(high_energy(quiet) / wanted) < -20


def test_seeds_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(BandwidthExtender(CONFIG, 2).first.weight, BandwidthExtender(CONFIG, 2).first.weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_wrong_settings_and_waves_are_refused() -> None:
    with pytest.raises(ConfigError, match="cutoff_hz 8000 must leave at least 8 bins"):
        BandwidthConfig.from_dict({"sample_rate_hz": 16000, "cutoff_hz": 8000, "n_fft": 256})
    with pytest.raises(ConfigError, match="n_fft 250 must be a multiple of 4"):
        BandwidthConfig.from_dict({"n_fft": 250})
    with pytest.raises(InputError, match=r"waves \[B, C, T\] are extended, nothing empty, got \[1, 100\]"):
        BandwidthExtender(CONFIG)(torch.zeros(1, 100))


def test_what_a_codec_has_above_the_cutoff_is_replaced_and_what_is_below_stays() -> None:
    model = awake()
    below, above = sine(1000), sine(5000)
    inside = slice(600, -600)
    with torch.no_grad():
        made = extend(model, below + 0.1 * above) - extend(model, below)
        wide = extend(model, below)
    assert float(made[..., inside].norm()) < 0.02 * float(0.1 * above.norm())
    kept = low_band(wide, CONFIG) - below
    assert float(kept[..., inside].norm() / below.norm()) < 2e-3
    # Away from the cutoff the decoded band comes back bit-near: spectra of both, below 3 kHz.
    tone, window = noise(1, 1, 8000), torch.hann_window(7000)
    with torch.no_grad():
        spectra = [torch.fft.rfft(w[..., 500:-500] * window) for w in (extend(model, tone), tone)]
    bins = round(3000 * 7000 / 16000)
    apart, whole = (spectra[0] - spectra[1])[..., :bins].norm(), spectra[1][..., :bins].norm()
    assert 20 * math.log10(float(apart / whole)) < -60


def test_the_context_is_what_a_sample_depends_on() -> None:
    model, context = awake(), CONFIG.context_samples
    wave = noise(1, 1, 4 * context // CONFIG.hop_samples * CONFIG.hop_samples)
    other = wave.clone()
    other[..., : context - CONFIG.hop_samples] = 0.3
    with torch.no_grad():
        apart = (extend(model, other) - extend(model, wave)).abs()[0, 0]
    assert float(apart[2 * context :].max()) < 1e-6
    assert float(apart[context : context + CONFIG.hop_samples].max()) > 1e-6


STREAM_CONFIG = BandwidthConfig(sample_rate_hz=16000, cutoff_hz=3500, n_fft=256, width=8, depth=2)


def network() -> BandwidthExtender:
    model = BandwidthExtender(STREAM_CONFIG, seed=1)
    with torch.no_grad():
        model.last.bias[: model.high_bins].fill_(-1.0)
    return model.eval()


def stream_noise(channels: int, length: int) -> Tensor:
    return torch.randn(channels, length, generator=torch.Generator().manual_seed(length)) * 0.1


def through(stream: BandStream | StreamResampler, wave: Tensor, block: int) -> np.ndarray:
    blocks = [stream.push(piece.contiguous().numpy()) for piece in wave.split(block, dim=-1)]
    return np.concatenate([*blocks, stream.finish()], axis=1)


@pytest.mark.parametrize(("length", "block"), [(3000, 700), (20000, 1111), (37, 37), (24001, 24001)])
def test_a_stream_is_what_the_whole_wave_gives(length: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band_stream, "WINDOW_HOPS", 1)  # four contexts
    wave, model = stream_noise(2, length), network()
    found = through(BandStream(model, 8000, 16000, 2, length), wave, block)
    skip = torch.from_numpy(resample(wave.numpy(), 8000, 16000))
    padded = torch.nn.functional.pad(skip, (0, -skip.shape[-1] % STREAM_CONFIG.hop_samples))
    with torch.no_grad():
        wanted = extend(model, padded[None])[0, :, : skip.shape[-1]]
    assert found.shape == (2, 2 * length)
    assert np.abs(found - wanted.numpy()).max() < 2e-6


def test_other_rates_get_the_band_too_and_their_length() -> None:
    wave = stream_noise(1, 8000)
    wide = through(BandStream(network(), 8000, 12000, 1, 8000), wave, 1000)
    plain = resample(wave.numpy(), 8000, 12000)
    assert wide.shape[1] >= resampled_length(8000, 8000, 12000)
    high = [np.square(np.abs(np.fft.rfft(w[0, :12000])[4200:5800])).sum() for w in (wide, plain)]
    assert high[0] > 100 * high[1]


def test_only_files_with_room_above_the_codec_get_a_band() -> None:
    model = network()
    assert isinstance(way_out(model, 8000, 16000, 1, 100), BandStream)
    for given, out_hz in ((None, 16000), (model, 8000), (model, 4000)):
        assert isinstance(way_out(given, 8000, out_hz, 1, 100), StreamResampler)
