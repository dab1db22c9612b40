"""Whole songs against the official implementation: segments, overlap, bags, and the public Python interface."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from demucs.api import Separator as OfficialSeparator
from demucs.apply import BagOfModels, apply_model
from torch import Tensor

import polyres
from polyres.separation.bag import Bag
from polyres.separation.load import LoadedSeparator
from polyres.separation.official import convert
from polyres.separation.options import SeparateOptions
from tests.separation.oracle import SMALL, demucs_model, noise, package_of, relative_error, write_th

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = [[1.0, 0.0, 0.5, 1.0], [0.0, 2.0, 0.5, 3.0]]
AS_DEMUCS = SeparateOptions(offset="every")
LENGTHS = [4_000, 22_050, 30_001, 71_234]


def song(length: int, channels: int = 2) -> Tensor:
    """Noise that swells and has an offset, so that the normalisation of the whole song matters."""
    return noise(channels, length) * torch.linspace(0.05, 0.4, length) + 0.03


def normalised(wave: Tensor) -> Tensor:
    """What the official interface hands to `apply_model`, in double precision to be independent of it."""
    mono = wave.double().mean(0)
    return ((wave.double() - mono.mean()) / (mono.std() + 1e-8)).float()


def separated(loaded: LoadedSeparator, wave: Tensor) -> Tensor:
    stems = loaded.separate(wave, 44100, AS_DEMUCS)
    return torch.stack([stems[name] for name in loaded.sources])


@pytest.mark.parametrize("length", LENGTHS)
def test_one_model_equals_apply_model(length: int) -> None:
    official = demucs_model({**SMALL, "dconv_mode": 3})
    loaded = LoadedSeparator(convert(package_of(official)), "x", "cpu", "fp32")
    wave = song(length)
    mono = wave.mean(0)
    wanted = apply_model(official, normalised(wave)[None], shifts=0)[0] * mono.std() + mono.mean()
    assert relative_error(separated(loaded, wave), wanted) <= 1e-5


@pytest.mark.slow
def test_the_offset_is_all_that_differs_from_the_official_stems() -> None:
    loaded = LoadedSeparator(convert(package_of(demucs_model(SMALL))), "x", "cpu", "fp32")
    wave = song(22_050)
    ours, theirs = loaded.separate(wave, 44100), loaded.separate(wave, 44100, AS_DEMUCS)
    for name in loaded.sources:
        offset = 0.0 if name == "other" else float(wave.mean())
        torch.testing.assert_close(ours[name], theirs[name] - offset, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS[::2])
def test_a_bag_equals_apply_model(length: int) -> None:
    officials = [demucs_model(SMALL, seed) for seed in range(2)]
    bag = Bag([convert(package_of(model)) for model in officials], WEIGHTS)
    wave = song(length)
    mono = wave.mean(0)
    wanted = apply_model(BagOfModels(officials, WEIGHTS), normalised(wave)[None], shifts=0)[0]
    wanted = wanted * mono.std() + mono.mean()
    assert relative_error(separated(LoadedSeparator(bag, "x", "cpu", "fp32"), wave), wanted) <= 1e-5


def test_a_file_separates_as_in_the_official_interface(tmp_path: Path) -> None:
    write_th(demucs_model(SMALL), tmp_path / "x.th")
    loaded = polyres.load_separator(tmp_path / "x.th", device="cpu", precision="fp32")
    official = OfficialSeparator(model="x", repo=tmp_path, shifts=0, device="cpu")
    for wave in (song(50_001), song(9_000), song(30_000, 1).expand(2, -1)):
        _, wanted = official.separate_tensor(wave.clone(), 44100)
        found = loaded.separate(wave, 44100, AS_DEMUCS)
        assert list(found) == list(wanted)
        for name, stem in wanted.items():
            assert float((found[name] - stem).abs().max()) <= 1e-4
            assert relative_error(found[name], stem) <= 1e-4


@pytest.mark.slow
def test_a_bag_of_files_separates_as_in_the_official_interface(tmp_path: Path) -> None:
    for seed, name in enumerate(("aaaa", "bbbb")):
        write_th(demucs_model(SMALL, seed), tmp_path / f"{name}.th")
    content = {"models": ["aaaa", "bbbb"], "weights": WEIGHTS, "segment": 0.4}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(content))
    loaded = polyres.load_separator(tmp_path / "both.yaml", device="cpu", precision="fp32")
    official = OfficialSeparator(model="both", repo=tmp_path, shifts=0, device="cpu")
    wave = song(40_000)
    _, wanted = official.separate_tensor(wave.clone(), 44100)
    for name, stem in wanted.items():
        assert relative_error(loaded.separate(wave, 44100, AS_DEMUCS)[name], stem) <= 1e-4


def test_mono_is_doubled_and_averaged_back(tmp_path: Path) -> None:
    write_th(demucs_model(SMALL), tmp_path / "x.th")
    loaded = polyres.load_separator(tmp_path / "x.th", device="cpu", precision="fp32")
    official = OfficialSeparator(model="x", repo=tmp_path, shifts=0, device="cpu")
    mono = song(30_000, 1)
    _, wanted = official.separate_tensor(mono.expand(2, -1).clone(), 44100)
    for name, stem in loaded.separate(mono, 44100, AS_DEMUCS).items():
        assert stem.shape == mono.shape
        assert relative_error(stem, wanted[name].mean(0, keepdim=True)) <= 1e-4
