"""The engine from samples to stems: rates, channels, lengths, levels, blocks."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.audio.sources import Block, MemorySource, channel_groups
from polyres.core.errors import ConfigError, InputError
from polyres.separation.engine import measure, separate_blocks
from polyres.separation.ensemble import Ensemble, shift_offsets
from polyres.separation.options import SeparateOptions


def separated(ensemble: Ensemble, wave: Tensor, rate_hz: int, **options: object) -> Tensor:
    chosen = SeparateOptions(**options)  # type: ignore[arg-type]
    return torch.from_numpy(
        np.concatenate(list(separate_blocks(MemorySource(wave, rate_hz), ensemble, chosen)), axis=-1)
    )


def tone(rate_hz: int, length: int, channels: int = 1) -> Tensor:
    time_s = torch.arange(length) / rate_hz
    return 0.4 * torch.sin(2 * torch.pi * 440 * time_s).repeat(channels, 1)


@pytest.mark.parametrize("length", [1, 2, 44, 1000, 20_000])
@pytest.mark.parametrize("rate_hz", [8000, 44100, 48000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_rate_channels_and_length_are_those_of_the_input(
    fakes: ModuleType, length: int, rate_hz: int, channels: int
) -> None:
    out = separated(fakes.ensemble_of(fakes.ConvModel()), fakes.noise(channels, length), rate_hz)
    assert out.shape == (4, channels, length)
    assert out.isfinite().all()


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_model_that_changes_nothing_gives_the_input(fakes: ModuleType, rate_hz: int, channels: int) -> None:
    ensemble = fakes.ensemble_of(fakes.GainModel([1.0, 0.5, 0.25, 0.0]))
    wave = tone(rate_hz, rate_hz // 2, channels) * torch.linspace(0.5, 1, channels)[:, None]
    out = separated(ensemble, wave, rate_hz)
    inner = slice(rate_hz // 20, -rate_hz // 20)  # the filters ring where the tone begins and ends at once
    atol = 1e-6 if rate_hz == 44100 else 2e-4
    for estimate, gain in zip(out, (1.0, 0.5, 0.25, 0.0), strict=True):
        torch.testing.assert_close(estimate[:, inner], gain * wave[:, inner], rtol=0, atol=atol)


@settings(max_examples=15)
@given(
    length=st.integers(1, 4000),
    block=st.integers(1, 3000),
    rate_hz=st.sampled_from([8000, 44100, 48000]),
    channels=st.integers(1, 3),
)
def test_blocks_do_not_matter(fakes: ModuleType, length: int, block: int, rate_hz: int, channels: int) -> None:
    ensemble = fakes.ensemble_of(fakes.ConvModel(segment_samples=600))
    wave = fakes.noise(channels, length)
    whole = separated(ensemble, wave, rate_hz, shifts=2, mixture_consistent=True, block_samples=10_000)
    parts = separated(ensemble, wave, rate_hz, shifts=2, mixture_consistent=True, block_samples=block)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_silence_gives_silence(fakes: ModuleType) -> None:
    out = separated(fakes.ensemble_of(fakes.ConvModel()), torch.zeros(2, 3000), 44100)
    assert out.abs().max() == 0


def test_the_level_is_taken_out_and_put_back(fakes: ModuleType) -> None:
    ensemble = fakes.ensemble_of(fakes.ConvModel())  # not linear, so that the level it sees matters
    wave = fakes.noise(2, 3000)
    quiet, loud = separated(ensemble, 0.01 * wave, 44100), separated(ensemble, wave, 44100)
    torch.testing.assert_close(quiet, 0.01 * loud, rtol=1e-3, atol=1e-6)
    shifted = separated(ensemble, wave + 0.5, 44100, offset="every")
    once = separated(ensemble, wave + 0.5, 44100)
    mean = wave.mean()
    torch.testing.assert_close(shifted, separated(ensemble, wave, 44100, offset="every") + 0.5, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(once[[0, 1, 3]], shifted[[0, 1, 3]] - 0.5 - mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(once[2], shifted[2], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("sources", "carrier"),
    [
        (("drums", "bass", "other", "vocals"), "other"),
        (("drums", "bass", "other", "vocals", "guitar", "piano"), "other"),
        (("vocals", "accompaniment"), "accompaniment"),
        (("residual", "vocals"), "residual"),
    ],
)
@pytest.mark.parametrize("choice", ["all", "two", "two_consistent", "consistent", "shifts"])
def test_an_offset_goes_into_the_stems_once(
    fakes: ModuleType, sources: tuple[str, ...], carrier: str, choice: str
) -> None:
    gains = [1 / len(sources)] * len(sources)
    ensemble = fakes.ensemble_of(fakes.GainModel(gains), sources=sources)
    wave = fakes.noise(3, 4000) + torch.tensor([[0.05], [0.05], [-0.02]])
    options: dict[str, Any] = {
        "all": {},
        "two": {"two_stems": "vocals"},
        "two_consistent": {"two_stems": "vocals", "mixture_consistent": True},
        "consistent": {"mixture_consistent": True},
        "shifts": {"shifts": 2},
    }[choice]
    out = separated(ensemble, wave, 44100, **options)
    torch.testing.assert_close(out.sum(0), wave, rtol=0, atol=1e-5)
    vocals = out[0] if choice.startswith("two") else out[sources.index("vocals")]
    assert float(vocals[:2].mean().abs()) < 1e-6
    if choice == "all":
        (alone,) = separated(ensemble, wave, 44100, stems=(carrier,))
        torch.testing.assert_close(alone, out[sources.index(carrier)], rtol=0, atol=0)


def test_channels_are_separated_in_pairs_and_the_last_alone(fakes: ModuleType) -> None:
    ensemble = fakes.ensemble_of(fakes.ConvModel())
    wave = fakes.noise(5, 3000)
    out = separated(ensemble, wave, 44100)
    for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
        assert torch.equal(out[:, part], separated(ensemble, wave[part], 44100))


def test_mono_is_doubled_and_averaged_back(fakes: ModuleType) -> None:
    ensemble = fakes.ensemble_of(fakes.ConvModel())
    wave = fakes.noise(1, 3000)
    mono = separated(ensemble, wave, 44100)
    stereo = separated(ensemble, wave.repeat(2, 1), 44100)
    torch.testing.assert_close(mono, stereo.mean(1, keepdim=True), rtol=1e-5, atol=1e-6)


def test_a_mono_model_takes_each_channel_alone(fakes: ModuleType) -> None:
    ensemble = fakes.ensemble_of(fakes.ConvModel(channels=1), audio_channels=1)
    wave = fakes.noise(3, 2000)
    out = separated(ensemble, wave, 44100)
    for channel in range(3):
        assert torch.equal(out[:, [channel]], separated(ensemble, wave[[channel]], 44100))


@pytest.mark.parametrize(
    ("channels", "model_channels", "groups"),
    [(1, 2, [1]), (2, 2, [2]), (3, 2, [2, 1]), (6, 2, [2, 2, 2]), (3, 1, [1, 1, 1]), (6, 4, [4, 1, 1])],
)
def test_groups_of_channels(channels: int, model_channels: int, groups: list[int]) -> None:
    found = channel_groups(channels, model_channels)
    assert [len(group) for group in found] == groups
    assert [channel for group in found for channel in group] == list(range(channels))


@pytest.mark.parametrize("rate_hz", [44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_consistent_stems_sum_to_the_mixture(fakes: ModuleType, rate_hz: int, channels: int) -> None:
    wave = fakes.noise(channels, 5000)
    ensemble = fakes.ensemble_of(fakes.ConvModel())
    out = separated(ensemble, wave, rate_hz, mixture_consistent=True, block_samples=700)
    torch.testing.assert_close(out.double().sum(0), wave.double(), rtol=0, atol=1e-7)
    pair = separated(ensemble, wave, rate_hz, two_stems="bass", mixture_consistent=True)
    torch.testing.assert_close(pair.sum(0), wave, rtol=0, atol=1e-6)


def test_wanted_stems_are_the_same_alone_and_with_the_others(fakes: ModuleType) -> None:
    models = [fakes.ConvModel(seed=seed) for seed in range(3)]
    ensemble = fakes.ensemble_of(*models, weights=[[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 3]])
    wave = fakes.noise(2, 3000)
    everything = separated(ensemble, wave, 44100)
    assert torch.equal(separated(ensemble, wave, 44100, stems=("vocals", "other")), everything[[3, 2]])
    torch.testing.assert_close(
        separated(ensemble, wave, 44100, two_stems="drums"),
        torch.stack([everything[0], everything[1:].sum(0)]),
        rtol=1e-6,
        atol=1e-6,
    )


def test_models_that_no_wanted_stem_needs_do_not_run(fakes: ModuleType) -> None:
    models = [fakes.GainModel([1.0] * 4) for _ in range(4)]
    ensemble = fakes.ensemble_of(*models, weights=torch.eye(4).tolist())
    separated(ensemble, fakes.noise(2, 3000), 44100, stems=("vocals",))
    assert [bool(model.lengths) for model in models] == [False, False, False, True]
    separated(ensemble, fakes.noise(2, 3000), 44100, two_stems="drums", mixture_consistent=True)
    assert [bool(model.lengths) for model in models] == [True, False, False, True]


def test_a_seed_decides_the_shifts(fakes: ModuleType) -> None:
    ensemble, wave = fakes.ensemble_of(fakes.ConvModel()), fakes.noise(2, 5000)
    first = separated(ensemble, wave, 44100, shifts=2, seed=7)
    before = torch.random.get_rng_state()
    assert torch.equal(separated(ensemble, wave, 44100, shifts=2, seed=7), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(separated(ensemble, wave, 44100, shifts=2, seed=8), first)
    assert not torch.equal(separated(ensemble, wave, 44100), first)


def test_shifts_lie_within_half_a_second() -> None:
    offsets = shift_offsets(500, 0, 100)
    assert min(offsets) == -50
    assert max(offsets) == 0
    assert shift_offsets(0, 3, 44100) == (0,)


@pytest.mark.parametrize("shifts", [0, 3])
def test_progress_goes_to_one(fakes: ModuleType, shifts: int) -> None:
    shares: list[float] = []
    source = MemorySource(fakes.noise(3, 5000), 48000)
    list(separate_blocks(source, fakes.ensemble_of(fakes.ConvModel()), SeparateOptions(shifts=shifts), shares.append))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 5


def test_no_gradient_is_kept(fakes: ModuleType) -> None:
    out = separated(fakes.ensemble_of(fakes.ConvModel()), fakes.noise(2, 100).requires_grad_(), 44100)
    assert not out.requires_grad


class Changing:
    """A source that is longer or shorter when it is read again."""

    name = "song.wav"
    sample_rate_hz = 44100
    channels = 2

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def blocks(self, block_samples: int) -> Iterator[Block]:
        length = self.lengths.pop(0)
        for start in range(0, length, block_samples):
            yield np.zeros((2, min(block_samples, length - start)), np.float32)


@pytest.mark.parametrize("again", [1000, 2999, 3001, 9000])
def test_a_source_that_changes_is_refused(fakes: ModuleType, again: int) -> None:
    with pytest.raises(InputError, match=r"song\.wav: changed while it was read; try again"):
        list(separate_blocks(Changing([3000, again]), fakes.ensemble_of(fakes.ConvModel()), SeparateOptions()))


def test_a_source_without_samples_is_refused(fakes: ModuleType) -> None:
    with pytest.raises(InputError, match=r"song\.wav: holds no samples; nothing to separate"):
        measure(Changing([0]), fakes.ensemble_of(fakes.ConvModel()), 100)


@pytest.mark.parametrize(
    ("wave", "rate_hz", "message"),
    [
        (torch.zeros(5), 44100, r"wave of shape \(5,\) and type torch.float32 cannot be used"),
        (torch.zeros(2, 0), 44100, r"wave of shape \(2, 0\)"),
        (torch.zeros(0, 5), 44100, r"wave of shape \(0, 5\)"),
        (torch.zeros(2, 5, dtype=torch.int16), 44100, "type torch.int16 cannot be used; expected floating point"),
        (np.zeros((2, 5), np.int16), 44100, "type int16 cannot be used; expected floating point"),
        (np.zeros((5, 2), np.int32), 44100, r"one sample; these integers become that by wave / 2147483648$"),
        (torch.zeros(5, 2, dtype=torch.int16), 44100, r"these integers become that by wave / 32768$"),
        (np.zeros(5), 44100, r"wave of shape \(5,\) and type float64 .*; a mono wave becomes that by wave\[None\]$"),
        (np.zeros((65, 2)), 8000, r"wave of shape \[65, 2\] would have 65 channels of 2 samples; .* so give wave.T$"),
        (torch.zeros(22_050, 6), 8000, r"would have 22050 channels of 6 samples; .* so give wave.T$"),
        ([[0.0, 0.5]], 44100, "a wave cannot be a list; give a tensor or NumPy array"),
        (np.array([[0.0, np.nan]]), 44100, "wave holds NaN or infinite samples; repair it"),
        (torch.zeros(2, 5), 0, "sample rate 0 Hz is not possible"),
        (torch.tensor([[0.0, float("nan")]]), 44100, "wave holds NaN or infinite samples; repair it"),
        (torch.tensor([[0.0, float("inf")]]), 44100, "wave holds NaN or infinite samples; repair it"),
    ],
)
def test_a_wave_that_cannot_be_used_is_refused(wave: Any, rate_hz: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MemorySource(wave, rate_hz)


def test_waves_in_the_scale_of_integers_are_told() -> None:
    with pytest.warns(UserWarning, match=r"^wave has samples up to 32000 .* divide them by 32768$"):
        MemorySource(np.array([[0.0, -32000.0]]), 44100)
    MemorySource(torch.tensor([[8.0, -8.0]]), 44100)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f8"])
def test_arrays_are_waves_too(dtype: str) -> None:
    kept = np.arange(12, dtype=dtype).reshape(6, 2) / 16
    kept = kept.astype(dtype)
    kept.flags.writeable = False
    blocks = list(MemorySource(kept.T[:, ::-1], 44100).blocks(4))
    assert np.array_equal(np.concatenate(blocks, axis=1), np.arange(12.0).reshape(6, 2).T[:, ::-1] / 16)


def test_running_out_of_memory_names_the_way_out(fakes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fakes.ConvModel()

    def full(mix: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(ConfigError, match="out of memory on cpu with 2 segments per model call; use a smaller --batch"):
        separated(fakes.ensemble_of(model), fakes.noise(2, 5000), 44100, batch=2)
