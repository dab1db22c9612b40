"""The mel codec: any length, windows as in one piece, files, variants, and everything the other mel codecs can do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyres.codec.base import CodecPicture
from polyres.codec.load import LoadedCodec, load_codec
from polyres.codec.mel.autoencoder import MelAutoencoderConfig
from polyres.codec.mel.codec import (
    MelCodec,
    MelCodecConfig,
    MelVocoder,
    MelVocoderConfig,
    load_mel_codec,
    save_mel_codec,
)
from polyres.core.errors import ConfigError, InputError, UnknownNameError, WeightsError
from polyres.dsp.framing import FrameTransform
from polyres.dsp.input_level import level_of
from polyres.dsp.mel import MelConfig, linear_magnitude, log_mel, mel_framing, mel_of_magnitude
from polyres.weights.files import METADATA_KEY

RATE_HZ = 8000
MEL = MelConfig(sample_rate_hz=RATE_HZ, n_fft=256, win_length=256, hop_length=64, mel_bins=16, max_hz=4000.0)
CONFIG = MelCodecConfig(
    mel=MEL,
    network=MelAutoencoderConfig(widths=(4, 6, 8), latent_channels=3, middle_blocks=0),
    vocoder=MelVocoderConfig(width=16, depth=2),
)


def small(settings: dict[str, object] | None = None) -> MelCodec:
    codec = MelCodec(CONFIG, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in codec.parameters():
            if not value.abs().sum():
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    codec.configure(settings or {})
    return codec


def music(seconds: float, channels: int = 1, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    time_s = torch.arange(int(RATE_HZ * seconds)) / RATE_HZ
    tone = torch.sin(2 * torch.pi * 440 * time_s) * (0.5 + 0.5 * torch.sin(2 * torch.pi * 3 * time_s))
    return 0.3 * tone + 0.03 * torch.randn(channels, len(time_s), generator=generator)


def test_the_latent_has_a_quarter_of_frames_and_bins_and_its_rate_is_known() -> None:
    latent = LoadedCodec(small(), "cpu").encode(music(4.0), RATE_HZ)
    assert latent.tensors["z"].shape == (1, 3, 125, 4)
    assert latent.num_scalars == 1500 + 3 + 3


@pytest.mark.parametrize("length", [1, 200, 256, 257, 5000])
def test_any_length_comes_back_whole(length: int) -> None:
    wave = torch.randn(2, length, generator=torch.Generator().manual_seed(length)) * 0.1
    back = LoadedCodec(small(), "cpu").reconstruct(wave, RATE_HZ)
    assert back.shape == wave.shape
    assert bool(torch.isfinite(back).all())


def test_stereo_of_another_rate_is_coded_channel_by_channel() -> None:
    codec, wave = LoadedCodec(small(), "cpu"), music(1.0, 2)
    both = codec.reconstruct(wave, 11025)
    alone = torch.cat([codec.reconstruct(wave[:1], 11025), codec.reconstruct(wave[1:], 11025)])
    assert both.shape == wave.shape
    assert torch.allclose(both, alone, atol=1e-5)


@pytest.mark.parametrize(("settings", "share"), [({}, 0.002), ({"synthesis": "vocoder+fgla"}, 0.2)])
def test_a_long_file_in_windows_is_what_it_is_in_one_piece(settings: dict[str, object], share: float) -> None:
    model = small(settings)
    model.window_samples = 4 * model.context_samples
    wave = music(6 * model.window_samples / RATE_HZ + 0.1)
    latent = LoadedCodec(model, "cpu").encode(wave, RATE_HZ)
    padded = torch.nn.functional.pad(level_of(wave).apply(wave), (0, -wave.shape[1] % model.hop_samples))
    with torch.no_grad():
        z = model.encode(padded[None])["z"]
        at_once = model.decode({"z": latent.tensors["z"].float()}, wave.shape[1])[0]
    assert torch.allclose(latent.tensors["z"].float(), z, atol=2e-2)
    gain = float(level_of(wave).gain)
    windowed = (LoadedCodec(model, "cpu").decode(latent) - wave.mean()) * gain
    assert float((windowed - at_once).norm()) < share * float(at_once.norm())


def test_the_stages_are_the_chain() -> None:
    wave = music(0.512)[None]
    with torch.no_grad():
        stages = small().stages(wave)
        spoken = small().vocoder(stages["mel_decoded"][:, 0])
    assert list(stages) == ["mel", "latent", "mel_decoded", "wave"]
    assert torch.equal(stages["mel"], log_mel(wave, MEL))
    assert torch.allclose(stages["wave"][:, 0], spoken[..., : wave.shape[-1]], atol=1e-6)
    with torch.no_grad():
        assert "magnitude" in small({"synthesis": "pghi"}).stages(wave)


def test_without_the_autoencoder_the_latent_is_the_mel_spectrogram() -> None:
    codec, wave = small({"autoencoder": "none"}), music(0.512)[None]
    features = codec.to_features(codec.encode(wave))["mel"]
    assert torch.equal(features, log_mel(wave, MEL))


@pytest.mark.parametrize("variant", ["no_autoencoder", "sampled_latent", "phase", "learned_phase", "polished"])
def test_every_variant_speaks(variant: str) -> None:
    codec = small()
    codec.use_variant(variant)
    back = LoadedCodec(codec, "cpu").reconstruct(music(0.7), RATE_HZ)
    assert back.shape == (1, 5600)
    assert 0 < float(back.abs().max()) < 100
    assert not torch.equal(back, LoadedCodec(small(), "cpu").reconstruct(music(0.7), RATE_HZ))


def test_polishing_brings_the_wave_to_its_magnitudes() -> None:
    mel = log_mel(music(1.024)[None], MEL)

    def error(settings: dict[str, object]) -> float:
        with torch.no_grad():
            wanted = small().vocoder.magnitude(mel[:, 0])
            found = linear_magnitude(small(settings).from_features({"mel": mel}, 8192), MEL)[:, 0]
            return float((found - wanted).square().sum() / wanted.square().sum())

    assert error({"synthesis": "vocoder+fgla"}) < 0.5 * error({})


def test_enhancers_and_pictures_work_on_it() -> None:
    picture = CodecPicture(small())
    latent = picture.encode(music(0.512)[None])
    assert picture.has_mel
    assert picture.decode_mel(latent).shape == (1, 64, 16)
    plain, sharp = (small(s).reconfigured(s) for s in ({}, {"enhancer": "contrast", "strength": 1.0}))
    z = {"z": latent}
    assert torch.equal(plain.enhance(z)["z"], latent)
    assert not torch.equal(sharp.enhance(z)["z"], latent)


@pytest.mark.slow
def test_files_give_the_same_codec_in_another_process(tmp_path: Path) -> None:
    path = save_mel_codec(small(), tmp_path / "codec.safetensors", {"note": 1}, "fp32")
    wave = music(1.0)
    codec = load_codec(path, "cpu")
    latent = codec.encode(wave, RATE_HZ)
    latent.save(tmp_path / "z.safetensors")
    code = (
        "import sys, torch; from polyres.codec.load import load_codec; from polyres.codec.latent import"
        " Latent; z = Latent.load(sys.argv[1]); w = load_codec(z.codec, 'cpu').decode(z); torch.save(w, sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "z.safetensors"), str(tmp_path / "w.pt")], check=True)
    assert torch.allclose(torch.load(tmp_path / "w.pt"), LoadedCodec(small(), "cpu").decode(latent), atol=1e-5)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = save_mel_codec(small(), tmp_path / "codec.safetensors")
    tensors = load_file(path)
    about = {"format": 1, "kind": "codec", "codec": "polyres_mel", "config": {"mel": {"hop_length": 0}}, "card": {}}
    save_file(tensors, tmp_path / "odd.safetensors", {METADATA_KEY: json.dumps(about)})
    with pytest.raises(WeightsError, match="its config is not usable"):
        load_mel_codec(tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match="there is no weight file"):
        load_mel_codec(tmp_path / "none.safetensors")


def test_settings_that_the_weights_do_not_allow_are_refused() -> None:
    codec = small()
    with pytest.raises(ConfigError, match=r"hop_length 128 \(needs 64\)"):
        codec.configure({"mel": {"hop_length": 128}})
    with pytest.raises(ConfigError, match=r"network\.latent_channels of polyres_mel cannot be changed"):
        codec.configure({"network": {"latent_channels": 4}})
    with pytest.raises(UnknownNameError, match="unknown phase method 'vocodr'"):
        codec.configure({"synthesis": "vocodr"})
    with pytest.raises(UnknownNameError, match="unknown mel inverse 'nnlss'"):
        codec.configure({"mel_inverse": "nnlss"})


@pytest.mark.parametrize(
    ("mel", "message"),
    [({"mel_bins": 18}, "must be a multiple of 4"), ({"framing": "centred"}, "mel.framing must be 'between'")],
)
def test_front_ends_that_cannot_be_cut_are_refused(mel: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MelCodecConfig(mel=MEL.with_values(mel))


def test_latents_that_do_not_fit_are_refused() -> None:
    codec = small()
    with pytest.raises(InputError, match=r"polyres_mel needs latents z \[B, D, N, 4\]; given are x"):
        codec.decode({"x": torch.zeros(1, 3, 5, 4)}, 256)
    with pytest.raises(InputError, match="2000 samples were asked for; the latents hold 1280"):
        codec.decode({"z": torch.zeros(1, 3, 5, 4)}, 2000)
    with pytest.raises(InputError, match="a multiple of 256 is needed"):
        codec.encode(torch.zeros(1, 1, 300))


VOCODER_MEL = MelConfig(sample_rate_hz=8000, n_fft=256, win_length=256, hop_length=64, mel_bins=16, max_hz=4000.0)
SMALL = MelVocoderConfig(width=16, depth=2)


def noise(frames: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(1, frames * VOCODER_MEL.hop_length, generator=torch.Generator().manual_seed(seed))


def busy(mel: MelConfig = VOCODER_MEL) -> MelVocoder:
    model = MelVocoder(SMALL, mel, seed=1)
    with torch.no_grad():
        model.head.weight.mul_(5)
    return model.eval()


def test_a_frame_makes_a_hop_of_samples() -> None:
    with torch.no_grad():
        assert busy()(log_mel(noise(20), VOCODER_MEL)).shape == (1, 20 * 64)


@pytest.mark.parametrize("power", [1, 2])
def test_magnitudes_have_the_mel_bands_they_were_given(power: int) -> None:
    front_end = VOCODER_MEL.with_values({"power": power})
    mel = log_mel(noise(30), front_end) - torch.linspace(0, 4, 16)
    with torch.no_grad():
        given = mel_of_magnitude(busy(front_end).magnitude(mel), front_end).clamp_min(1e-5).log()
    assert float((given - mel).abs().mean()) < 0.1 * power


def test_only_its_own_phases_make_it_louder_than_it_was_told() -> None:
    model, mel = busy(), log_mel(noise(30), VOCODER_MEL)
    with torch.no_grad():
        before, spoken = model.magnitude(mel), model(mel)
        model.louder.bias.fill_(1.0)
        assert torch.equal(model.magnitude(mel), before)
        assert torch.allclose(model(mel), spoken * torch.e, rtol=1e-3, atol=1e-5)


def test_level_moves_the_wave_and_nothing_else() -> None:
    model = MelVocoder(SMALL, VOCODER_MEL, seed=1).eval()
    torch.nn.init.zeros_(model.embed.weight)
    mel = log_mel(noise(30), VOCODER_MEL)
    with torch.no_grad():
        assert torch.allclose(model(mel + 1), model(mel) * torch.e, rtol=1e-3, atol=1e-5)


def test_a_sample_depends_on_its_context_and_on_nothing_else() -> None:
    model, frames = busy(), 60
    mel = log_mel(noise(frames), VOCODER_MEL)
    other = mel.clone()
    other[:, 30] += 1.0
    with torch.no_grad():
        moved = ((model(other) - model(mel)).abs()[0] > 0).nonzero()[:, 0]
    reach = max(30 - int(moved[0]) // 64, int(moved[-1]) // 64 - 30)
    assert model.context_frames - 3 <= reach <= model.context_frames


def test_spectra_of_a_wave_give_back_the_wave() -> None:
    wave, model = noise(16), busy()
    spectra = FrameTransform(mel_framing(VOCODER_MEL, wave.shape[-1]), torch.float32, wave.device).analyse(wave)
    assert torch.allclose(spectra.abs().transpose(1, 2), linear_magnitude(wave, VOCODER_MEL), atol=1e-4)
    assert torch.allclose(model.wave(spectra), wave, atol=1e-5)


def test_bins_that_no_filter_reaches_stay_silent() -> None:
    front_end = VOCODER_MEL.with_values({"max_hz": 2000.0})
    with torch.no_grad():
        magnitude = busy(front_end).magnitude(log_mel(noise(20), front_end))
    assert float(magnitude[:, 66:].abs().max()) == 0
    assert float(magnitude[:, 1:60].min()) > 0


def test_it_learns_to_speak_a_tone() -> None:
    time_s = torch.arange(16 * VOCODER_MEL.hop_length) / VOCODER_MEL.sample_rate_hz
    wave = 0.4 * torch.sin(2 * torch.pi * 500 * time_s)[None]
    mel, model = log_mel(wave, VOCODER_MEL), MelVocoder(SMALL, VOCODER_MEL, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    found = []
    for _ in range(40):
        loss = (log_mel(model(mel), VOCODER_MEL) - mel).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.6 * found[0]
