from __future__ import annotations

import builtins
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from polyres.codec.enhance.enhancers import enhance
from polyres.codec.latent import Latent
from polyres.codec.load import LoadedCodec, codec_for, load_codec
from polyres.codec.networks import build_network, save_network
from polyres.codec.post_filter import post_filter
from polyres.codec.registry import build_codec
from polyres.codec.staged.codec import AVERAGES, StagedCodec, codec_of_latent
from polyres.codec.staged.config import Stages, read_stages
from polyres.core.errors import ConfigError, InputError, UnknownNameError, WeightsError

CODECS = Path(__file__).resolve().parents[3] / "recipes" / "codecs"
WAVE, TINY = "polyres_wave", "audioldm2_tiny"
RATE_HZ = 16000


def music(channels: int = 1, length: int = 40960) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    time_s = torch.arange(length) / RATE_HZ
    tones = sum(torch.sin(2 * torch.pi * f * time_s) / n for n, f in enumerate((220.0, 445.0, 1330.0, 5100.0), 1))
    return 0.1 * tones + 0.01 * torch.randn(channels, length, generator=generator)


def refiner(path: Path, informed: bool = False, kind: str = "mel_refiner", codec: str = TINY) -> Path:
    channels = 1 if kind == "mel_refiner" else 8
    network = build_network(kind, {"channels": channels, "width": 4, "depth": 2, "informed": informed})
    with torch.no_grad():
        network.last.bias.fill_(0.5)  # type: ignore[union-attr, operator]
    return save_network(kind, network, path, {"codec": codec})


def band(path: Path, cutoff_hz: float = 7500) -> Path:
    settings = {"sample_rate_hz": 44100, "cutoff_hz": cutoff_hz, "n_fft": 512, "width": 4, "depth": 1}
    return save_network("bandwidth", build_network("bandwidth", settings), path)


def write(folder: Path, text: str) -> Path:
    path = folder / "staged.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_stages_are_done_in_the_order_of_the_notes(tmp_path: Path) -> None:
    refiner(tmp_path / "detail.safetensors")
    path = write(
        tmp_path,
        f"codec: {TINY}\nenhancer: {{name: contrast, strength: 0.5}}\ndetail: {{weights: detail.safetensors, "
        "strength: 2.0}\npost_filters: [{name: median, strength: 0.5}, {name: wiener}]\n",
    )
    codec, inner, wave = build_codec(path), build_codec(TINY), music()[None]
    with torch.no_grad():
        coarse = inner.to_features({"z": enhance("contrast", inner.encode(wave)["z"], 0.5)})["mel"]
        spoken = inner.from_features({"mel": coarse + 2 * 0.5}, wave.shape[-1])
        wanted = post_filter("wiener", post_filter("median", spoken, RATE_HZ, 0.5), RATE_HZ)
        stages = codec.stages(wave)
        found = codec.decode(codec.enhance(codec.encode(wave)), wave.shape[-1])
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.equal(stages["wave"], found)
    assert list(stages) == ["latent", "latent_enhanced", "mel_coarse", "mel_decoded", "wave_unfiltered", "wave"]
    assert torch.allclose(stages["mel_decoded"], coarse + 1.0, atol=1e-5)
    assert codec.config.post_filter == "median+wiener"
    assert codec.context_samples > inner.context_samples
    assert codec.context_samples % codec.hop_samples == 0


@pytest.mark.slow
def test_another_process_decodes_by_what_the_latent_holds(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"codec: {WAVE}\nenhancer: {{name: gain_match}}\npost_filters: [{{name: median}}]\nbandwidth: default\n",
    )
    codec = load_codec(path, "cpu")
    latent = codec.encode(music(2), 44100)
    saved, wanted = latent.save(tmp_path / "z.safetensors"), codec.decode(latent)
    path.unlink()
    out = tmp_path / "out.wav"
    script = "from polyres.cli.main import main; import sys; sys.exit(main())"
    run = [sys.executable, "-c", script, "decode", str(saved), "-o", str(out)]
    subprocess.run(run, check=True, cwd=tmp_path.parent, capture_output=True)
    assert np.abs(soundfile.read(out, dtype="float32")[0].T - wanted.numpy()).max() < 1e-5


def test_a_latent_opens_no_files_and_the_coarse_codec_reads_it_too(tmp_path: Path) -> None:
    refiner(tmp_path / "detail.safetensors")
    path = write(
        tmp_path, f"codec: {TINY}\ndetail: {{weights: detail.safetensors}}\npost_filters: [{{name: wiener}}]\n"
    )
    codec = load_codec(path, "cpu")
    latent = codec.encode(music(), RATE_HZ)
    again = Latent.load(latent.save(tmp_path / "z.safetensors"))
    with pytest.raises(WeightsError, match=r"z.safetensors was coded with '.*detail.safetensors', .* opens no files"):
        codec_of_latent(again)
    wanted = codec.decode(latent)
    assert torch.equal(load_codec(path, "cpu").decode(again), wanted)
    coarse = load_codec(TINY, "cpu").decode(again)
    assert float((coarse - wanted).abs().max()) > 1e-4


def stages(**values: object) -> dict[str, object]:
    return {"stages": {"codec": WAVE, **values}}


OPENED: dict[str, tuple[str, dict[str, object]]] = {
    "codec": ("FILE", {}),
    "folder": ("FOLDER", {}),
    "codec of stages": (WAVE, {"stages": {"codec": "FILE"}}),
    "address": ("https://example.org/codec.safetensors", {}),
    "repository of the Hub": ("someone/codec", {}),
    "plugin": ("own_codec.py", {}),
    "bandwidth": (WAVE, stages(bandwidth="FILE")),
    "detail": (WAVE, stages(detail={"weights": "FILE"})),
    "enhancer": (WAVE, stages(enhancer={"name": "refine_latent", "network": "FILE"})),
    "bandwidth in settings": (WAVE, stages(settings={"bandwidth": "FILE"})),
    "vocoder in settings": (TINY, stages(settings={"vocoder": "FOLDER"})),
    "vocoder": (TINY, {"vocoder": "FOLDER"}),
}


@pytest.mark.parametrize(("codec", "config"), OPENED.values(), ids=OPENED)
def test_nothing_is_opened_because_a_latent_says_so(
    codec: str, config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps([codec, config]).replace("FILE", str(tmp_path / "secret")).replace("FOLDER", str(tmp_path))
    (tmp_path / "secret").write_text("secret")
    codec, config = json.loads(text)
    latent = Latent({"z": torch.zeros(1, 1, 1).half()}, codec, "0" * 16, 8000, 1, 8, 8000, config=config)

    def refused(self: Path, *args: object, **more: object) -> None:
        raise AssertionError(f"{self} was opened")

    def opened(path: object, *args: object, **more: object) -> object:
        assert not str(path).startswith(str(tmp_path)), f"{path} was opened"
        return real_open(path, *args, **more)  # type: ignore[call-overload]

    real_open = builtins.open
    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(Path, "read_bytes", refused)
    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises((WeightsError, InputError), match=r"^the latent (was coded with|is damaged)"):
        codec_of_latent(latent)


def test_a_latent_brings_the_settings_that_it_was_coded_with() -> None:
    for name, settings in ((WAVE, {"scalars_per_step": 800, "fill": 0.1}), (TINY, {"autoencoder": "none"})):
        codec = load_codec(name, "cpu", settings)
        latent = codec.encode(music(), RATE_HZ)
        assert torch.equal(codec_for(latent, "cpu").decode(latent), codec.decode(latent))


def test_averages_are_sent_counted_and_used(tmp_path: Path) -> None:
    wave = music(2)
    codec = load_codec(WAVE, "cpu", {"enhancer": "ltas_match"})
    plain = load_codec(WAVE, "cpu")
    latent = codec.encode(wave, RATE_HZ)
    assert {name: list(latent.side[name].shape) for name in AVERAGES} == {
        "mel_mean": [2, 64], "mel_std": [2, 64], "mel_level": [2],
    }  # fmt: skip
    assert latent.num_scalars == plain.encode(wave, RATE_HZ).num_scalars + 2 * 129
    again = Latent.load(latent.save(tmp_path / "z.safetensors"))
    assert torch.equal(codec_for(again, "cpu").decode(again), codec.reconstruct(wave, RATE_HZ))
    assert isinstance(codec.model, StagedCodec)
    mel = codec.model.picture.mel
    wanted, before, after = (mel(w[:, None]).mean(dim=1) for w in (wave, plain.decode(latent), codec.decode(latent)))
    assert float((after - wanted).abs().mean()) < 0.5 * float((before - wanted).abs().mean())
    assert codec.stages(wave, RATE_HZ)["wave"].shape[-1] >= wave.shape[-1]
    with pytest.raises(WeightsError, match="the latent holds no averages for 'ltas_match' to match"):
        codec.decode(plain.encode(wave, RATE_HZ))


def test_a_wide_codec_gives_the_band_above_its_own(tmp_path: Path) -> None:
    weights = band(tmp_path / "band.safetensors")
    wide, plain = load_codec(WAVE, "cpu", {"bandwidth": str(weights)}), load_codec(WAVE, "cpu")
    wave = music(1, 44100)
    found, narrow = wide.reconstruct(wave, 44100), plain.reconstruct(wave, 44100)
    assert found.shape == wave.shape
    spectra = [torch.fft.rfft(w[0, 2000:-2000] * torch.hann_window(40100)) for w in (found, narrow)]
    low, high = round(7000 * 40100 / 44100), round(8500 * 40100 / 44100)
    assert float((spectra[0] - spectra[1])[:low].norm() / spectra[1][:low].norm()) < 1e-3
    assert float(spectra[0][high:].norm()) > 10 * float(spectra[1][high:].norm())
    # A file without room above the codec is decoded as ever.
    assert torch.equal(wide.reconstruct(wave, RATE_HZ), plain.reconstruct(wave, RATE_HZ))


def test_stages_can_be_changed_one_by_one(tmp_path: Path) -> None:
    codec = build_codec(TINY)
    model = StagedCodec(codec, build_codec(WAVE, settings={"post_filter": "median"}).config.stages, "x")  # type: ignore[attr-defined]
    other = model.reconfigured({"post_filter": "wiener", "synthesis": "fast_griffin_lim", "enhancer": "noise"})
    assert (other.config.enhancer, other.config.post_filter) == ("noise", "wiener")
    assert other.inner.config.synthesis == "fast_griffin_lim"
    assert model.inner.config.synthesis == "vocoder"
    assert (model.config.enhancer, model.config.post_filter) == (None, "median")
    half = build_codec(f"{WAVE}:half", settings={"post_filter": "median"})
    latent = LoadedCodec(half, "cpu").encode(music(), RATE_HZ)
    assert torch.equal(codec_for(latent, "cpu").decode(latent), LoadedCodec(half, "cpu").decode(latent))
    assert latent.tensors["coefficients"].shape[1] < 600


def test_stages_that_a_codec_has_no_place_for_are_refused_in_one_line(tmp_path: Path) -> None:
    blind, told = refiner(tmp_path / "a.safetensors"), refiner(tmp_path / "b.safetensors", informed=True)
    for settings, text in (
        ({"enhancer": "frequency"}, "'frequency' changes latents .* those of polyres_wave .* gain_match or ltas_match"),
        ({"enhancer": "optimise"}, "optimise sees the original, which no decoder has; only 'polyres enhance'"),
        ({"enhancer": "learned"}, r"learned needs trained weights \(network\)"),
    ):
        with pytest.raises(ConfigError, match=text):
            build_codec(WAVE, settings=settings)
    with pytest.raises(UnknownNameError, match="wienr"):
        build_codec(WAVE, settings={"post_filter": "wienr"})
    for text, message in (
        (f"codec: {WAVE}\ndetail: {{weights: {blind}}}", "detail refines decoded mel spectra; polyres_wave decodes to"),
        (f"codec: {TINY}\ndetail: {{weights: {told}}}", "sees the original, which no decoder has; train one with"),
        (f"codec: {WAVE}\nenhancer: {{name: noise, network: {blind}}}", "noise takes no trained weights"),
        (f"codec: {WAVE}\nbandwith: default", "unknown key 'bandwith'; did you mean 'bandwidth'"),
        (f"codec: {WAVE}\nbandwidth: {band(tmp_path / 'c.safetensors', 9000)}", "gives 8000 Hz of band, but these"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_codec(write(tmp_path, text))


def test_networks_trained_behind_another_codec_are_remarked_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = refiner(tmp_path / "e.safetensors", kind="latent_enhancer", codec="elsewhere")
    text = f"codec: {TINY}\nenhancer: {{name: learned, network: {path}}}\n"
    with caplog.at_level(logging.WARNING, "polyres"):
        build_codec(write(tmp_path, text))
    assert f"was trained behind elsewhere, not behind {TINY}" in caplog.text


@pytest.mark.parametrize("path", sorted(CODECS.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_whole_and_say_how_they_are_used(path: Path) -> None:
    stages = read_stages(path)
    assert Stages.from_dict(stages.to_dict()) == stages
    assert f"polyres reconstruct SONG --codec recipes/codecs/{path.name}" in path.read_text(encoding="utf-8")


def test_paths_begin_at_the_folder_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "codec: audioldm2\ndetail: {weights: runs/a}\nbandwidth: b.safetensors\n")
    stages = read_stages(path)
    assert stages.codec == "audioldm2"
    assert stages.weight_files == [str(tmp_path / "runs" / "a"), str(tmp_path / "b.safetensors")]


def test_the_band_of_the_package_comes_with_every_codec_of_16_khz() -> None:
    generator = torch.Generator().manual_seed(2)
    wave = 0.1 * torch.randn(1, 44100, generator=generator)
    wide, plain = load_codec(f"{WAVE}:wide", "cpu"), load_codec(WAVE, "cpu")
    assert wide.name == f"{WAVE}:wide"
    assert wide.fingerprint == plain.fingerprint
    latent = wide.encode(wave, 44100)
    found, narrow = codec_for(latent, "cpu").decode(latent), plain.decode(latent)
    energies = [float(torch.fft.rfft(w[0]).abs().square()[10000:].sum()) for w in (found, narrow, wave)]
    # Trained on music, which falls off above 8 kHz as noise does not.
    assert 0.02 < energies[0] / energies[2] < 4
    assert energies[1] < 1e-3 * energies[2]
    with pytest.raises(ConfigError, match=r"bandwidth: .* gives 22050 Hz of band"):
        load_codec("polyres_wave_44k:wide", "cpu")


@pytest.mark.parametrize(
    ("files", "way"),
    [
        ({"a": "a.yaml"}, "a.yaml -> a.yaml"),
        ({"a": "./x/../a.yaml"}, "a.yaml -> a.yaml"),
        ({"a": "b.yaml", "b": "a.yaml"}, "a.yaml -> b.yaml -> a.yaml"),
        ({"a": "b.yaml", "b": "c.yaml", "c": "b.yaml"}, "a.yaml -> b.yaml -> c.yaml -> b.yaml"),
        ({"a": "a.yaml:wide"}, "a.yaml -> a.yaml"),
        ({"a": "a.yaml:plain"}, "a.yaml -> a.yaml"),
    ],
)
def test_codecs_that_name_themselves_are_refused(
    files: dict[str, str], way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, codec in files.items():
        (tmp_path / f"{name}.yaml").write_text(f"codec: {codec}\n")
    with pytest.raises(ConfigError, match=rf"codecs in a circle \({way}\); name a codec of the catalogue"):
        build_codec("a.yaml")


def test_long_rows_of_codecs_that_name_each_other_are_refused(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.yaml").write_text(f"codec: {number + 1}.yaml\n")
    with pytest.raises(ConfigError, match=r"codecs of more than 16 \(0.yaml -> 1.yaml"):
        build_codec(tmp_path / "0.yaml")
