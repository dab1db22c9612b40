"""The segment engine against Demucs' own, and its independence of blocks and batches."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
import torch
from demucs.apply import BagOfModels, apply_model
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from polyres.inference.ensemble import Ensemble, GroupStream, Passes
from polyres.inference.stream import Fifo, SegmentStream

ALL = (0, 1, 2, 3)
RATE_HZ = 1000  # so that the longest shift is 500 samples


class ForDemucs(nn.Module):
    """One of our models as Demucs expects it."""

    def __init__(self, model: nn.Module, sources: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.sources = list(sources)
        self.samplerate = RATE_HZ
        self.audio_channels = 2
        self.segment = model.segment_samples / RATE_HZ

    def valid_length(self, length: int) -> int:
        return self.model.segment_samples

    def forward(self, mix: Tensor) -> Tensor:
        return self.model(mix)


def run_group(
    ensemble: Ensemble, wave: Tensor, overlap: float, block: int, batch: int, offsets: tuple[int, ...]
) -> Tensor:
    stream = GroupStream(ensemble, Passes(ALL, offsets, overlap, batch), wave.shape[-1], (0.0, 1.0), wave.shape[0])
    parts = [stream.push(part) for part in wave.split(block, dim=1)]
    return torch.cat([part for part in parts if part is not None], dim=-1)


@pytest.mark.parametrize("length", [1, 2, 499, 500, 749, 750, 751, 999, 1000, 1001, 1750, 4321])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75, 0.9])
def test_equals_demucs(fakes: ModuleType, length: int, overlap: float) -> None:
    model = fakes.ConvModel()
    wave = fakes.noise(2, length)
    expected = apply_model(ForDemucs(model, fakes.SOURCES), wave[None], shifts=0, overlap=overlap)[0]
    ours = run_group(fakes.ensemble_of(model), wave, overlap, 700, 2, (0,))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_an_odd_segment_equals_demucs(fakes: ModuleType) -> None:
    model = fakes.ConvModel(segment_samples=777)
    wave = fakes.noise(2, 2000)
    expected = apply_model(ForDemucs(model, fakes.SOURCES), wave[None], shifts=0, overlap=0.3)[0]
    ours = run_group(fakes.ensemble_of(model), wave, 0.3, 123, 3, (0,))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [3, 800, 2600])
def test_shifted_passes_equal_those_of_demucs(fakes: ModuleType, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    model = fakes.ConvModel()
    wave = fakes.noise(2, length)
    drawn = [500, 0, 123]  # Demucs draws how much of the half second of silence to leave out
    monkeypatch.setattr(random, "randint", lambda low, high: drawn.pop(0))
    offsets = tuple(n - 500 for n in drawn)
    expected = apply_model(ForDemucs(model, fakes.SOURCES), wave[None], shifts=3, overlap=0.25)[0]
    ours = run_group(fakes.ensemble_of(model), wave, 0.25, 400, 2, offsets)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_a_bag_equals_that_of_demucs(fakes: ModuleType) -> None:
    models = [fakes.ConvModel(seed=1), fakes.ConvModel(seed=2, segment_samples=600), fakes.ConvModel(seed=3)]
    weights = [[1.0, 0.0, 0.5, 0.25], [0.0, 2.0, 0.5, 0.25], [0.0, 0.0, 3.0, 1.0]]
    wave = fakes.noise(2, 2345)
    bag = BagOfModels([ForDemucs(model, fakes.SOURCES) for model in models], weights)
    expected = apply_model(bag, wave[None], shifts=0, overlap=0.25)[0]
    ours = run_group(fakes.ensemble_of(*models, weights=weights), wave, 0.25, 512, 1, (0,))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@given(length=st.integers(1, 3000), block=st.integers(1, 1500), overlap=st.floats(0, 0.9))
def test_a_model_that_changes_nothing_gives_the_input(
    fakes: ModuleType, length: int, block: int, overlap: float
) -> None:
    wave = fakes.noise(2, length)
    model = fakes.GainModel([1.0, 0.5, 0.0, -1.0], segment_samples=400)
    out = run_group(fakes.ensemble_of(model), wave, overlap, block, 3, (0,))
    for estimate, gain in zip(out, (1.0, 0.5, 0.0, -1.0), strict=True):
        torch.testing.assert_close(estimate, gain * wave, rtol=1e-6, atol=1e-6)
    assert set(model.lengths) == {400}


@given(length=st.integers(1, 3000), block=st.integers(1, 1500), batch=st.integers(1, 5), shifts=st.integers(0, 3))
def test_blocks_do_not_change_a_bit(fakes: ModuleType, length: int, block: int, batch: int, shifts: int) -> None:
    ensemble = fakes.ensemble_of(fakes.ConvModel(segment_samples=300))
    wave = fakes.noise(2, length)
    offsets = (0, -17, -450)[:shifts] or (0,)
    whole = run_group(ensemble, wave, 0.25, length, batch, offsets)
    assert whole.shape[-1] == length
    assert torch.equal(run_group(ensemble, wave, 0.25, block, batch, offsets), whole)


def test_batches_are_full_but_for_the_last(fakes: ModuleType) -> None:
    model = fakes.GainModel([1, 1, 1, 1], segment_samples=400)
    run_group(fakes.ensemble_of(model), fakes.noise(2, 2000), 0.25, 100, 3, (0,))
    assert model.batches == [3, 3, 1]


def test_samples_come_out_as_early_as_they_can() -> None:
    stream = SegmentStream(lambda segments: segments[:, None], 100, 0.25, 1, end=1000)
    assert stream.segment_count == 14
    assert stream.push(torch.ones(2, 99)) is None
    first = stream.push(torch.ones(2, 1))
    assert first is not None
    assert first.shape == (1, 2, 75)


def test_memory_does_not_grow_with_length() -> None:
    stream = SegmentStream(lambda segments: segments[:, None], 100, 0.25, 2, end=100_000)
    for _ in range(900):
        stream.push(torch.ones(2, 100))
    held = stream._buffer
    assert held is not None
    assert held.shape[-1] < 500
    assert stream._overlap_add._norm.shape[-1] <= 200


def test_fifo_hands_out_any_number_of_samples() -> None:
    fifo = Fifo()
    fifo.push(torch.arange(5.0)[None])
    fifo.push(torch.zeros(1, 0))
    fifo.push(torch.arange(5.0, 8.0)[None])
    assert fifo.length == 8
    assert fifo.take(2).tolist() == [[0, 1]]
    assert fifo.take(5).tolist() == [[2, 3, 4, 5, 6]]
    assert fifo.length == 1
