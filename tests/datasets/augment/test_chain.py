"""What holds for every augmentation, and the bits of the default chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from polyres.core.errors import UnknownNameError
from polyres.datasets.augment.chain import augment_batch
from polyres.datasets.augment.config import AugmentConfig
from tests.datasets.augment.cases import NAMES, augmented_length, batch, only, rms, rows, run

every = pytest.mark.parametrize("name", NAMES)
STRETCHES = ("repitch", "tempo")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown augmentation 'gian'; did you mean 'gain'\?"):
        AugmentConfig(chain=("gian",))


@hypothesis_settings(max_examples=150)
@given(
    name=st.sampled_from(NAMES),
    items=st.integers(1, 3),
    sources=st.integers(1, 4),
    channels=st.integers(1, 3),
    length=st.integers(81, 900),
    seed=st.integers(0, 1000),
)
def test_any_shape_gives_the_stated_shape_from_the_generator_alone(
    name: str, items: int, sources: int, channels: int, length: int, seed: int
) -> None:
    stems = batch(items, sources, channels, length, seed)
    before = stems.clone()
    config = only(name, 0.7)
    after = run(stems, config, seed)
    assert after.shape == (items, sources, channels, augmented_length(config, length))
    assert after.dtype == torch.float32
    assert after.isfinite().all()
    assert torch.equal(stems, before)
    assert torch.equal(run(stems, config, seed), after)
    assert torch.equal(run(stems, only(name, 0.0), seed), stems[..., : after.shape[-1]])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "crop"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_segments_pass(name: str, length: int) -> None:
    stems = batch(2, 2, 2, length)
    after = run(stems, only(name))
    assert after.shape == stems.shape
    assert after.isfinite().all()


@given(length=st.integers(1, 900), channels=st.integers(1, 2), seed=st.integers(0, 50))
def test_the_default_chain_takes_any_length(length: int, channels: int, seed: int) -> None:
    stems = batch(2, 3, channels, length)
    before = stems.clone()
    after = run(stems, AugmentConfig(), seed)
    assert after.shape == stems.shape
    assert after.isfinite().all()
    assert torch.equal(stems, before)


@every
def test_each_depends_on_the_seed(name: str) -> None:
    stems = batch(4, length=1200)
    assert any(not torch.equal(run(stems, only(name, 0.5), 1), run(stems, only(name, 0.5), seed)) for seed in range(5))


@every
def test_each_does_something_at_probability_1(name: str) -> None:
    stems = batch()
    after = run(stems, only(name, 1.0))
    assert not torch.equal(after, stems[..., : after.shape[-1]])


@every
def test_each_keeps_silence_silent(name: str) -> None:
    assert run(torch.zeros(2, 3, 2, 100), only(name)).abs().max() < 1e-7


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("remix", *STRETCHES)])
def test_each_changes_stems_one_by_one(name: str) -> None:
    stems = batch()
    after = run(stems, only(name, 0.5), 3)
    changed = (after != stems[..., : after.shape[-1]]).any(dim=-1).any(dim=-1)
    assert 0 < changed.sum() < changed.numel()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "codec"])
@pytest.mark.parametrize("factor", [0.5, 4.0])
def test_each_but_coding_is_blind_to_the_level(name: str, factor: float) -> None:
    stems = batch(length=1600)
    assert torch.allclose(run(factor * stems, only(name)), factor * run(stems, only(name)), atol=1e-5 * factor)


@pytest.mark.parametrize("name", ["saturation", "reverb"])
def test_these_keep_the_level(name: str) -> None:
    stems = batch(length=4000)
    assert torch.allclose(rms(rows(run(stems, only(name)))), rms(rows(stems)), rtol=1e-3)


# -- the default chain ------------------------------------------------------------------------------------------------


class SlowChain:
    """The default chain as it was first released, in double precision and one stem at a time."""

    def __init__(self, generator: torch.Generator, shape: tuple[int, int], rate_hz: int) -> None:
        self.generator, self.shape, self.rate_hz = generator, shape, rate_hz

    def uniform(self, low: float, high: float) -> np.ndarray:
        return low + (high - low) * torch.rand(self.shape, generator=self.generator).double().numpy()

    def normal(self, deviation: float) -> np.ndarray:
        return deviation * torch.randn(self.shape, generator=self.generator).double().numpy()

    def chosen(self, probability: float) -> np.ndarray:
        return torch.rand(self.shape, generator=self.generator).numpy() < probability

    def filtered(self, x: np.ndarray, chosen: np.ndarray, gains: np.ndarray, size: int) -> np.ndarray:
        spectrum = np.fft.rfft(x, size) * gains[:, :, None]
        return np.where(chosen[:, :, None, None], np.fft.irfft(spectrum, size)[..., : x.shape[-1]], x)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        items, sources, _, length = x.shape
        size = min(
            2 * 2**i * 3**j * 5**k
            for i in range(16)
            for j in range(10)
            for k in range(7)
            if 2 * 2**i * 3**j * 5**k >= length + self.rate_hz // 50
        )
        octave = np.log2(np.clip(np.fft.rfftfreq(size, 1 / self.rate_hz), 20, None) / 1000)[None, None]
        # remix
        exchanged = torch.rand(sources, generator=self.generator).numpy() < 0.5
        orders = [torch.randperm(items, generator=self.generator).numpy() for _ in range(sources)]
        x = np.stack([x[:, s][orders[s]] if exchanged[s] else x[:, s] for s in range(sources)], axis=1)
        # shift
        limit = min(11_025, length)
        offsets = torch.randint(-limit, limit + 1, self.shape, generator=self.generator).numpy()
        offsets = offsets * self.chosen(0.1)
        padded = np.pad(x, ((0, 0), (0, 0), (0, 0), (length, length)))
        cut = [[padded[i, s, :, length - o : 2 * length - o] for s, o in enumerate(os)] for i, os in enumerate(offsets)]
        x = np.array(cut)
        # saturation
        knee = self.uniform(1.0, 4.0)[..., None, None] * np.sqrt((x**2).mean(axis=(2, 3), keepdims=True)) + 1e-8
        bent = knee * np.tanh(x / knee)
        bent *= np.sqrt((x**2).mean(axis=(2, 3), keepdims=True) / ((bent**2).mean(axis=(2, 3), keepdims=True) + 1e-16))
        x = np.where(self.chosen(0.12)[..., None, None], bent, x)
        # eq
        chosen = self.chosen(0.4)
        gain_db = self.normal(0.7)[..., None] * octave
        for low, high, side in ((-4.0, -1.5, -1.0), (1.0, 3.5, 1.0)):
            corner = self.uniform(low, high)[..., None]
            gain_db = gain_db + self.normal(3.0)[..., None] / (1 + np.exp(-side * 4 * (octave - corner)))
        for _ in range(2):
            centre, octaves = self.uniform(-4.0, 4.0)[..., None], self.uniform(0.3, 1.5)[..., None]
            gain_db = gain_db + self.normal(3.0)[..., None] * np.exp(-0.5 * ((octave - centre) / octaves) ** 2)
        x = self.filtered(x, chosen, 10 ** (np.clip(gain_db, -12, 12) / 20), size)
        # low pass
        cutoff = self.uniform(np.log2(3500.0), np.log2(16_000.0))[..., None]
        above = np.clip(octave + np.log2(1000.0) - cutoff, 0, 0.5)
        x = self.filtered(x, self.chosen(0.12), 10 ** (-100 * above / 20), size)
        # width, flips, gain
        factor, mono = self.uniform(0.3, 1.5), self.chosen(0.3)
        factor = np.where(self.chosen(0.3), np.where(mono, 0.0, factor), 1.0)[..., None, None]
        x = x.mean(axis=2, keepdims=True) + factor * (x - x.mean(axis=2, keepdims=True))
        x = np.where(self.chosen(0.5)[..., None, None], x[:, :, ::-1], x)
        x = np.where(self.chosen(0.5)[..., None, None], -x, x)
        factor = self.uniform(0.25, 1.25)
        return x * np.where(self.chosen(1.0), factor, 1.0)[..., None, None]


@pytest.mark.parametrize(("seed", "drawn_next"), [(0, 459755036), (1, 1324304822), (2, 718664710), (3, 1259948043)])
def test_the_default_chain_is_what_it_has_always_been(seed: int, drawn_next: int) -> None:
    stems = batch(4, 4, 2, 12_000, seed)
    generator = torch.Generator().manual_seed(seed)
    after = augment_batch(stems, AugmentConfig(), generator)
    slow = SlowChain(torch.Generator().manual_seed(seed), (4, 4), 44_100)
    expected = torch.from_numpy(slow(stems.double().numpy()))
    assert (after - expected).abs().max() < 2e-3 * stems.abs().max()
    # All draws are pinned exactly; the values above only to within what processors round differently.
    assert int(torch.randint(2**31, (1,), generator=generator)) == drawn_next
    assert int(torch.randint(2**31, (1,), generator=slow.generator)) == drawn_next
    assert torch.equal(augment_batch(stems, AugmentConfig(), torch.Generator().manual_seed(seed)), after)
