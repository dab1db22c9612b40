"""polyres_wave: better than plain resampling at the same rate, any length, any cut, any level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.audio.resample import resample
from polyres.codec.registry import build_codec
from polyres.codec.wave.codec import RefinerConfig, WaveCodec, WaveCodecConfig
from polyres.codec.wave.streaming import WaveStreamDecoder, WaveStreamEncoder, latency_samples
from polyres.core.errors import ConfigError, InputError
from polyres.metrics.reconstruction.spectra import log_spectral_distance, metric_magnitude

SMALL = WaveCodecConfig(
    frame_samples=512,
    frames_per_step=4,
    splits=(1, 2, 4),
    scalars_per_step=400,
    floor_scalars=60,
    floor_block=256,
    floor_bands=16,
    even_n_fft=512,
    even_rounds=3,
    synthesis="refined",
    refiner=RefinerConfig(n_fft=(128, 256), channels=4, latent_channels=2, latent_hop=512),
)


def music(seconds: float, seed: int = 0, rate_hz: int = 16_000) -> Tensor:
    """Chords with harmonics, beats of noise, and hiss: `[1, 1, T]`."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    wave = 0.002 * rng.standard_normal(len(time))
    for note in range(int(seconds * 4) + 1):
        since = time - note / 4
        on = since >= 0
        pitch = 110 * 2 ** (rng.integers(0, 24) / 12)
        for harmonic in range(1, 9):
            swing = np.sin(2 * np.pi * harmonic * pitch * since + rng.uniform(0, 6)) / harmonic
            wave += np.where(on, 0.1 * swing * np.exp(-3 * np.abs(since)), 0)
        wave += np.where(on, 0.2 * rng.standard_normal(len(time)) * np.exp(-60 * np.abs(since)), 0)
    return torch.from_numpy(wave).float()[None, None]


@pytest.fixture(scope="module")
def shipped() -> WaveCodec:
    codec = build_codec("polyres_wave")
    assert isinstance(codec, WaveCodec)
    return codec


@pytest.fixture(scope="module")
def small() -> WaveCodec:
    """Weights at random, so that the refiner does something."""
    codec = WaveCodec(SMALL).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return codec


def padded(wave: Tensor, codec: WaveCodec) -> Tensor:
    return torch.nn.functional.pad(wave, (0, -wave.shape[-1] % codec.hop_samples))


def coded(codec: WaveCodec, wave: Tensor) -> Tensor:
    with torch.no_grad():
        latents = {name: value.half().float() for name, value in codec.encode(padded(wave, codec)).items()}
        return codec.decode(latents, wave.shape[-1])


def snr_db(wave: Tensor, other: Tensor) -> float:
    return float(10 * torch.log10(wave.square().sum() / (wave - other).square().sum()))


def test_it_beats_plain_resampling_at_no_more_numbers(shipped: WaveCodec) -> None:
    wave = music(6)
    with torch.no_grad():
        latents = shipped.encode(padded(wave, shipped))
    assert sum(value.numel() for value in latents.values()) + 3 <= 3200 * 6
    down = resample(wave[0].numpy(), 16_000, 3200)
    control = torch.from_numpy(resample(down, 3200, 16_000)[None, :, : wave.shape[-1]])
    found = coded(shipped, wave)
    assert snr_db(wave, found) > snr_db(wave, control) + 3
    energies = [torch.fft.rfft(one)[..., 4000 * 6 :].abs().square().sum() for one in (found, wave)]
    assert abs(10 * torch.log10(energies[0] / energies[1])) < 3


def test_latents_are_float16_exactly_where_they_must_be(shipped: WaveCodec) -> None:
    with torch.no_grad():
        latents = shipped.encode(padded(music(1), shipped))
    for name in ("coefficients", "floor"):
        assert torch.equal(latents[name], latents[name].half().float())
    steps = latents["floor"].shape[2]
    assert sum(value.numel() for value in latents.values()) == steps * shipped.config.scalars_per_step


@settings(max_examples=12)
@given(st.one_of(st.integers(1, 300), st.sampled_from([2047, 2048, 2049, 5000])), st.integers(0, 9))
def test_every_length_comes_back(length: int, seed: int) -> None:
    codec = WaveCodec(SMALL).eval()
    wave = music(0.4, seed)[..., :length]
    found = coded(codec, wave)
    assert found.shape == wave.shape
    assert bool(torch.isfinite(found).all())
    if length > 200:
        assert snr_db(wave, found) > 3


def test_windows_with_context_give_what_the_whole_gives(small: WaveCodec) -> None:
    hop, context = small.hop_samples, small.context_samples // small.hop_samples
    wave = padded(music(1.6), small)
    steps = wave.shape[-1] // hop
    assert steps > 3 * context
    with torch.no_grad():
        whole = small.encode(wave)
        decoded = small.decode(whole, wave.shape[-1])
        for start in range(0, steps, 3):
            stop = min(steps, start + 3)
            first, last = max(0, start - context), min(steps, stop + context)
            part = small.encode(wave[..., first * hop : last * hop])
            for name, value in part.items():
                inner = value[:, :, start - first : stop - first]
                assert torch.allclose(inner, whole[name][:, :, start:stop], atol=1e-5), name
            cut = {name: value[:, :, first:last] for name, value in whole.items()}
            piece = small.decode(cut, (last - first) * hop)[..., (start - first) * hop : (stop - first) * hop]
            assert torch.allclose(piece, decoded[..., start * hop : stop * hop], atol=1e-6)


@pytest.mark.parametrize("block", [100, 2048, 5001])
def test_a_stream_gives_what_the_whole_gives_within_its_latency(small: WaveCodec, block: int) -> None:
    wave = music(1.1)
    encoder, decoder, out, fed = WaveStreamEncoder(small), WaveStreamDecoder(small), [], 0
    for start in range(0, wave.shape[-1], block):
        latents = encoder.push(wave[0, :, start : start + block])
        fed = min(start + block, wave.shape[-1])
        if latents is not None:
            out.append(decoder.push(latents))
        assert fed - sum(piece.shape[-1] for piece in out) <= latency_samples(small) + block
    latents = encoder.finish()
    assert latents is not None
    out += [decoder.push(latents), decoder.finish()]
    found = torch.cat(out, dim=-1)
    assert torch.allclose(
        found[:, : wave.shape[-1]], coded(small, padded(wave, small))[0, :, : wave.shape[-1]], atol=1e-5
    )


def test_an_empty_stream_ends(small: WaveCodec) -> None:
    assert WaveStreamEncoder(small).finish() is None
    assert WaveStreamDecoder(small).finish().shape == (1, 0)


def test_a_stream_of_another_shape_is_refused(small: WaveCodec) -> None:
    with pytest.raises(InputError, match=r"samples of shape \(2, 5\); \[1, n\] is needed"):
        WaveStreamEncoder(small).push(torch.zeros(2, 5))


def test_silence_stays_silence(shipped: WaveCodec) -> None:
    assert not coded(shipped, torch.zeros(1, 1, 20_000)).any()


@pytest.mark.parametrize("gain", [1e-6, 1e-3, 300.0])
def test_level_makes_no_difference(shipped: WaveCodec, gain: float) -> None:
    wave = music(1)
    one, two = coded(shipped, wave), coded(shipped, gain * wave) / gain
    assert abs(snr_db(wave, one) - snr_db(wave, two)) < 0.3


def test_coding_twice_gives_the_same_bits(shipped: WaveCodec) -> None:
    assert torch.equal(coded(shipped, music(1)), coded(shipped, music(1)))


def test_fewer_numbers_give_a_coarser_wave() -> None:
    wave, scores = music(2), []
    for name in ("polyres_wave:third", "polyres_wave:half", "polyres_wave"):
        codec = build_codec(name)
        assert isinstance(codec, WaveCodec)
        scores.append(snr_db(wave, coded(codec, wave)))
    assert scores == sorted(scores)
    assert scores[0] < scores[2] - 3


@pytest.mark.parametrize("name", ["polyres_wave", "polyres_wave_44k", "polyres_wave_live"])
def test_shares_are_of_the_numbers_of_each_codec(name: str) -> None:
    full = build_codec(name).config.to_dict()["scalars_per_step"]
    for variant, parts in (("half", 2), ("third", 3)):
        codec = build_codec(f"{name}:{variant}")
        assert codec.name == f"{name}:{variant}"
        assert codec.config.to_dict()["scalars_per_step"] == round(full / parts)
        with torch.no_grad():
            latents = codec.encode(torch.zeros(1, codec.audio_channels, codec.hop_samples))
        assert sum(value.numel() for value in latents.values()) == round(full / parts)


def test_the_wide_codec_keeps_44_khz_stereo_at_its_rate() -> None:
    codec = build_codec("polyres_wave_44k")
    assert isinstance(codec, WaveCodec)
    assert (codec.sample_rate_hz, codec.audio_channels) == (44_100, 2)
    left, right = music(1.4, 1, 44_100), music(1.4, 2, 44_100)
    wave = torch.cat([left, 0.5 * left + 0.5 * right], dim=1)
    rate = codec.config.scalars_per_step / codec.hop_samples * 44_100
    assert rate < 16_000
    control_hz = int(rate / 2) + 1
    down = resample(wave[0].numpy(), 44_100, control_hz)
    control = torch.from_numpy(resample(down, control_hz, 44_100)[None, :, : wave.shape[-1]])
    assert snr_db(wave, coded(codec, wave)) > snr_db(wave, control) + 3


def test_the_live_codec_streams_what_it_codes_as_a_whole() -> None:
    codec = build_codec("polyres_wave_live")
    assert isinstance(codec, WaveCodec)
    assert latency_samples(codec) == 0.128 * codec.sample_rate_hz
    wave, out = music(1.5), []
    encoder, decoder = WaveStreamEncoder(codec), WaveStreamDecoder(codec)
    for start in range(0, wave.shape[-1], 512):
        latents = encoder.push(wave[0, :, start : start + 512])
        if latents is not None:
            assert sum(value.numel() for value in latents.values()) <= 0.032 * 3200
            out.append(decoder.push(latents))
    latents = encoder.finish()
    assert latents is not None
    found = torch.cat([*out, decoder.push(latents), decoder.finish()], dim=-1)[None, :, : wave.shape[-1]]
    whole = coded(codec, wave)
    assert snr_db(whole, found) > 60
    down = resample(wave[0].numpy(), 16_000, 3200)
    control = torch.from_numpy(resample(down, 3200, 16_000)[None, :, : wave.shape[-1]])
    assert snr_db(wave, found) > snr_db(wave, control)


def test_the_example_of_the_card_runs(capsys: pytest.CaptureFixture[str]) -> None:
    card = Path(__file__).parents[3] / "docs" / "MODEL_CARD_polyres-wave-live.md"
    example = card.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    said = example.rsplit("# ", 1)[1].strip()
    exec(compile(example, str(card), "exec"), {})
    assert capsys.readouterr().out.strip() == said


def test_noise_that_keeps_to_its_levels_brings_log_spectra_closer(shipped: WaveCodec) -> None:
    wave = music(3)
    latents = {name: value.half().float() for name, value in shipped.encode(padded(wave, shipped)).items()}
    found = []
    for rounds in (0, 6):
        carried, noise = shipped.reconfigured({"even_rounds": rounds}).parts(latents)
        found.append((carried + noise)[..., : wave.shape[-1]])
    want = metric_magnitude(wave[0].double(), 16_000)
    apart = [float(log_spectral_distance(want, metric_magnitude(one[0].double(), 16_000))) for one in found]
    assert apart[1] < 0.92 * apart[0]
    assert snr_db(wave, found[1]) > snr_db(wave, found[0]) - 0.1


def test_two_channels_are_coded_together() -> None:
    config = SMALL.with_values({"audio_channels": 2, "scalars_per_step": 700, "floor_scalars": 120})
    codec = WaveCodec(config).eval()
    left, right = music(0.6, 1), music(0.6, 2)
    wave = torch.cat([left, 0.5 * left + 0.1 * right], dim=1)
    found = coded(codec, wave)
    assert found.shape == wave.shape
    assert snr_db(wave[:, :1], found[:, :1]) > 6
    assert snr_db(wave[:, 1:], found[:, 1:]) > 6


def test_nan_is_refused(shipped: WaveCodec) -> None:
    with pytest.raises(InputError, match="polyres_wave was given a wave with NaN or infinite samples"):
        shipped.encode(torch.full((1, 1, shipped.hop_samples), torch.nan))


def test_latents_of_something_else_are_refused(small: WaveCodec) -> None:
    with pytest.raises(InputError, match="needs latents coefficients, floor, latent; given are mel"):
        small.decode({"mel": torch.zeros(1, 64, 3)}, 10)


def test_asking_for_too_many_samples_is_refused(small: WaveCodec) -> None:
    with torch.no_grad():
        latents = small.encode(torch.zeros(1, 1, small.hop_samples))
    with pytest.raises(InputError, match="2049 samples were asked for; the latents hold 2048"):
        small.decode(latents, 2049)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"splits": [1, 3]}, r"splits are \[1, 3\]; give 1 to 8 different powers of two"),
        ({"frame_samples": 1030}, "frame_samples 1030 cannot be cut into 16 even blocks"),
        ({"floor_block": 300}, "floor_block 300 must divide a step"),
        ({"scalars_per_step": 210}, "scalars_per_step 210 leaves 2 for coefficients"),
        ({"synthesis": "refined"}, "synthesis refined needs the sizes of a refiner"),
        (
            {"even_n_fft": 1000, "even_rounds": 1},
            "even_n_fft 1000 must be a multiple of 32, and an eighth of it divide",
        ),
        ({"even_n_fft": 1536, "even_rounds": 1}, "even_n_fft 1536 must be .* an eighth of it divide 8192"),
        ({"even_rounds": 7}, "7 rounds of 1024 samples reach beyond a step; even_rounds is at most 6"),
        ({"refiner": {"latent_hop": 1000}}, "refiner.latent_hop 1000 must divide 8192"),
        ({"refiner": {"n_fft": [250]}}, "n_fft 250 does not fit depth 2"),
    ],
)
def test_configs_that_cannot_be_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WaveCodecConfig.from_dict(values)
