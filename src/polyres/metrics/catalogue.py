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
from polyres.metrics.bss.evaluate import bss_eval, framewise_sdr
from polyres.metrics.distances import l1_distance, log_wmse, multi_resolution_stft_distance
from polyres.metrics.separation import BANDS_HZ, band_sdr, nsdr, si_sdr, snr
from polyres.metrics.waves import Wave, as_float64, check_pair

BSS_WINDOW_S = 1.0


@dataclass(frozen=True)
class Scene:
    """One separated track, ready to be scored.

    `references`: true sources `[S, C, T]`, float64; `estimates`: separated sources of the same shape; `mixture`: what
    was separated `[C, T]`.
    """

    references: Tensor
    estimates: Tensor
    mixture: Tensor
    sample_rate_hz: int


Measure = Callable[[Scene], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Metric:
    """A metric and how to read it.

    `name`: as in `METRICS`; `unit`: "dB", "ms", "1" for none, or "sample" for the unit of the samples; `per`: a number
    for the whole track, or one for each second; `silence`: what silent references and estimates give; `measure`:
    computes this metric and those that share its work, by name: `[S]`, or `[S, frames]` per window.
    """

    name: str
    unit: str
    direction: Literal["higher", "lower"]
    per: Literal["track", "window"]
    source: str
    silence: str
    measure: Measure


METRICS: Catalogue[Metric] = Catalogue("metric")
"""Metrics by name; `METRICS.build(name)` returns the `Metric`."""


def make_scene(references: Wave, estimates: Wave, sample_rate_hz: int, mixture: Wave | None = None) -> Scene:
    """Check the waveforms of a track and bring them together.

    Args:
        references: true sources `[S, C, T]`, array or tensor.
        estimates: separated sources of the same shape.
        sample_rate_hz: of all, > 0.
        mixture: what was separated `[C, T]`; default the sum of the references.

    Returns:
        The scene, on the device of the references.

    Raises:
        InputError: if shapes do not fit, a sample is not finite, or the rate is not positive.
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


def _window_samples(scene: Scene) -> int:
    return round(BSS_WINDOW_S * scene.sample_rate_hz)


def _bss(scene: Scene) -> dict[str, Tensor]:
    window = _window_samples(scene)
    scores = bss_eval(scene.references, scene.estimates, window, window)
    return {name.lower(): values for name, values in scores.items()}


def _sdr_alone(scene: Scene) -> dict[str, Tensor]:
    window = _window_samples(scene)
    return {"sdr": framewise_sdr(scene.references, scene.estimates, window, window)}


def _each(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> Measure:
    """Apply a function of two waveforms `[C, T]` to every source."""

    def run(scene: Scene) -> dict[str, Tensor]:
        pairs = zip(scene.references, scene.estimates, strict=True)
        return {name: torch.stack([function(true, given) for true, given in pairs])}

    return run


def _each_at_rate(name: str, function: Callable[[Tensor, Tensor, int], Tensor]) -> Measure:
    """Apply a function of two waveforms and a sample rate to every source."""

    def run(scene: Scene) -> dict[str, Tensor]:
        pairs = zip(scene.references, scene.estimates, strict=True)
        return {name: torch.stack([function(true, given, scene.sample_rate_hz) for true, given in pairs])}

    return run


def _log_wmse(scene: Scene) -> dict[str, Tensor]:
    pairs = zip(scene.references, scene.estimates, strict=True)
    values = [log_wmse(scene.mixture, true, given, scene.sample_rate_hz) for true, given in pairs]
    return {"log_wmse": torch.stack(values)}


def _bands(scene: Scene) -> dict[str, Tensor]:
    pairs = zip(scene.references, scene.estimates, strict=True)
    rows = [band_sdr(true, given, scene.sample_rate_hz) for true, given in pairs]
    return {f"sdr_{band}": torch.stack([row[band] for row in rows]) for band in BANDS_HZ}


def _register(metric: Metric, summary: str) -> Metric:
    METRICS.register(metric.name, summary)(lambda: metric)
    return metric


_BSS_SOURCE = "Stöter, Liutkus and Ito 2018 (SiSEC 2018, BSSEval v4); Vincent et al. 2012, equations 13 to 16"
_BSS_SILENCE = "NaN for all sources in windows in which any reference or estimate is silent"
for _name, _summary in (
    ("sdr", "signal to distortion"),
    ("isr", "image to spatial distortion"),
    ("sir", "signal to interference"),
    ("sar", "signal to artefacts"),
):
    _register(Metric(_name, "dB", "higher", "window", _BSS_SOURCE, _BSS_SILENCE, _bss), f"{_summary}, BSSEval v4")
_SDR_ALONE = Metric("sdr", "dB", "higher", "window", _BSS_SOURCE, _BSS_SILENCE, _sdr_alone)

_register(
    Metric(
        "nsdr",
        "dB",
        "higher",
        "track",
        "Mitsufuji et al. 2022 (Music Demixing Challenge 2021), equation 1, with 1e-7 added to both energies",
        "a silent estimate is 0 dB; a silent reference is 10 log10(1e-7 / (error + 1e-7)), 0 dB or less",
        _each("nsdr", nsdr),
    ),
    "signal to distortion of the whole track (MDX 2021)",
)
_register(
    Metric(
        "si_sdr",
        "dB",
        "higher",
        "track",
        "Le Roux et al. 2019, equation 4",
        "a silent reference or estimate has no value",
        _each("si_sdr", si_sdr),
    ),
    "signal to distortion whatever the gain of the estimate",
)
_register(
    Metric(
        "snr",
        "dB",
        "higher",
        "track",
        "10 log10 of reference energy over error energy, nothing added",
        "a silent estimate is 0 dB, a silent reference −inf, both NaN; a perfect estimate is +inf",
        _each("snr", snr),
    ),
    "signal to noise of the whole track, nothing added",
)
_register(
    Metric(
        "l1",
        "sample",
        "lower",
        "track",
        "mean absolute difference of the samples",
        "a silent reference is the mean level of the estimate",
        _each("l1", l1_distance),
    ),
    "mean absolute difference of the samples",
)
_register(
    Metric(
        "mr_stft",
        "1",
        "lower",
        "track",
        "Yamamoto, Song and Kim 2020, equations 4 to 6; 512, 1024, 2048 samples",
        "NaN for a silent reference",
        _each("mr_stft", multi_resolution_stft_distance),
    ),
    "distance of spectra at three resolutions",
)
_register(
    Metric(
        "log_wmse",
        "1",
        "higher",
        "track",
        "log-wmse-audio-quality 0.2; weighting of Fenton and Lee 2017",
        "defined for silent references: the audible level of the estimate against the mixture; at best 73.68",
        _log_wmse,
    ),
    "audible error against the mixture, also for silent references",
)
_register(
    Metric(
        "onset_correlation",
        "1",
        "higher",
        "track",
        "Dixon 2006, section 2.1 (spectral flux) on logarithmic bands; Pearson correlation",
        "NaN if reference or estimate is silent",
        _each_at_rate("onset_correlation", transients.onset_correlation),
    ),
    "correlation of onset strength",
)
_register(
    Metric(
        "attack_time_error",
        "ms",
        "lower",
        "track",
        "Peeters 2004, section 4.2; 10 % to 90 % of the peak, median over the onsets of the reference",
        "NaN without onsets, or where the estimate is silent at all of them",
        _each_at_rate("attack_time_error", transients.attack_time_error),
    ),
    "difference of attack times",
)
_register(
    Metric(
        "crest_factor_error",
        "dB",
        "lower",
        "track",
        "IEC 60268-1 (peak over RMS); mean absolute difference over seconds",
        "seconds in which either is silent are left out; NaN if none is left",
        _each_at_rate("crest_factor_error", transients.crest_factor_error),
    ),
    "difference of crest factors",
)
_register(
    Metric(
        "low_band_envelope_error",
        "1",
        "lower",
        "track",
        "relative error of the RMS envelope from 20 to 150 Hz in frames of 10 ms",
        "a silent estimate is 1; NaN where the band of the reference is silent",
        _each_at_rate("low_band_envelope_error", transients.low_band_envelope_error),
    ),
    "error of the envelope below 150 Hz",
)
for _band, (_low_hz, _high_hz) in BANDS_HZ.items():
    _register(
        Metric(
            f"sdr_{_band}",
            "dB",
            "higher",
            "track",
            "nSDR on the bins of the transform of the whole track",
            "a silent estimate is 0 dB; NaN where the band of the reference is silent",
            _bands,
        ),
        f"signal to distortion from {_low_hz:g} to {_high_hz:g} Hz",
    )
