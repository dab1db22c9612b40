"""All metrics of a reconstruction against its original by name, with what their numbers may judge."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.core.errors import ConfigError, InputError
from polyres.dsp.axes import check_axes
from polyres.metrics.reconstruction.levels import Pair, correlation, gain_db, lag_samples, loudness_lufs
from polyres.metrics.reconstruction.spectra import (
    RECONSTRUCTION_BANDS_HZ,
    log_mel_band_distance,
    log_mel_distance,
    log_spectral_distance,
    mel_cepstral_distortion,
    spectral_convergence_db,
)
from polyres.metrics.separation import multi_resolution_stft_distance, si_sdr, snr
from polyres.metrics.waves import Wave, as_float64, shape_of

PESQ_RATE_HZ = 16000

_INSTALL = {
    "pesq": "pip install 'polyres[pesq]' (it is compiled on installation; a C compiler is needed)",
    "pystoi": "pip install 'polyres[speech]'",
}


def _library(name: str, metric: str) -> ModuleType:
    """Import an optional library."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"metric {metric!r} needs the library {name!r}, which is not installed; {_INSTALL[name]}"
        ) from error


def _at_rate(wave: np.ndarray, sample_rate_hz: int, wanted_hz: int) -> np.ndarray:
    """Resample a channel where needed."""
    if sample_rate_hz == wanted_hz:
        return wave
    from scipy.signal import resample_poly

    common = math.gcd(sample_rate_hz, wanted_hz)
    return np.asarray(resample_poly(wave, wanted_hz // common, sample_rate_hz // common))


def pesq_wb(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> float:
    """Wideband PESQ of speech `[C, T]`, 1.0 to 4.64, mean over channels; NaN where there is no speech or under 0.25 s.

    Source: ITU-T P.862.2, library `pesq`.
    """
    library = _library("pesq", "pesq_wb")
    scores = []
    for true, given in zip(reference.cpu().numpy(), estimate.cpu().numpy(), strict=True):
        pair = [_at_rate(wave, sample_rate_hz, PESQ_RATE_HZ) for wave in (true, given)]
        if not all(np.any(wave) for wave in pair):
            return math.nan  # the library divides by the level
        try:
            scores.append(float(library.pesq(PESQ_RATE_HZ, pair[0], pair[1], "wb")))
        except library.PesqError:
            return math.nan
    return float(np.mean(scores))


def _stoi(reference: Tensor, estimate: Tensor, sample_rate_hz: int, extended: bool) -> float:
    """Short-time objective intelligibility of speech `[C, T]`, mean over channels; NaN below about 0.4 s of speech.

    Source: Taal et al. 2011; extended: Jensen and Taal 2016; library `pystoi`.
    """
    library = _library("pystoi", "estoi" if extended else "stoi")
    scores = []
    for true, given in zip(reference.cpu().numpy(), estimate.cpu().numpy(), strict=True):
        if not (np.any(true) and np.any(given)):
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # too little speech, for which it then returns 1e-5
            try:
                scores.append(float(library.stoi(true, given, sample_rate_hz, extended=extended)))
            except (RuntimeWarning, ValueError):  # shorter than a frame of the library
                return math.nan
    return float(np.mean(scores))


stoi = partial(_stoi, extended=False)
estoi = partial(_stoi, extended=True)


@dataclass(frozen=True)
class ReconstructionMetric:
    """A metric and what it may judge."""

    name: str  # as in `RECONSTRUCTION_METRICS`
    unit: str  # "dB", "nat", "%", "LU", "sample", "MOS", "log10 power", or "1" for none
    direction: Literal["higher", "lower", "nearest"]  # which numbers are better; "nearest" to `best`
    best: float  # what a perfect reconstruction scores
    phase_sensitive: bool  # compares sample by sample; says nothing where phases are made up
    source: str  # paper and equation
    silence: str  # what a silent estimate and a silent reference give
    measure: Callable[[Pair], float]  # computes it
    speech_only: bool = False  # whether it means something for speech alone
    caution: str = ""  # how its numbers mislead, if they do


RECONSTRUCTION_METRICS: Catalogue[ReconstructionMetric] = Catalogue("reconstruction metric")
"""Metrics by name; `RECONSTRUCTION_METRICS.build(name)` returns the `ReconstructionMetric`."""


def reconstruction_names(speech: bool = False) -> tuple[str, ...]:
    """List the metrics in the order of tables.

    `speech`: also those that mean something for speech alone, which need optional libraries. Returns names of
    `RECONSTRUCTION_METRICS`.
    """
    names = RECONSTRUCTION_METRICS.names()
    return tuple(name for name in names if speech or not RECONSTRUCTION_METRICS.build(name).speech_only)


def invalid_reason(name: str, phase_free: bool) -> str | None:
    """Say why a metric must not be used on a chain.

    `name`: of `RECONSTRUCTION_METRICS`; `phase_free`: whether the chain throws the phase away and makes up a new one
    (mel spectra, phase methods). Returns one line, or None where the metric is valid. Raises UnknownNameError if there
    is no such metric.
    """
    if phase_free and RECONSTRUCTION_METRICS.build(name).phase_sensitive:
        return "compares waveforms sample by sample, but this chain makes up its own phase: silence would score better"
    return None


def score(reference: Wave, estimate: Wave, sample_rate_hz: int, names: Sequence[str] | None = None) -> dict[str, float]:
    """Compare a reconstruction with its original.

    `reference`: original `[C, T]`, array or tensor. `sample_rate_hz`: of both, > 0. `names`: metrics of
    `RECONSTRUCTION_METRICS`; default all but those for speech alone. Returns numbers by name, in the order given; NaN
    or infinite where `silence` says so. Raises InputError if shapes do not fit, a sample is not finite, or the rate is
    not positive; UnknownNameError if there is no metric of a name; ConfigError if a metric needs a library that is not
    installed.
    """
    metrics = [RECONSTRUCTION_METRICS.build(name) for name in (reconstruction_names() if names is None else names)]
    if sample_rate_hz <= 0:
        raise InputError(f"sample_rate_hz must be above 0, got {sample_rate_hz}")
    wanted, given = shape_of(reference), shape_of(estimate)
    if len(wanted) != 2 or 0 in wanted:
        raise InputError(f"waveforms need the shape [channels, samples], neither of them 0, got {list(wanted)}")
    check_axes(wanted, "reference")
    if wanted != given:
        raise InputError(
            f"the original is {list(wanted)} but the reconstruction {list(given)}; bring both to one length"
        )
    device = reference.device if isinstance(reference, Tensor) else torch.device("cpu")
    pair = Pair(as_float64(reference, device), as_float64(estimate, device), sample_rate_hz)
    return {metric.name: float(metric.measure(pair)) for metric in metrics}


def _band_ratio(pair: Pair, band: str) -> float:
    """Energy of the estimate over that of the reference; NaN where the reference has none."""
    wanted, given = pair.band_energies[band]
    whole = sum(energy for energy, _ in pair.band_energies.values())
    # Less than this is rounding, not a signal.
    return given / wanted if wanted > 1e-20 * whole else math.nan


def _band_error_db(pair: Pair, band: str) -> float:
    ratio = _band_ratio(pair, band)
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf if ratio == 0 else math.nan


def _retention(pair: Pair, band: str) -> float:
    return 100 * _band_ratio(pair, band)


def _log_mel_band(pair: Pair, limits_hz: tuple[float, float]) -> Tensor:
    return log_mel_band_distance(*pair.mels, pair.mel_config, limits_hz)


def _speech(pair: Pair, run: Callable[[Tensor, Tensor, int], float]) -> float:
    return run(pair.reference, pair.estimate, pair.sample_rate_hz)


def _difference_lufs(pair: Pair) -> float:
    wanted, given = (loudness_lufs(wave, pair.sample_rate_hz) for wave in (pair.reference, pair.estimate))
    return given - wanted


Scale = tuple[str, Literal["higher", "lower", "nearest"], float]


def _add(
    named: tuple[str, str],
    scale: Scale,
    measure: Callable[[Pair], float | Tensor],
    source: str,
    silence: str,
    caution: str = "",
    phase_sensitive: bool = False,
    speech_only: bool = False,
) -> None:
    """Register a metric by name and summary; the scale is its unit, direction and best value."""
    name, summary = named
    metric = ReconstructionMetric(
        name, *scale, phase_sensitive, source, silence, lambda pair: float(measure(pair)), speech_only, caution
    )
    RECONSTRUCTION_METRICS.register(name, summary)(lambda: metric)


_SAMPLES = "compares samples; needs the delay removed first"
_add(
    ("snr", "signal to noise"),
    ("dB", "higher", math.inf),
    lambda pair: snr(pair.reference, pair.estimate),
    "10 log10 of reference energy over error energy, nothing added",
    "a silent estimate is 0 dB, a silent reference −inf, both NaN",
    _SAMPLES,
    phase_sensitive=True,
)
_add(
    ("si_sdr", "signal to distortion whatever the gain"),
    ("dB", "higher", math.inf),
    lambda pair: si_sdr(pair.reference, pair.estimate),
    "Le Roux et al. 2019, equation 4",
    "a silent reference or estimate has no value",
    _SAMPLES,
    phase_sensitive=True,
)
_add(
    ("correlation", "cosine between the waveforms"),
    ("1", "higher", 1.0),
    lambda pair: correlation(pair.reference, pair.estimate),
    "cosine between the waveforms, means not removed",
    "NaN if either is silent",
    _SAMPLES,
    phase_sensitive=True,
)
_add(
    ("log_mel_l1", "distance of log-mel spectra"),
    ("nat", "lower", 0.0),
    lambda pair: log_mel_distance(*pair.mels),
    "mean absolute difference of natural log-mel magnitudes; at 16 kHz AudioLDM2's front end "
    "(AudioLDM-training-finetuning, utilities/data/dataset.py), the reference at its peak of 0.5",
    "a silent estimate is the mean distance of the reference from the floor of 1e-5; both silent 0",
)
for _band, (_low_hz, _high_hz) in RECONSTRUCTION_BANDS_HZ.items():
    _add(
        (f"log_mel_l1_{_band}", f"distance of log-mel spectra from {_low_hz:g} to {_high_hz:g} Hz"),
        ("nat", "lower", 0.0),
        partial(_log_mel_band, limits_hz=(_low_hz, _high_hz)),
        "log_mel_l1 over the mel bands whose middle lies inside",
        "as log_mel_l1; NaN where the sample rate leaves no such band",
    )
_add(
    ("lsd", "log-spectral distance at equal level"),
    ("log10 power", "lower", 0.0),
    lambda pair: log_spectral_distance(*pair.magnitudes),
    "Gray and Markel 1976; NVSR (Liu et al. 2022), equation 5; levels matched first",
    "a silent estimate is the distance of the reference from the floor of 1e-5; both silent 0",
)
_add(
    ("mr_stft", "distance of spectra at three resolutions"),
    ("1", "lower", 0.0),
    lambda pair: multi_resolution_stft_distance(*pair.levelled),
    "Yamamoto, Song and Kim 2020, equations 4 to 6; 512, 1024, 2048 samples",
    "NaN for a silent reference",
)
_add(
    ("spectral_convergence", "energy of the error of magnitudes"),
    ("dB", "lower", -math.inf),
    lambda pair: spectral_convergence_db(*pair.magnitudes),
    "Sturmel and Daudet 2011, section 2; levels matched first",
    "a silent estimate is 0 dB, a silent reference NaN",
)
_add(
    ("mcd", "mel cepstral distortion"),
    ("dB", "lower", 0.0),
    lambda pair: mel_cepstral_distortion(*pair.mels),
    "Kubichek 1993; 13 coefficients of the log-mel spectrum, no time warping",
    "a silent estimate is the distance of the reference from a flat spectrum; both silent 0",
)
for _band, (_low_hz, _high_hz) in RECONSTRUCTION_BANDS_HZ.items():
    _add(
        (f"band_error_{_band}", f"energy won or lost from {_low_hz:g} to {_high_hz:g} Hz"),
        ("dB", "nearest", 0.0),
        partial(_band_error_db, band=_band),
        "10 log10 of the band's energy over that of the reference (Parseval)",
        "a silent estimate is −inf; NaN where the band of the reference is silent",
        "noise of the right level is perfect; read log_mel_l1 of the band beside it",
    )
    _add(
        (f"retention_{_band}", f"share of the energy kept from {_low_hz:g} to {_high_hz:g} Hz"),
        ("%", "nearest", 100.0),
        partial(_retention, band=_band),
        "100 times the band's energy over that of the reference (Parseval)",
        "a silent estimate is 0; NaN where the band of the reference is silent",
        "grows with the level of the output, whatever is in it",
    )
_add(
    ("lufs_difference", "difference of loudness"),
    ("LU", "nearest", 0.0),
    _difference_lufs,
    "ITU-R BS.1770-4, integrated loudness of the estimate less that of the reference",
    "what never passes the gate counts as −120 LUFS",
)
_add(
    ("gain", "level over that of the original"),
    ("dB", "nearest", 0.0),
    lambda pair: gain_db(pair.reference, pair.estimate),
    "10 log10 of the energy over that of the reference",
    "a silent estimate is −inf, a silent reference NaN",
)
_add(
    ("lag", "delay behind the original"),
    ("sample", "nearest", 0.0),
    lambda pair: lag_samples(pair.reference, pair.estimate, pair.sample_rate_hz),
    "peak of the cross-correlation within 0.1 s, refined by a parabola",
    "NaN if either is silent",
    "NaN where the waveforms have nothing in common",
    phase_sensitive=True,
)
for _name, _summary, _unit, _best, _source, _measure in (
    ("pesq_wb", "predicted opinion of wideband speech", "MOS", 4.644, "ITU-T P.862.2, library pesq", pesq_wb),
    ("stoi", "predicted intelligibility", "1", 1.0, "Taal et al. 2011, library pystoi", stoi),
    ("estoi", "predicted intelligibility in uneven noise", "1", 1.0, "Jensen and Taal 2016, library pystoi", estoi),
):
    _add(
        (_name, _summary),
        (_unit, "higher", _best),
        partial(_speech, run=_measure),
        _source,
        "NaN if either is silent, or there is too little speech",
        "for speech alone; needs the delay removed first",
        speech_only=True,
    )
