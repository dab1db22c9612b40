from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import UnknownNameError
from polyres.data.augment import AUGMENTATIONS, AugmentConfig, augment_batch, fast_fft_size

RATE_HZ = 8000
every = pytest.mark.parametrize("name", [name for name in AUGMENTATIONS.names() if name != "crop"])


def batch(items: int = 3, sources: int = 4, channels: int = 2, length: int = 400, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(items, sources, channels, length, generator=torch.Generator().manual_seed(seed))


def only(name: str, probability: float = 1.0, **settings: Any) -> AugmentConfig:
    values = {"chain": (name,), "sample_rate_hz": RATE_HZ, name: {"probability": probability, **settings}}
    return AugmentConfig.from_dict(values)


def run(stems: Tensor, config: AugmentConfig, seed: int = 0) -> Tensor:
    return augment_batch(stems, config, torch.Generator().manual_seed(seed))


def rows(stems: Tensor) -> Tensor:
    return stems.flatten(0, 1)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown augmentation 'gian'; did you mean 'gain'\?"):
        run(batch(), AugmentConfig(chain=("gian",)))


@given(
    items=st.integers(1, 3),
    sources=st.integers(1, 4),
    channels=st.integers(1, 2),
    length=st.integers(1, 900),
    seed=st.integers(0, 50),
)
def test_any_shape_stays_finite_and_the_input_is_left_alone(
    items: int, sources: int, channels: int, length: int, seed: int
) -> None:
    stems = batch(items, sources, channels, length)
    before = stems.clone()
    after = run(stems, AugmentConfig(), seed)
    assert after.shape == stems.shape
    assert after.dtype == torch.float32
    assert after.isfinite().all()
    assert torch.equal(stems, before)


@every
def test_each_is_drawn_from_the_generator_alone(name: str) -> None:
    stems = batch()
    assert torch.equal(run(stems, only(name, 0.5), 1), run(stems, only(name, 0.5), 1))
    assert any(not torch.equal(run(stems, only(name, 0.5), 1), run(stems, only(name, 0.5), seed)) for seed in range(5))


@every
def test_each_does_nothing_at_probability_0_and_something_at_1(name: str) -> None:
    stems = batch()
    assert torch.equal(run(stems, only(name, 0.0)), stems)
    assert not torch.equal(run(stems, only(name, 1.0)), stems)


@every
def test_each_keeps_silence_silent(name: str) -> None:
    assert run(torch.zeros(2, 3, 2, 100), only(name)).abs().max() < 1e-7


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS.names() if name not in ("remix", "crop")])
def test_each_changes_stems_one_by_one(name: str) -> None:
    stems = batch()
    changed = (run(stems, only(name, 0.5), 3) != stems).any(dim=-1).any(dim=-1)
    assert 0 < changed.sum() < changed.numel()


def test_gain_is_one_factor_per_stem_within_its_range() -> None:
    stems = batch(8)
    factors = rows(run(stems, only("gain", range=(0.5, 2.0))) / stems)
    assert torch.allclose(factors, factors[:, :1, :1].expand_as(factors), rtol=1e-4)
    assert factors.min() >= 0.499
    assert factors.max() <= 2.001
    assert factors.std() > 0.2


def test_flips_are_their_own_inverse() -> None:
    stems = batch()
    assert torch.equal(run(stems, only("flip_channels")), stems.flip(2))
    assert torch.equal(run(stems, only("flip_sign")), -stems)


def test_remix_keeps_every_stem_under_its_source() -> None:
    stems = batch(6)
    mixed = run(stems, only("remix"))
    for source in range(4):
        before = {tuple(wave.flatten().tolist()) for wave in stems[:, source]}
        assert {tuple(wave.flatten().tolist()) for wave in mixed[:, source]} == before
    orders = [[int((stems[:, s] == wave).flatten(1).all(1).nonzero()) for wave in mixed[:, s]] for s in range(4)]
    assert len({tuple(order) for order in orders}) > 1


@given(length=st.integers(1, 60), limit=st.integers(1, 80), seed=st.integers(0, 100))
def test_shift_moves_and_fills_with_zeros(length: int, limit: int, seed: int) -> None:
    stems = batch(2, 2, 1, length)
    for before, after in zip(rows(stems), rows(run(stems, only("shift", max_samples=limit), seed)), strict=True):
        padded = torch.nn.functional.pad(before, (length, length))
        moved = [padded[:, start : start + length] for start in range(2 * length + 1)]
        offsets = [length - start for start, wave in enumerate(moved) if torch.equal(wave, after)]
        assert offsets
        assert min(abs(offset) for offset in offsets) <= limit


def test_width_scales_the_side_and_keeps_the_middle() -> None:
    stems = batch(8)
    wide = run(stems, only("width", range=(0.5, 2.0), mono_probability=0.3))
    assert torch.allclose(wide.mean(2), stems.mean(2), atol=1e-6)
    side = rows((wide[:, :, 0] - wide[:, :, 1]) / (stems[:, :, 0] - stems[:, :, 1]))
    factor = side.median(dim=1).values
    mono = factor.abs() < 1e-5
    assert 0 < mono.sum() < len(mono)
    assert ((factor[~mono] > 0.49) & (factor[~mono] < 2.01)).all()


def test_saturation_keeps_the_level_and_lowers_the_crest() -> None:
    stems = batch(length=4000)
    bent = run(stems, only("saturation", drive=(1.0, 1.5)))
    rms, rms_bent = (rows(wave).square().mean((1, 2)).sqrt() for wave in (stems, bent))
    assert torch.allclose(rms_bent, rms, rtol=1e-3)
    assert (rows(bent).abs().amax((1, 2)) < 0.8 * rows(stems).abs().amax((1, 2))).all()
    assert (bent.sign() == stems.sign()).all()


def test_saturation_with_a_high_drive_is_nearly_clean() -> None:
    stems = batch()
    assert torch.allclose(run(stems, only("saturation", drive=(100.0, 100.0))), stems, atol=1e-3)


def test_eq_is_linear_zero_phase_and_limited() -> None:
    impulse = torch.zeros(4, 4, 1, 4001)
    impulse[..., 2000] = 1.0
    config = only("eq", max_db=6.0, shelf_db=20.0, peak_db=20.0)
    response = run(impulse, config, 1)
    assert torch.allclose(response, response.flip(-1), atol=1e-5)
    level_db = 20 * torch.log10(torch.fft.rfft(response).abs())
    assert level_db.abs().max() < 6.5
    assert (level_db.amax(-1) - level_db.amin(-1)).mean() > 6.0
    assert torch.allclose(run(3.0 * impulse, config, 1), 3.0 * response, atol=1e-5)


def test_low_pass_cuts_above_and_keeps_below() -> None:
    noise = batch(2, 2, 1, 8000)
    dull = run(noise, only("low_pass", cutoff_hz=(1000.0, 1000.0)))
    ratio_db = 20 * torch.log10(torch.fft.rfft(dull).abs() / torch.fft.rfft(noise).abs())
    frequency_hz = torch.fft.rfftfreq(8000, 1 / RATE_HZ)
    assert ratio_db[..., (frequency_hz > 50) & (frequency_hz < 900)].abs().median() < 0.2
    assert ratio_db[..., frequency_hz > 1600].median() < -40.0


@pytest.mark.parametrize("length", [1, 2, 7, 97, 100, 1021, 264_600, 265_482, 300_007])
def test_fft_sizes_are_smooth_even_and_close(length: int) -> None:
    size = fast_fft_size(length)
    rest = size
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
    assert size % 2 == 0
    assert max(2, length) <= size <= max(4, 1.1 * length + 2)
