"""All metrics of a reconstruction against its original by name, with what their numbers may judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.core.errors import InputError
from polyres.dsp.axes import check_axes
from polyres.metrics.distances import multi_resolution_stft_distance
from polyres.metrics.reconstruction import speech
from polyres.metrics.reconstruction.levels import Pair, correlation, gain_db, lag_samples, loudness_lufs
from polyres.metrics.reconstruction.spectra import (
    RECONSTRUCTION_BANDS_HZ,
    log_mel_band_distance,
    log_mel_distance,
    log_spectral_distance,
    mel_cepstral_distortion,
    spectral_convergence_db,
)
from polyres.metrics.separation import si_sdr, snr
from polyres.metrics.waves import Wave, as_float64, shape_of


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

    Args:
        reference: original `[C, T]`, array or tensor.
        sample_rate_hz: of both, > 0.
        names: metrics of `RECONSTRUCTION_METRICS`; default all but those for speech alone.

    Returns:
        Numbers by name, in the order given; NaN or infinite where `silence` says so.

    Raises:
        InputError: if shapes do not fit, a sample is not finite, or the rate is not positive.
        UnknownNameError: if there is no metric of a name.
        ConfigError: if a metric needs a library that is not installed.
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


def _register(metric: ReconstructionMetric, summary: str) -> None:
    RECONSTRUCTION_METRICS.register(metric.name, summary)(lambda: metric)


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


def _log_mel_band(pair: Pair, band: str) -> float:
    return float(log_mel_band_distance(*pair.mels, pair.mel_config, RECONSTRUCTION_BANDS_HZ[band]))


def _speech(pair: Pair, run: Callable[[Tensor, Tensor, int], float]) -> float:
    return run(pair.reference, pair.estimate, pair.sample_rate_hz)


def _lufs_difference(pair: Pair) -> float:
    wanted, given = (loudness_lufs(wave, pair.sample_rate_hz) for wave in (pair.reference, pair.estimate))
    return given - wanted


_SAMPLES = "compares samples; needs the delay removed first"
_register(
    ReconstructionMetric(
        "snr",
        "dB",
        "higher",
        math.inf,
        True,
        "10 log10 of reference energy over error energy, nothing added",
        "a silent estimate is 0 dB, a silent reference −inf, both NaN",
        lambda pair: float(snr(pair.reference, pair.estimate)),
        caution=_SAMPLES,
    ),
    "signal to noise",
)
_register(
    ReconstructionMetric(
        "si_sdr",
        "dB",
        "higher",
        math.inf,
        True,
        "Le Roux et al. 2019, equation 4",
        "a silent reference or estimate has no value",
        lambda pair: float(si_sdr(pair.reference, pair.estimate)),
        caution=_SAMPLES,
    ),
    "signal to distortion whatever the gain",
)
_register(
    ReconstructionMetric(
        "correlation",
        "1",
        "higher",
        1.0,
        True,
        "cosine between the waveforms, means not removed",
        "NaN if either is silent",
        lambda pair: float(correlation(pair.reference, pair.estimate)),
        caution=_SAMPLES,
    ),
    "cosine between the waveforms",
)
_register(
    ReconstructionMetric(
        "log_mel_l1",
        "nat",
        "lower",
        0.0,
        False,
        "mean absolute difference of natural log-mel magnitudes; at 16 kHz AudioLDM2's front end "
        "(AudioLDM-training-finetuning, utilities/data/dataset.py), the reference at its peak of 0.5",
        "a silent estimate is the mean distance of the reference from the floor of 1e-5; both silent 0",
        lambda pair: float(log_mel_distance(*pair.mels)),
    ),
    "distance of log-mel spectra",
)
for _band, (_low_hz, _high_hz) in RECONSTRUCTION_BANDS_HZ.items():
    _register(
        ReconstructionMetric(
            f"log_mel_l1_{_band}",
            "nat",
            "lower",
            0.0,
            False,
            "log_mel_l1 over the mel bands whose middle lies inside",
            "as log_mel_l1; NaN where the sample rate leaves no such band",
            partial(_log_mel_band, band=_band),
        ),
        f"distance of log-mel spectra from {_low_hz:g} to {_high_hz:g} Hz",
    )
_register(
    ReconstructionMetric(
        "lsd",
        "log10 power",
        "lower",
        0.0,
        False,
        "Gray and Markel 1976; NVSR (Liu et al. 2022), equation 5; levels matched first",
        "a silent estimate is the distance of the reference from the floor of 1e-5; both silent 0",
        lambda pair: float(log_spectral_distance(*pair.magnitudes)),
    ),
    "log-spectral distance at equal level",
)
_register(
    ReconstructionMetric(
        "mr_stft",
        "1",
        "lower",
        0.0,
        False,
        "Yamamoto, Song and Kim 2020, equations 4 to 6; 512, 1024, 2048 samples",
        "NaN for a silent reference",
        lambda pair: float(multi_resolution_stft_distance(*pair.levelled)),
    ),
    "distance of spectra at three resolutions",
)
_register(
    ReconstructionMetric(
        "spectral_convergence",
        "dB",
        "lower",
        -math.inf,
        False,
        "Sturmel and Daudet 2011, section 2; levels matched first",
        "a silent estimate is 0 dB, a silent reference NaN",
        lambda pair: float(spectral_convergence_db(*pair.magnitudes)),
    ),
    "energy of the error of magnitudes",
)
_register(
    ReconstructionMetric(
        "mcd",
        "dB",
        "lower",
        0.0,
        False,
        "Kubichek 1993; 13 coefficients of the log-mel spectrum, no time warping",
        "a silent estimate is the distance of the reference from a flat spectrum; both silent 0",
        lambda pair: float(mel_cepstral_distortion(*pair.mels)),
    ),
    "mel cepstral distortion",
)
for _band, (_low_hz, _high_hz) in RECONSTRUCTION_BANDS_HZ.items():
    _register(
        ReconstructionMetric(
            f"band_error_{_band}",
            "dB",
            "nearest",
            0.0,
            False,
            "10 log10 of the band's energy over that of the reference (Parseval)",
            "a silent estimate is −inf; NaN where the band of the reference is silent",
            partial(_band_error_db, band=_band),
            caution="noise of the right level is perfect; read log_mel_l1 of the band beside it",
        ),
        f"energy won or lost from {_low_hz:g} to {_high_hz:g} Hz",
    )
    _register(
        ReconstructionMetric(
            f"retention_{_band}",
            "%",
            "nearest",
            100.0,
            False,
            "100 times the band's energy over that of the reference (Parseval)",
            "a silent estimate is 0; NaN where the band of the reference is silent",
            partial(_retention, band=_band),
            caution="grows with the level of the output, whatever is in it",
        ),
        f"share of the energy kept from {_low_hz:g} to {_high_hz:g} Hz",
    )
_register(
    ReconstructionMetric(
        "lufs_difference",
        "LU",
        "nearest",
        0.0,
        False,
        "ITU-R BS.1770-4, integrated loudness of the estimate less that of the reference",
        "what never passes the gate counts as −120 LUFS",
        _lufs_difference,
    ),
    "difference of loudness",
)
_register(
    ReconstructionMetric(
        "gain",
        "dB",
        "nearest",
        0.0,
        False,
        "10 log10 of the energy over that of the reference",
        "a silent estimate is −inf, a silent reference NaN",
        lambda pair: float(gain_db(pair.reference, pair.estimate)),
    ),
    "level over that of the original",
)
_register(
    ReconstructionMetric(
        "lag",
        "sample",
        "nearest",
        0.0,
        True,
        "peak of the cross-correlation within 0.1 s, refined by a parabola",
        "NaN if either is silent",
        lambda pair: lag_samples(pair.reference, pair.estimate, pair.sample_rate_hz),
        caution="NaN where the waveforms have nothing in common",
    ),
    "delay behind the original",
)
for _name, _summary, _best, _unit, _source, _measure in (
    ("pesq_wb", "predicted opinion of wideband speech", 4.644, "MOS", "ITU-T P.862.2, library pesq", speech.pesq_wb),
    ("stoi", "predicted intelligibility", 1.0, "1", "Taal et al. 2011, library pystoi", speech.stoi),
    (
        "estoi",
        "predicted intelligibility in uneven noise",
        1.0,
        "1",
        "Jensen and Taal 2016, library pystoi",
        speech.estoi,
    ),
):
    _register(
        ReconstructionMetric(
            _name,
            _unit,
            "higher",
            _best,
            False,
            _source,
            "NaN if either is silent, or there is too little speech",
            partial(_speech, run=_measure),
            speech_only=True,
            caution="for speech alone; needs the delay removed first",
        ),
        _summary,
    )
