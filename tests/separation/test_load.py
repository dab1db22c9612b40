"""The Python interface on a small real model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import polyres
from polyres.audio.files import read_audio
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.batch.jobs import OutputOptions
from polyres.core.errors import ConfigError, InputError, UnknownNameError, WeightsError
from polyres.nn.transformer import TransformerConfig
from polyres.separation.bag import Bag
from polyres.separation.load import LoadedSeparator, load_separator
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.options import SeparateOptions
from polyres.separation.weights import save_separator

SEGMENT_SAMPLES = 4096


def tiny(seed: int = 0) -> Separator:
    config = SeparatorConfig(
        n_fft=(512,),
        channels=4,
        wave_branch=False,
        segment_samples=SEGMENT_SAMPLES,
        transformer=TransformerConfig(kind="none"),
    )
    return Separator(config, seed)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_separator(tiny(), tmp_path_factory.mktemp("weights") / "tiny.safetensors", dtype="fp32")


@pytest.fixture(scope="module")
def wave() -> torch.Tensor:
    return 0.2 * torch.randn(2, 15_000, generator=torch.Generator().manual_seed(1))


def test_what_a_separator_tells_about_itself(weights: Path) -> None:
    separator = polyres.load_separator(weights, device="cpu", precision="fp32")
    assert isinstance(separator, LoadedSeparator)
    assert separator.name == "tiny"
    assert separator.sources == ("drums", "bass", "other", "vocals")
    assert (separator.sample_rate_hz, separator.audio_channels) == (44100, 2)
    assert (separator.device.type, separator.precision) == ("cpu", "fp32")
    assert not separator.model.training


@pytest.mark.parametrize("rate_hz", [44100, 32000])
@pytest.mark.parametrize("channels", [1, 2])
def test_memory_and_file_agree_to_the_bit(
    weights: Path, wave: torch.Tensor, tmp_path: Path, rate_hz: int, channels: int
) -> None:
    separator = load_separator(weights, "cpu")
    with AudioWriter(tmp_path / "song.wav", WriteSpec(rate_hz, channels, "wav", "float")) as writer:
        writer.write(wave[:channels].numpy())
    stems = separator.separate(wave[:channels], rate_hz)
    result = separator.separate_file(tmp_path / "song.wav", tmp_path / "out", output=OutputOptions("wav", "float"))
    assert tuple(stems) == tuple(result.stems) == separator.sources
    for name, stem in stems.items():
        assert stem.shape == (channels, wave.shape[1])
        assert np.array_equal(read_audio(result.stems[name])[0], stem.numpy())


def test_one_segment_is_the_plain_forward_pass(weights: Path, wave: torch.Tensor) -> None:
    separator = load_separator(weights, "cpu", "fp32")
    piece = wave[:, :SEGMENT_SAMPLES]
    mono = piece.mean(0)
    normal = (piece - mono.mean()) / (mono.std() + 1e-8)
    with torch.no_grad():
        expected = separator.model(normal[None])[0] * mono.std() + mono.mean()
    # With an overlap of 0 a piece of exactly one segment is one call of the model.
    stems = separator.separate(piece, 44100, SeparateOptions(overlap=0.0, offset="every"))
    torch.testing.assert_close(torch.stack(list(stems.values())), expected, rtol=1e-4, atol=1e-5)


def test_a_bag_runs_only_what_is_needed(wave: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [tiny(seed) for seed in range(4)]
    alone = [LoadedSeparator(model, "one", "cpu").separate(wave, 44100) for model in models]
    bag = LoadedSeparator(Bag(models, torch.eye(4).tolist()), "bag", "cpu")
    together = bag.separate(wave, 44100)
    for index, name in enumerate(bag.sources):
        assert torch.equal(together[name], alone[index][name])
    monkeypatch.setattr(models[0], "forward", None)
    assert torch.equal(bag.separate(wave, 44100, SeparateOptions(stems=("vocals",)))["vocals"], together["vocals"])


def test_bf16_is_close_and_float32_on_the_outside(weights: Path, wave: torch.Tensor) -> None:
    exact = load_separator(weights, "cpu", "fp32").separate(wave, 44100)
    rough = load_separator(weights, "cpu", "bf16").separate(wave, 44100)
    for name, stem in rough.items():
        assert stem.dtype == torch.float32
        assert not torch.equal(stem, exact[name])
        torch.testing.assert_close(stem, exact[name], rtol=0, atol=0.05 * float(exact[name].abs().max()))


def test_weights_have_a_mark_of_their_own() -> None:
    assert LoadedSeparator(tiny(0), "a", "cpu").weights_id == LoadedSeparator(tiny(0), "b", "cpu").weights_id
    assert LoadedSeparator(tiny(0), "a", "cpu").weights_id != LoadedSeparator(tiny(1), "a", "cpu").weights_id


def test_errors(weights: Path, wave: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'htdemuc'; did you mean 'htdemucs'"):
        load_separator("htdemuc", "cpu")
    with pytest.raises(UnknownNameError, match="unknown device 'gpu'"):
        load_separator(weights, "gpu")
    with pytest.raises(UnknownNameError, match="unknown precision 'fp16'; did you mean 'bf16'"):
        load_separator(weights, "cpu", "fp16")
    (tmp_path / "bad.safetensors").write_text("no weights")
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        load_separator(tmp_path / "bad.safetensors", "cpu")
    separator = load_separator(weights, "cpu")
    with pytest.raises(UnknownNameError, match="unknown stem 'drum'; did you mean 'drums'"):
        separator.separate(wave, 44100, SeparateOptions(stems=("drum",)))
    with pytest.raises(InputError, match="holds NaN or infinite samples"):
        separator.separate(wave / 0, 44100)
    with pytest.raises(InputError, match=r"gone\.wav does not exist"):
        separator.separate_file(tmp_path / "gone.wav", tmp_path)


def test_a_missing_gpu_is_told_before_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device cuda is not available here; use --device cpu"):
        load_separator("nothing.safetensors", "cuda")
