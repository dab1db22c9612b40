from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from polyres.audio.resample import StreamResampler, resample, resampled_length
from polyres.codec import bandwidth_stream as band_stream
from polyres.codec.bandwidth import BandwidthConfig, BandwidthExtender, extend
from polyres.codec.bandwidth_stream import BandStream, way_out

CONFIG = BandwidthConfig(sample_rate_hz=16000, cutoff_hz=3500, n_fft=256, width=8, depth=2)


def network() -> BandwidthExtender:
    model = BandwidthExtender(CONFIG, seed=1)
    with torch.no_grad():
        model.last.bias[: model.high_bins].fill_(-1.0)
    return model.eval()


def noise(channels: int, length: int) -> Tensor:
    return torch.randn(channels, length, generator=torch.Generator().manual_seed(length)) * 0.1


def through(stream: BandStream | StreamResampler, wave: Tensor, block: int) -> np.ndarray:
    blocks = [stream.push(piece.contiguous().numpy()) for piece in wave.split(block, dim=-1)]
    return np.concatenate([*blocks, stream.finish()], axis=1)


@pytest.mark.parametrize(("length", "block"), [(3000, 700), (20000, 1111), (37, 37), (24001, 24001)])
def test_a_stream_is_what_the_whole_wave_gives(length: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band_stream, "WINDOW_HOPS", 1)  # four contexts
    wave, model = noise(2, length), network()
    found = through(BandStream(model, 8000, 16000, 2, length), wave, block)
    skip = torch.from_numpy(resample(wave.numpy(), 8000, 16000))
    padded = torch.nn.functional.pad(skip, (0, -skip.shape[-1] % CONFIG.hop_samples))
    with torch.no_grad():
        wanted = extend(model, padded[None])[0, :, : skip.shape[-1]]
    assert found.shape == (2, 2 * length)
    assert np.abs(found - wanted.numpy()).max() < 2e-6


def test_other_rates_get_the_band_too_and_their_length() -> None:
    wave = noise(1, 8000)
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
