from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyres.codec.audioldm2 import codec as audioldm2
from polyres.codec.audioldm2 import parts as audioldm2_parts
from polyres.codec.audioldm2.codec import AudioLDM2Codec, bursts, estimate_lag
from polyres.codec.load import LoadedCodec, load_codec
from polyres.codec.registry import codec_names, codec_summary
from polyres.core.errors import ConfigError, InputError, OfflineError, UnknownNameError, WeightsError
from polyres.dsp.input_level import level_of
from polyres.dsp.mel import AUDIOLDM2_16K, audioldm2_log_mel, decibel_front_end


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYRES_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield audioldm2_parts.tiny_folder()


@pytest.fixture(autouse=True)
def _own_cache(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYRES_CACHE", str(parts.parent))


def tiny(settings: dict[str, object] | None = None) -> LoadedCodec:
    return load_codec("audioldm2_tiny", "cpu", settings)


def model_of(codec: LoadedCodec) -> AudioLDM2Codec:
    assert isinstance(codec.model, AudioLDM2Codec)
    return codec.model


def music(seconds: float, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    time_s = torch.arange(int(16000 * seconds)) / 16000
    tone = torch.sin(2 * torch.pi * 440 * time_s) * (0.5 + 0.5 * torch.sin(2 * torch.pi * 3 * time_s))
    return (0.3 * tone + 0.03 * torch.randn(len(time_s), generator=generator))[None]


# -- the chain --------------------------------------------------------------------------------------------------------


def test_the_autoencoder_reads_the_levelled_and_padded_wave_to_the_letter() -> None:
    wave = music(0.5) + 0.1
    stages = tiny().stages(wave, 16000)
    padded = torch.nn.functional.pad(level_of(wave).apply(wave), (0, -wave.shape[1] % 640))
    assert wave.shape[1] % 640
    assert stages["mel"].shape == (1, 1, padded.shape[1] // 160, 64)
    # The peak is stored with the precision of float16, so the level differs a little.
    assert torch.allclose(stages["mel"], audioldm2_log_mel(padded)[None], atol=5e-3)
    assert list(stages) == ["input", "mel", "latent", "mel_decoded", "wave", "output"]


def test_latents_are_the_mode_without_a_scale() -> None:
    codec = tiny()
    mel = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 5
    autoencoder = model_of(codec).autoencoder
    expected = autoencoder.encode(mel).latent_dist.mean  # type: ignore[operator]
    assert torch.equal(model_of(codec)._to_latent(mel), expected)
    assert torch.equal(
        model_of(codec).to_features({"z": expected})["mel"],
        autoencoder.decode(expected).sample,  # type: ignore[operator]
    )


def test_a_second_costs_3200_numbers() -> None:
    latent = tiny().encode(music(4.0), 16000)
    assert latent.tensors["z"].shape == (1, 8, 100, 16)
    assert latent.num_scalars == 4 * 3200 + 3 + 3


@pytest.mark.parametrize("length", [1, 432, 640, 641, 5000])
def test_any_length_comes_back_whole(length: int) -> None:
    wave = torch.randn(2, length, generator=torch.Generator().manual_seed(length)) * 0.1
    back = tiny().reconstruct(wave, 16000)
    assert back.shape == wave.shape
    assert bool(torch.isfinite(back).all())


def test_44100_hz_stereo_is_coded_channel_by_channel() -> None:
    wave = torch.randn(2, 30000, generator=torch.Generator().manual_seed(1)) * 0.1
    codec = tiny()
    both = codec.reconstruct(wave, 44100)
    assert both.shape == wave.shape
    alone = torch.cat([codec.reconstruct(wave[:1], 44100), codec.reconstruct(wave[1:], 44100)])
    assert torch.allclose(both, alone, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"post_filter": None}])
def test_a_long_file_in_windows_sounds_as_in_one_piece(settings: dict[str, object]) -> None:
    codec = load_codec("audioldm2_tiny:no_autoencoder", "cpu", settings)
    wave = music(27.0)
    latent = codec.encode(wave, 16000)
    whole = model_of(codec)
    with torch.no_grad():
        z = {name: value.float() for name, value in latent.tensors.items()}
        at_once = whole.decode(z, wave.shape[1])[0]
    gain = float(level_of(wave).gain)
    windowed = (codec.decode(latent) - wave.mean()) * gain
    assert torch.allclose(windowed, at_once, atol=5e-3)
    mel = audioldm2_log_mel(torch.nn.functional.pad(level_of(wave).apply(wave), (0, -wave.shape[1] % 640)))
    flat = z["z"].transpose(1, 2).flatten(1, 2)[0]
    assert torch.allclose(flat, mel[0], atol=2e-2)


def test_the_vocoder_computes_in_full_precision_whatever_the_context_says() -> None:
    model = model_of(tiny())
    mel = audioldm2_log_mel(music(0.4))
    plain = model._vocode(mel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model._vocode(mel), plain)
    assert plain.dtype == torch.float32
    assert plain.shape == (1, 160 * mel.shape[1] + 32)


def test_a_phase_method_in_place_of_the_vocoder_keeps_the_pitch() -> None:
    codec = load_codec("audioldm2_tiny:no_autoencoder", "cpu", {"synthesis": "pghi+fgla", "phase_iterations": 8})
    wave = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)[None] * 0.3
    back = codec.reconstruct(wave, 16000)
    spectrum = torch.fft.rfft(back[0]).abs()
    assert abs(int(spectrum.argmax()) - 1000) < 40
    assert float(back.std()) == pytest.approx(float(wave.std()), rel=0.3)
    stages = codec.stages(wave, 16000)
    assert stages["magnitude"].shape == (1, 1, 100, 513)


# -- lag --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [-9, 0, 5, 16, 31])
def test_the_lag_of_a_vocoder_that_follows_is_found(late: int) -> None:
    spoken: list[int] = []

    def vocode(mel: Tensor) -> Tensor:
        length = mel.shape[1] * 160
        spoken.append(length)
        known = torch.nn.functional.pad(bursts(length, 16000), (100, 100))
        noise = torch.randn(length + 32, generator=torch.Generator().manual_seed(9)).sign()
        return (known[100 - late : 100 - late + length + 32].abs() * noise)[None]  # no phase in common

    assert abs(estimate_lag(vocode, AUDIOLDM2_16K) - late) <= 2
    assert len(spoken) == 1


def test_the_surplus_of_a_vocoder_that_does_not_follow_is_spread_evenly() -> None:
    model = model_of(tiny())
    assert model.lag_samples == 16
    assert estimate_lag(lambda mel: torch.zeros(1, 160 * mel.shape[1] + 32), AUDIOLDM2_16K) == 16


@pytest.mark.parametrize("lag", [-7, 0, 12])
def test_the_lag_is_taken_away(lag: int) -> None:
    model = model_of(tiny())
    model._lag = lag
    features = {"mel": audioldm2_log_mel(music(0.4))[None]}
    raw = model._vocode(features["mel"][:, 0])
    wave = model.from_features(features, 6400)[0, 0]
    assert torch.equal(wave[max(0, -lag) :], raw[0, max(0, lag) : 6400 + lag])


# -- wrong turns ------------------------------------------------------------------------------------------------------


def test_wrong_turns_have_names_and_do_what_they_say() -> None:
    wave = music(0.64)[:, None]
    right = model_of(tiny())
    scale = 0.41
    mel = right.mel(wave)
    z = right._to_latent(mel)

    def variant(name: str) -> AudioLDM2Codec:
        codec = load_codec(f"audioldm2_tiny:{name}", "cpu")
        assert codec.name == f"audioldm2_tiny:{name}"
        return model_of(codec)

    assert torch.equal(variant("decibel_front_end").mel(wave), decibel_front_end(wave))
    assert torch.equal(variant("transposed_layout").mel(wave)[0, 0, :64], mel[0, 0, :64].T)
    doubled = variant("doubled_scaling")
    assert torch.allclose(doubled._to_latent(mel), z * scale)
    assert torch.allclose(doubled._to_mel(z * scale), right._to_mel(z * scale * scale), atol=1e-5)
    sampled = variant("sampled_latent")
    assert not torch.allclose(sampled._to_latent(mel), z, atol=0.01)
    assert torch.equal(sampled._to_latent(mel), variant("sampled_latent")._to_latent(mel))


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'sampled_latent'"):
        load_codec("audioldm2_tiny:sampled_latents", "cpu")


# -- settings ---------------------------------------------------------------------------------------------------------


def test_a_front_end_that_the_weights_do_not_know_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"audioldm2_tiny cannot be used with mel_bins 80 \(needs 64\).*in training"):
        tiny({"mel": {"mel_bins": 80}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"synthesis": "grifin_lim"}, r"unknown phase method 'grifin_lim'; did you mean 'griffin_lim'"),
        ({"front_end": "decibels"}, r"unknown wrong front end 'decibels'"),
        ({"enhancer": "frequenzy"}, r"unknown enhancer 'frequenzy'; did you mean 'frequency'"),
        ({"post_filter": "wieners"}, r"unknown post filter 'wieners'; did you mean 'wiener'"),
        ({"mel_inverse": "nlls"}, r"unknown mel inverse 'nlls'"),
        ({"strength": -1}, r"strength = -1 is not allowed"),
        ({"synthesys": "vocoder"}, r"did you mean 'synthesis'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(settings)


def test_enhancers_change_latents_by_their_strength() -> None:
    wave = music(0.64)
    plain = tiny().reconstruct(wave, 16000)
    assert torch.equal(tiny({"enhancer": "frequency", "strength": 0}).reconstruct(wave, 16000), plain)
    stages = tiny({"enhancer": "frequency", "strength": 0.5}).stages(wave, 16000)
    assert not torch.allclose(stages["latent_enhanced"], stages["latent"], atol=0.01)
    assert not torch.allclose(stages["output"], plain, atol=0.01)


def test_post_filters_change_waves() -> None:
    wave = music(0.64)
    plain = tiny().reconstruct(wave, 16000)
    filtered = tiny({"post_filter": "median"}).reconstruct(wave, 16000)
    assert filtered.shape == plain.shape
    assert not torch.allclose(filtered, plain, atol=0.01)


# -- parts ------------------------------------------------------------------------------------------------------------


def test_the_tiny_parts_are_the_same_every_time_and_say_so(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    audioldm2._remark_random.cache_clear()
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path))
    with caplog.at_level(logging.WARNING, "polyres"):
        tiny()
    assert "audioldm2_tiny has random weights" in caplog.text
    again = audioldm2_parts.tiny_folder()
    assert again != parts
    for file in ("vae/diffusion_pytorch_model.safetensors", "vocoder/model.safetensors"):
        one, other = load_file(parts / file), load_file(again / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "file"))
    folder = audioldm2_parts.tiny_folder()
    assert (folder / "vae" / "config.json").is_file()
    assert not folder.is_relative_to(tmp_path)


def test_a_local_folder_is_a_codec_and_decodes_its_latents(parts: Path, tmp_path: Path) -> None:
    here = shutil.copytree(parts, tmp_path / "mine")
    codec = load_codec(here, "cpu")
    wave = music(0.64)
    latent = codec.encode(wave, 16000)
    assert latent.codec == str(here)
    assert torch.equal(load_codec(latent.codec, "cpu").decode(latent), tiny().reconstruct(wave, 16000))
    assert load_codec(f"{here}:sampled_latent", "cpu").name == f"{here}:sampled_latent"


def test_another_vocoder_speaks_the_same_latents(parts: Path, tmp_path: Path) -> None:
    other = shutil.copytree(parts / "vocoder", tmp_path / "vocoder")
    weights = load_file(other / "model.safetensors")
    save_file(
        {name: -value if name.startswith("conv_post") else value for name, value in weights.items()},
        other / "model.safetensors",
        {"format": "pt"},
    )
    wave = music(0.64)
    latent = tiny().encode(wave, 16000)
    codec = tiny({"vocoder": str(other)})
    expected = 2 * float(wave.mean()) - tiny().decode(latent)
    assert torch.allclose(codec.decode(latent), expected, atol=1e-3)


def changed(parts: Path, target: Path, part: str, values: dict[str, object]) -> Path:
    folder = shutil.copytree(parts, target)
    config = json.loads((folder / part / "config.json").read_text())
    (folder / part / "config.json").write_text(json.dumps({**config, **values}))
    return folder


def test_parts_of_another_front_end_are_refused(parts: Path, tmp_path: Path) -> None:
    folder = changed(parts, tmp_path / "rate", "vocoder", {"sampling_rate": 22050})
    with pytest.raises(ConfigError, match=r"vocoder .* cannot be used with sample_rate_hz 16000 \(needs 22050\)"):
        load_codec(folder, "cpu")


def test_an_autoencoder_of_images_is_refused(parts: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(parts, tmp_path / "images")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(str(folder / "vae"))
    with pytest.raises(WeightsError, match=r"takes 3 and gives 3 channels and shrinks by 1; .*takes and gives 1"):
        load_codec(folder, "cpu")


def test_missing_weights_are_not_made_up(parts: Path, tmp_path: Path) -> None:
    for part, file in (("vae", "diffusion_pytorch_model.safetensors"), ("vocoder", "model.safetensors")):
        folder = shutil.copytree(parts, tmp_path / part)
        weights = load_file(folder / part / file)
        weights.pop(sorted(weights)[0])
        save_file(weights, folder / part / file, {"format": "pt"})
        with pytest.raises(WeightsError, match=rf"{part}: 1 weights are missing or misshapen, first "):
            load_codec(folder, "cpu")


def test_what_cannot_be_read_is_named(parts: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(parts, tmp_path / "cut")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"cannot read .*vae: .*; get the folder again"):
        load_codec(folder, "cpu")
    shutil.rmtree(folder / "vae")
    with pytest.raises(WeightsError, match=r"has no vae with a config.json; give a folder as AudioLDM2 has it"):
        load_codec(folder, "cpu")


def test_missing_libraries_are_named_with_the_extra(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders.autoencoder_kl", None)
    with pytest.raises(WeightsError, match=r"need diffusers and transformers .*pip install 'polyres\[audioldm2\]'"):
        load_codec(parts, "cpu")


@pytest.mark.parametrize("name", ["audioldm2", "audioldm2-large", "audioldm2-music"])
def test_without_a_network_it_says_how_to_get_the_weights_and_their_licence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def nothing(repository: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert repository == f"cvssp/{name}"
        raise OSError("no network\nplease check it")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    monkeypatch.setattr(audioldm2_parts, "answering", set)
    with pytest.raises(
        OfflineError, match=rf"cannot download {name} \(no network\).*hf download cvssp/{name} .*BY-NC-SA"
    ):
        load_codec(name, "cpu")


def test_half_of_a_download_is_not_taken_for_the_whole(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def cached(repository: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert local_files_only
        return str(tmp_path / "half")

    shutil.copytree(parts, tmp_path / "half", ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(audioldm2_parts, "answering", lambda urls: pytest.fail("a server was asked"))
    with pytest.raises(
        OfflineError, match=r"cannot download audioldm2 \(downloads are switched off by HF_HUB_OFFLINE\)"
    ):
        load_codec("audioldm2", "cpu")


def test_what_is_in_the_cache_is_loaded_without_a_network(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def cached(repository: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert local_files_only
        return str(parts)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    wave = music(0.3)
    assert torch.equal(load_codec("audioldm2", "cpu").reconstruct(wave, 16000), tiny().reconstruct(wave, 16000))


def test_all_are_listed_with_their_licence() -> None:
    assert {"audioldm2", "audioldm2-large", "audioldm2-music", "audioldm2_tiny"} <= set(codec_names())
    assert "CC BY-NC-SA" in codec_summary("audioldm2")


def test_a_latent_of_other_weights_is_refused(parts: Path, tmp_path: Path) -> None:
    latent = tiny().encode(music(0.3), 16000)
    folder = shutil.copytree(parts, tmp_path / "other")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"the latent is of codec audioldm2_tiny, not of "):
        load_codec(folder, "cpu").decode(latent)


def test_waves_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"a multiple of 640 is needed"):
        model_of(tiny()).encode(torch.zeros(1, 1, 641))
    with pytest.raises(InputError, match=r"\[B, 1, T\] is needed"):
        model_of(tiny()).stages(torch.zeros(1, 2, 640))
