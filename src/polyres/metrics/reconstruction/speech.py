"""Predictions of what listeners say of speech, by the reference libraries; they say nothing about music."""

from __future__ import annotations

import importlib
import math
import warnings
from types import ModuleType

import numpy as np
from torch import Tensor

from polyres.core.errors import ConfigError

PESQ_RATE_HZ = 16000

_INSTALL = {
    "pesq": "pip install pesq (it is compiled on installation; a C compiler is needed)",
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


def _channels(reference: Tensor, estimate: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of channels as arrays."""
    return list(zip(reference.cpu().numpy(), estimate.cpu().numpy(), strict=True))


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
    for true, given in _channels(reference, estimate):
        pair = [_at_rate(wave, sample_rate_hz, PESQ_RATE_HZ) for wave in (true, given)]
        if not all(np.any(wave) for wave in pair):
            return math.nan  # the library divides by the level
        try:
            scores.append(float(library.pesq(PESQ_RATE_HZ, pair[0], pair[1], "wb")))
        except library.PesqError:
            return math.nan
    return float(np.mean(scores))


def _stoi(reference: Tensor, estimate: Tensor, sample_rate_hz: int, extended: bool) -> float:
    """Return the mean over channels."""
    library = _library("pystoi", "estoi" if extended else "stoi")
    scores = []
    for true, given in _channels(reference, estimate):
        if not (np.any(true) and np.any(given)):
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # too little speech, for which it then returns 1e-5
            try:
                scores.append(float(library.stoi(true, given, sample_rate_hz, extended=extended)))
            except (RuntimeWarning, ValueError):  # shorter than a frame of the library
                return math.nan
    return float(np.mean(scores))


def stoi(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> float:
    """Short-time objective intelligibility of speech `[C, T]`, mean over channels; NaN below about 0.4 s of speech.

    Source: Taal et al. 2011, library `pystoi`.
    """
    return _stoi(reference, estimate, sample_rate_hz, extended=False)


def estoi(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> float:
    """Extended short-time objective intelligibility of `[C, T]`, mean over channels; NaN below about 0.4 s of speech.

    Source: Jensen and Taal 2016, library `pystoi`.
    """
    return _stoi(reference, estimate, sample_rate_hz, extended=True)
