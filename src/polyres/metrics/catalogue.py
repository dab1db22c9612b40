"""All metrics of separated sources by name, with what their numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.core.errors import InputError
from polyres.metrics import transients
from polyres.metrics.separation import (
    BANDS_HZ,
    band_sdr,
    l1_distance,
    log_wmse,
    multi_resolution_stft_distance,
    nsdr,
    si_sdr,
    snr,
)
from polyres.metrics.track_score import bss_eval, framewise_sdr
from polyres.metrics.waves import Wave, as_float64, check_pair

BSS_WINDOW_S = 1.0


@dataclass(frozen=True)
class Scene:
    """One separated track, ready to be scored."""

    references: Tensor  # true sources `[S, C, T]`, float64
    estimates: Tensor  # separated sources of the same shape
    mixture: Tensor  # what was separated `[C, T]`
    sample_rate_hz: int


Measure = Callable[[Scene], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Metric:
    """A metric and how to read it."""

    name: str  # as in `METRICS`
    unit: str  # "dB", "ms", "1" for none, or "sample" for the unit of the samples
    direction: Literal["higher", "lower"]
    per: Literal["track", "window"]  # a number for the whole track, or one for each second
    source: str
    silence: str  # what silent references and estimates give
    measure: Measure  # computes this metric and those that share its work, by name: `[S]`, or `[S, frames]` per window


METRICS: Catalogue[Metric] = Catalogue("metric")
"""Metrics by name; `METRICS.build(name)` returns the `Metric`."""


def make_scene(references: Wave, estimates: Wave, sample_rate_hz: int, mixture: Wave | None = None) -> Scene:
    """Check the waveforms of a track and bring them together.

    `references`: true sources `[S, C, T]`, array or tensor. `estimates`: separated sources of the same shape.
    `sample_rate_hz`: of all, > 0. `mixture`: what was separated `[C, T]`; default the sum of the references. Returns
    the scene, on the device of the references. Raises InputError if shapes do not fit, a sample is not finite, or the
    rate is not positive.
    """
    check_pair(references, estimates)
    if sample_rate_hz <= 0:
        raise InputError(f"sample_rate_hz must be above 0, got {sample_rate_hz}")
    device = references.device if isinstance(references, Tensor) else torch.device("cpu")
    true, given = as_float64(references, device), as_float64(estimates, device)
    mixed = true.sum(dim=0) if mixture is None else as_float64(mixture, device)
    if mixed.shape != true.shape[1:]:
        raise InputError(f"the mixture is {list(mixed.shape)} but a source {list(true.shape[1:])}; they must match")
    return Scene(true, given, mixed, sample_rate_hz)


def measure(scene: Scene, names: Sequence[str]) -> dict[str, Tensor]:
    """Compute metrics of a track; those that share their work are computed together.

    `names`: metrics of `METRICS`. Returns by name, in the order given: float64 `[S]`, or `[S, frames]` for metrics per
    window. Raises UnknownNameError if there is no metric of a name.
    """
    metrics = [METRICS.build(name) for name in names]
    if "sdr" in names and not {"isr", "sir", "sar"} & set(names):
        metrics = [metric if metric.name != "sdr" else _SDR_ALONE for metric in metrics]
    results: dict[Measure, Mapping[str, Tensor]] = {}
    for metric in metrics:
        if metric.measure not in results:
            results[metric.measure] = metric.measure(scene)
    return {metric.name: results[metric.measure][metric.name] for metric in metrics}


Each = Callable[[Tensor, Tensor, Scene], Tensor]
"""Takes true and separated waveform `[C, T]` of one source, and the scene they are from."""


def _bss(scene: Scene) -> dict[str, Tensor]:
    window = round(BSS_WINDOW_S * scene.sample_rate_hz)
    scores = bss_eval(scene.references, scene.estimates, window, window)
    return {name.lower(): values for name, values in scores.items()}


def _sdr_alone(scene: Scene) -> dict[str, Tensor]:
    window = round(BSS_WINDOW_S * scene.sample_rate_hz)
    return {"sdr": framewise_sdr(scene.references, scene.estimates, window, window)}


def _bands(scene: Scene) -> dict[str, Tensor]:
    pairs = zip(scene.references, scene.estimates, strict=True)
    rows = [band_sdr(true, given, scene.sample_rate_hz) for true, given in pairs]
    return {f"sdr_{band}": torch.stack([row[band] for row in rows]) for band in BANDS_HZ}


def _register(metric: Metric, summary: str) -> None:
    METRICS.register(metric.name, summary)(lambda: metric)


def _per_track(named: tuple[str, str], unit: str, each: Each, source: str, silence: str) -> None:
    """Register a metric that is measured on every source of a track; errors are better when lower."""
    name, summary = named

    def run(scene: Scene) -> dict[str, Tensor]:
        pairs = zip(scene.references, scene.estimates, strict=True)
        return {name: torch.stack([each(true, given, scene) for true, given in pairs])}

    direction: Literal["higher", "lower"] = "lower" if name in _LOWER else "higher"
    _register(Metric(name, unit, direction, "track", source, silence, run), summary)


_BSS_SOURCE = "Stöter, Liutkus and Ito 2018 (SiSEC 2018, BSSEval v4); Vincent et al. 2012, equations 13 to 16"
_BSS_SILENCE = "NaN for all sources in windows in which any reference or estimate is silent"
_LOWER = ("l1", "mr_stft", "attack_time_error", "crest_factor_error", "low_band_envelope_error")
_SDR_ALONE = Metric("sdr", "dB", "higher", "window", _BSS_SOURCE, _BSS_SILENCE, _sdr_alone)

for _name, _summary in (
    ("sdr", "signal to distortion"),
    ("isr", "image to spatial distortion"),
    ("sir", "signal to interference"),
    ("sar", "signal to artefacts"),
):
    _register(Metric(_name, "dB", "higher", "window", _BSS_SOURCE, _BSS_SILENCE, _bss), f"{_summary}, BSSEval v4")
_per_track(
    ("nsdr", "signal to distortion of the whole track (MDX 2021)"),
    "dB",
    lambda true, given, _: nsdr(true, given),
    "Mitsufuji et al. 2022 (Music Demixing Challenge 2021), equation 1, with 1e-7 added to both energies",
    "a silent estimate is 0 dB; a silent reference is 10 log10(1e-7 / (error + 1e-7)), 0 dB or less",
)
_per_track(
    ("si_sdr", "signal to distortion whatever the gain of the estimate"),
    "dB",
    lambda true, given, _: si_sdr(true, given),
    "Le Roux et al. 2019, equation 4",
    "a silent reference or estimate has no value",
)
_per_track(
    ("snr", "signal to noise of the whole track, nothing added"),
    "dB",
    lambda true, given, _: snr(true, given),
    "10 log10 of reference energy over error energy, nothing added",
    "a silent estimate is 0 dB, a silent reference −inf, both NaN; a perfect estimate is +inf",
)
_per_track(
    ("l1", "mean absolute difference of the samples"),
    "sample",
    lambda true, given, _: l1_distance(true, given),
    "mean absolute difference of the samples",
    "a silent reference is the mean level of the estimate",
)
_per_track(
    ("mr_stft", "distance of spectra at three resolutions"),
    "1",
    lambda true, given, _: multi_resolution_stft_distance(true, given),
    "Yamamoto, Song and Kim 2020, equations 4 to 6; 512, 1024, 2048 samples",
    "NaN for a silent reference",
)
_per_track(
    ("log_wmse", "audible error against the mixture, also for silent references"),
    "1",
    lambda true, given, scene: log_wmse(scene.mixture, true, given, scene.sample_rate_hz),
    "log-wmse-audio-quality 0.2; weighting of Fenton and Lee 2017",
    "defined for silent references: the audible level of the estimate against the mixture; at best 73.68",
)
_per_track(
    ("onset_correlation", "correlation of onset strength"),
    "1",
    lambda true, given, scene: transients.onset_correlation(true, given, scene.sample_rate_hz),
    "Dixon 2006, section 2.1 (spectral flux) on logarithmic bands; Pearson correlation",
    "NaN if reference or estimate is silent",
)
_per_track(
    ("attack_time_error", "difference of attack times"),
    "ms",
    lambda true, given, scene: transients.attack_time_error(true, given, scene.sample_rate_hz),
    "Peeters 2004, section 4.2; 10 % to 90 % of the peak, median over the onsets of the reference",
    "NaN without onsets, or where the estimate is silent at all of them",
)
_per_track(
    ("crest_factor_error", "difference of crest factors"),
    "dB",
    lambda true, given, scene: transients.crest_factor_error(true, given, scene.sample_rate_hz),
    "IEC 60268-1 (peak over RMS); mean absolute difference over seconds",
    "seconds in which either is silent are left out; NaN if none is left",
)
_per_track(
    ("low_band_envelope_error", "error of the envelope below 150 Hz"),
    "1",
    lambda true, given, scene: transients.low_band_envelope_error(true, given, scene.sample_rate_hz),
    "relative error of the RMS envelope from 20 to 150 Hz in frames of 10 ms",
    "a silent estimate is 1; NaN where the band of the reference is silent",
)
_BAND_SOURCE = "nSDR on the bins of the transform of the whole track"
_BAND_SILENCE = "a silent estimate is 0 dB; NaN where the band of the reference is silent"
for _band, (_low_hz, _high_hz) in BANDS_HZ.items():
    _register(
        Metric(f"sdr_{_band}", "dB", "higher", "track", _BAND_SOURCE, _BAND_SILENCE, _bands),
        f"signal to distortion from {_low_hz:g} to {_high_hz:g} Hz",
    )
