from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch

from polyres.core.errors import InputError, UnknownNameError
from polyres.metrics import catalogue
from polyres.metrics.catalogue import METRICS, make_scene, measure
from polyres.metrics.separation import nsdr
from polyres.metrics.track_score import bss_eval

RATE = 8000


def scene(sources: int = 3, seconds: float = 2.5) -> catalogue.Scene:
    generator = np.random.default_rng(0)
    references = 0.1 * generator.standard_normal((sources, 2, round(seconds * RATE)))
    return make_scene(references, references + 0.02 * generator.standard_normal(references.shape), RATE)


def test_every_metric_says_what_its_numbers_mean() -> None:
    for name in METRICS.names():
        metric = METRICS.build(name)
        assert metric.name == name
        assert metric.unit in ("dB", "ms", "1", "sample")
        assert metric.direction in ("higher", "lower")
        assert METRICS.summary(name)
        assert metric.source
        assert metric.silence


def test_all_metrics_at_once() -> None:
    track = scene()
    values = measure(track, METRICS.names())
    assert list(values) == METRICS.names()
    for name, value in values.items():
        wanted = (3, 2) if METRICS.build(name).per == "window" else (3,)
        assert tuple(value.shape) == wanted, name
        assert value.dtype == torch.float64
    assert torch.equal(values["nsdr"], nsdr(track.references, track.estimates))
    direct = bss_eval(track.references, track.estimates, RATE, RATE)
    assert all(torch.equal(values[name.lower()], direct[name]) for name in direct)


def test_better_estimates_are_better_in_the_direction_told() -> None:
    track = scene(sources=2)
    generator = torch.Generator().manual_seed(1)
    noise = 0.3 * torch.randn(track.estimates.shape, generator=generator, dtype=torch.float64)
    worse = make_scene(track.references, track.estimates + noise, RATE)
    good, bad = measure(track, METRICS.names()), measure(worse, METRICS.names())
    for name in METRICS.names():
        if good[name].isnan().all() or name == "attack_time_error":  # white noise has no attacks
            continue
        sign = 1 if METRICS.build(name).direction == "higher" else -1
        if name == "crest_factor_error":  # noise on noise keeps its crest
            continue
        assert (sign * (good[name] - bad[name])).nanmean() > 0, name


def test_metrics_that_share_their_work_run_once_and_sdr_alone_takes_no_filters() -> None:
    track = scene(sources=2, seconds=1)
    with mock.patch.object(catalogue, "bss_eval", wraps=bss_eval) as full:
        together = measure(track, ["sar", "sdr", "isr"])
        assert full.call_count == 1
        alone = measure(track, ["sdr", "nsdr"])
        assert full.call_count == 1
    assert torch.equal(alone["sdr"], together["sdr"])


def test_the_mixture_is_the_sum_unless_told() -> None:
    track = scene(sources=2, seconds=0.5)
    assert torch.equal(track.mixture, track.references.sum(dim=0))
    louder = make_scene(track.references, track.estimates, RATE, mixture=10 * track.mixture)
    assert (measure(louder, ["log_wmse"])["log_wmse"] > measure(track, ["log_wmse"])["log_wmse"]).all()


def test_unusable_input_is_refused() -> None:
    wave = np.zeros((2, 2, 100))
    with pytest.raises(InputError, match="sample_rate_hz must be above 0, got 0"):
        make_scene(wave, wave, 0)
    with pytest.raises(InputError, match=r"the mixture is \[2, 99\] but a source \[2, 100\]; they must match"):
        make_scene(wave, wave, RATE, mixture=wave[0, :, :99])
    with pytest.raises(InputError, match="references have 100 samples but estimates 99"):
        make_scene(wave, wave[..., :99], RATE)
    with pytest.raises(UnknownNameError, match="unknown metric 'nsd'; did you mean 'nsdr'"):
        measure(scene(1, 0.1), ["nsd"])


EDGES = {
    "perfect": lambda wave: (wave, wave.copy()),
    "silent estimate": lambda wave: (wave, 0 * wave),
    "silent reference": lambda wave: (0 * wave, wave),
    "both silent": lambda wave: (0 * wave, 0 * wave),
    "one sample": lambda wave: (wave[..., :1], 0.5 * wave[..., :1]),
    "ten samples": lambda wave: (wave[..., :10], 0.5 * wave[..., :10]),
    "a fifth of a second": lambda wave: (wave[..., :1600], 0.5 * wave[..., :1600]),
    "very quiet": lambda wave: (1e-30 * wave, 1e-30 * wave[::-1]),
    "very loud": lambda wave: (1e30 * wave, 1e30 * wave[::-1]),
    "mono twice": lambda wave: (wave[:, :1].repeat(2, 1), 0.5 * wave[:, :1].repeat(2, 1)),
}


@pytest.mark.parametrize("edge", EDGES)
def test_every_metric_has_a_value_or_none_at_the_edges(edge: str) -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal((2, 2, RATE))
    references, estimates = EDGES[edge](wave)
    names = METRICS.names()
    values = measure(make_scene(references, estimates, RATE), names)
    assert list(values) == names
    assert all(value.dtype == torch.float64 and value.shape[0] == 2 for value in values.values())
    if edge == "perfect":
        assert {name: values[name].max().item() for name in ("sdr", "snr", "si_sdr")} == dict.fromkeys(
            ("sdr", "snr", "si_sdr"), np.inf
        )
