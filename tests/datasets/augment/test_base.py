from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.augment.cases import RATE_HZ, batch, only, rms, rows, run


def test_gain_is_one_factor_per_stem_within_its_range() -> None:
    stems = batch(8)
    factors = rows(run(stems, only("gain", range=(0.5, 2.0))) / stems)
    assert torch.allclose(factors, factors[:, :1, :1].expand_as(factors), rtol=1e-4)
    assert factors.min() >= 0.499
    assert factors.max() <= 2.001
    assert factors.std() > 0.2


@given(seed=st.integers(0, 1000), low=st.floats(0.0, 2.0), span=st.floats(0.0, 2.0))
def test_gain_is_linear(seed: int, low: float, span: float) -> None:
    config = only("gain", 0.7, range=(low, low + span))
    a, b = batch(seed=1), batch(seed=2)
    assert torch.allclose(run(a + b, config, seed), run(a, config, seed) + run(b, config, seed), atol=1e-6)


@given(name=st.sampled_from(["flip_channels", "flip_sign"]), probability=st.floats(0, 1), seed=st.integers(0, 1000))
def test_flips_are_their_own_inverse(name: str, probability: float, seed: int) -> None:
    stems = batch(channels=2)
    flipped = run(stems, only(name, probability), seed)
    assert torch.equal(run(flipped, only(name, probability), seed), stems)


def test_flips_swap_channels_and_signs() -> None:
    stems = batch()
    assert torch.equal(run(stems, only("flip_channels")), stems.flip(2))
    assert torch.equal(run(stems, only("flip_sign")), -stems)
    mono = batch(channels=1)
    assert torch.equal(run(mono, only("flip_channels")), mono)


def test_width_scales_the_side_and_keeps_the_middle() -> None:
    stems = batch(8)
    wide = run(stems, only("width", range=(0.5, 2.0), mono_probability=0.3))
    assert torch.allclose(wide.mean(2), stems.mean(2), atol=1e-6)
    side = rows((wide[:, :, 0] - wide[:, :, 1]) / (stems[:, :, 0] - stems[:, :, 1]))
    factor = side.median(dim=1).values
    mono = factor.abs() < 1e-5
    assert 0 < mono.sum() < len(mono)
    assert ((factor[~mono] > 0.49) & (factor[~mono] < 2.01)).all()


@given(seed=st.integers(0, 1000), drive=st.floats(0.5, 4.0))
def test_saturation_keeps_level_and_order_and_lowers_the_crest(seed: int, drive: float) -> None:
    stems = batch(2, 2, 2, 1000, seed)
    bent = run(stems, only("saturation", drive=(drive, drive)))
    assert torch.allclose(rms(rows(bent)), rms(rows(stems)), rtol=1e-3)
    assert (rows(bent).abs().amax((1, 2)) < rows(stems).abs().amax((1, 2))).all()
    assert (bent.sign() == stems.sign()).all()
    order = stems[0, 0, 0].argsort()
    assert (bent[0, 0, 0][order].diff() >= 0).all()


def test_a_stronger_drive_saturates_more_and_a_high_one_hardly() -> None:
    stems = batch(length=4000)
    strong, weak = (run(stems, only("saturation", drive=(drive, drive))).abs().max() for drive in (1.0, 4.0))
    assert strong < 0.8 * stems.abs().max()
    assert weak > 1.1 * strong
    assert torch.allclose(run(stems, only("saturation", drive=(100.0, 100.0))), stems, atol=1e-3)


@given(
    low=st.floats(-90, -10),
    span=st.floats(0, 10),
    tilt=st.floats(-6, 3),
    length=st.integers(2, 3000),
    seed=st.integers(0, 1000),
)
def test_noise_lies_below_the_stem_by_what_was_drawn(
    low: float, span: float, tilt: float, length: int, seed: int
) -> None:
    stems = batch(2, 2, 2, length).double()  # so that the sum does not round the noise away
    config = only("noise", level_db=(low, low + span), tilt_db_per_octave=(tilt, tilt))
    added = run(stems, config, seed) - stems
    level_db = 20 * torch.log10(rms(added) / rms(stems))
    assert (level_db > low - 0.01).all()
    assert (level_db < low + span + 0.01).all()


@pytest.mark.parametrize("tilt", [-6.0, -3.0, 0.0])
def test_noise_has_the_tilt_and_differs_between_channels(tilt: float) -> None:
    stems = batch(1, 1, 2, 16 * RATE_HZ).double()
    config = only("noise", level_db=(-40.0, -40.0), tilt_db_per_octave=(tilt, tilt))
    added = (run(stems, config) - stems)[0, 0]
    power = torch.fft.rfft(added).abs().square().mean(0)
    frequency_hz = torch.fft.rfftfreq(added.shape[-1], 1 / RATE_HZ)
    octaves_db = [
        10 * torch.log10(power[(frequency_hz >= low) & (frequency_hz < 2 * low)].mean()) for low in (100, 200, 400, 800)
    ]
    assert torch.stack(octaves_db).diff().mean() == pytest.approx(tilt, abs=0.3)
    assert torch.corrcoef(added)[0, 1].abs() < 0.2


def test_noise_is_drawn_anew_for_every_stem() -> None:
    stems = batch(1, 1, 1, 500).expand(2, 2, 1, 500)
    added = rows(run(stems, only("noise", level_db=(-20.0, -20.0))) - stems)[:, 0]
    correlation = torch.corrcoef(added) - torch.eye(4)
    assert correlation.abs().max() < 0.5
