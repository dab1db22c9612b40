from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import polyres
from polyres.audio.sources import MemorySource
from polyres.codec.base import check_codec_wave
from polyres.codec.latent import HEADER_NUMBERS, Latent
from polyres.codec.load import LoadedCodec, load_codec
from polyres.codec.stream import decode_blocks, encode_blocks, level_from, measure
from polyres.core.errors import ConfigError, InputError, UnknownNameError, WeightsError
from tests.codec.toy_codec import ToyCodec


def noise(channels: int, length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, length, generator=generator) * 0.1 + 0.05


def loaded(audio_channels: int = 1) -> LoadedCodec:
    return LoadedCodec(ToyCodec(audio_channels), "cpu")


@settings(max_examples=40, deadline=None)
@given(channels=st.integers(1, 3), length=st.integers(1, 700), together=st.integers(1, 2))
def test_what_a_lossless_codec_gives_is_the_input_but_for_float16(channels: int, length: int, together: int) -> None:
    wave = noise(channels, length, length)
    back = loaded(together).reconstruct(wave, 1000)
    assert back.shape == wave.shape
    assert back.dtype == torch.float32
    assert torch.allclose(back, wave, atol=2e-3 * float(wave.abs().max()) + 1e-7)


@pytest.mark.parametrize("rate_hz", [1000, 800, 4410])
def test_other_rates_keep_rate_length_and_place(rate_hz: int) -> None:
    time_s = torch.arange(int(rate_hz * 0.777)) / rate_hz
    wave = torch.stack([torch.sin(2 * torch.pi * 50 * time_s), torch.cos(2 * torch.pi * 90 * time_s)])
    back = loaded().reconstruct(wave, rate_hz)
    assert back.shape == wave.shape
    inner = slice(rate_hz // 5, -rate_hz // 5)
    assert float((back - wave)[:, inner].abs().max()) < 5e-3


def test_reconstruct_is_decode_of_encode_also_through_a_file(tmp_path: Path) -> None:
    codec, wave = loaded(), noise(2, 401)
    direct = codec.reconstruct(wave, 1000)
    latent = codec.encode(wave, 1000)
    assert torch.equal(codec.decode(latent), direct)
    again = Latent.load(latent.save(tmp_path / "z.safetensors"))
    assert torch.equal(loaded().decode(again), direct)


def test_a_latent_counts_its_numbers() -> None:
    latent = loaded().encode(noise(2, 401), 1000)
    steps = -(-401 // 8)
    assert latent.tensors["z"].shape == (2, 8, steps)
    assert latent.num_scalars == 2 * 8 * steps + 2 * 3 + len(HEADER_NUMBERS)
    assert latent.duration_s == 0.401
    assert (latent.input_rate_hz, latent.channels, latent.length_samples) == (1000, 2, 401)


def test_level_and_mean_are_taken_once_per_file_and_given_back() -> None:
    quiet = torch.cat([noise(1, 300) * 1e-3, noise(1, 300, 1) * 1e-3 * 4], dim=1) + 0.2
    codec = loaded()
    latent = codec.encode(quiet, 1000)
    peak = 2 * float(latent.tensors["z"].float().abs().max())
    assert peak == pytest.approx(0.5, rel=0.005)
    level = level_from(dict(latent.side))
    assert level is not None
    assert float(level.mean) == pytest.approx(float(quiet.mean()), rel=1e-3)
    assert torch.allclose(codec.decode(latent), quiet, atol=1e-5)


def test_silence_stays_silence() -> None:
    back = loaded().reconstruct(torch.zeros(1, 100), 1000)
    assert float(back.abs().max()) == 0.0


def test_codecs_see_no_more_than_a_window() -> None:
    codec = loaded()
    codec.reconstruct(noise(1, 5000), 1000)
    assert codec.model.longest == codec.model.window_samples  # type: ignore[union-attr]


def test_stages_are_whole_and_the_output_is_that_of_reconstruct() -> None:
    codec, wave = loaded(), noise(2, 333)
    stages = codec.stages(wave, 1000)
    assert list(stages) == ["input", "latent", "wave", "output"]
    assert stages["input"].shape == stages["wave"].shape == (2, 1, 336)
    assert torch.allclose(stages["wave"], stages["input"], atol=1e-6)
    assert torch.equal(stages["output"], codec.reconstruct(wave, 1000))


def test_files_keep_rate_channels_and_length(tmp_path: Path) -> None:
    wave = noise(2, 3001)
    soundfile.write(tmp_path / "in.wav", wave.T.numpy(), 1000, subtype="FLOAT")
    shares: list[float] = []
    out = loaded().reconstruct_file(tmp_path / "in.wav", tmp_path / "new" / "out.wav", shares.append)
    samples, rate_hz = soundfile.read(out, dtype="float32", always_2d=True)
    assert rate_hz == 1000
    assert np.array_equal(samples.T, loaded().reconstruct(wave, 1000).numpy())
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.wav"]


def test_a_latent_of_another_codec_or_weights_is_refused() -> None:
    codec, latent = loaded(), loaded().encode(noise(1, 50), 1000)
    codec.model.scale[:] = 3.0  # type: ignore[index, operator]
    with pytest.raises(WeightsError, match=r"made with other weights of toy"):
        codec.decode(latent)
    codec.model.name = "other"
    with pytest.raises(WeightsError, match=r"the latent is of codec toy, not of other; load that one"):
        codec.decode(latent)


def test_missing_latents_are_noticed() -> None:
    codec, source = loaded(), MemorySource(noise(1, 500), 1000)
    found = measure(source, codec.model)
    blocks = list(encode_blocks(source, codec.model, found))
    with pytest.raises(InputError, match=r"latents are missing"):
        list(decode_blocks(blocks[:-1], codec.model, found))


@pytest.mark.parametrize("joins", [True, False])
def test_samples_come_while_later_windows_wait(joins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyCodec, "joins_features", joins)
    codec, decoded = loaded(), list[int]()
    latent = codec.encode(noise(1, 8000), 1000)
    from_features = codec.model.from_features

    def counted(features: dict[str, Tensor], length: int) -> Tensor:
        decoded.append(length)
        return from_features(features, length)

    monkeypatch.setattr(codec.model, "from_features", counted)
    blocks = codec.decode_blocks(latent)
    first = next(blocks)
    assert len(decoded) <= 4
    rest = list(blocks)
    assert len(decoded) > 100
    assert torch.equal(torch.cat([first, *rest], dim=1), loaded().decode(latent))


def test_a_source_that_changes_is_noticed() -> None:
    codec = loaded()
    found = measure(MemorySource(noise(1, 500), 1000), codec.model)
    for length in (400, 600):
        with pytest.raises(InputError, match=r"changed while it was read"):
            list(encode_blocks(MemorySource(noise(1, length), 1000), codec.model, found))


class EmptySource:
    name, sample_rate_hz, channels = "nothing", 1000, 1

    def blocks(self, block_samples: int):  # type: ignore[no-untyped-def]
        return iter(())


def test_no_samples_are_refused() -> None:
    with pytest.raises(InputError, match=r"nothing: holds no samples; nothing to code"):
        measure(EmptySource(), ToyCodec())


def test_waves_that_do_not_fit_a_codec_are_refused() -> None:
    with pytest.raises(InputError, match=r"toy was given a wave of shape \(1, 16\).*\[B, 1, T\] is needed"):
        check_codec_wave(torch.zeros(1, 16), ToyCodec())
    with pytest.raises(InputError, match=r"toy was given 17 samples; a multiple of 8 is needed; pad"):
        check_codec_wave(torch.zeros(1, 1, 17), ToyCodec())


def test_only_free_settings_change() -> None:
    codec = ToyCodec()
    codec.configure({"post_filter": "median"})
    assert codec.config.post_filter == "median"
    with pytest.raises(ConfigError, match=r"autoencoder of toy cannot be changed: its weights were trained with it"):
        codec.configure({"autoencoder": "other"})
    with pytest.raises(ConfigError, match=r"did you mean 'front_end'"):
        codec.configure({"frontend": "other"})


def test_variants_have_names() -> None:
    codec = ToyCodec()
    codec.use_variant("filtered")
    assert codec.name == "toy:filtered"
    with pytest.raises(UnknownNameError, match=r"unknown variant of toy 'filterd'; did you mean 'filtered'"):
        ToyCodec().use_variant("filterd")


def test_names_and_paths_that_are_no_codecs_are_refused(tmp_path: Path) -> None:
    assert polyres.load_codec is load_codec
    with pytest.raises(UnknownNameError, match=r"unknown codec 'polyres-wav'; "):
        load_codec("polyres-wav")
    with pytest.raises(WeightsError, match=r"there is no codec at .*none\.safetensors"):
        load_codec(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match=r"holds no codec|there is no weight file"):
        load_codec(tmp_path)
