"""The ladder: every rung of a codec with every metric, beside identity, silence and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.codec.ladder.rungs import RUNGS, Piece, Rung, Take, Workshop
from polyres.metrics.reconstruction.levels import LAG_SEARCH_S, estimate_lag
from polyres.metrics.reconstruction.metrics import RECONSTRUCTION_METRICS, invalid_reason, reconstruction_names, score
from polyres.metrics.reconstruction.spectra import (
    RECONSTRUCTION_BANDS_HZ,
    log_mel_band_distance,
    log_mel_distance,
    mel_cepstral_distortion,
)

IDENTITY, SILENCE, NOISE = "identity", "silence", "noise"
CONTROLS = (IDENTITY, SILENCE, NOISE)
ENVELOPE_LAG = "envelope_lag"
"""Delay of the envelope in samples; unlike `lag` it means something where the phase is made up."""
NO_WAVE = "this rung ends at a mel spectrogram, which is no waveform"

_TRUSTED, _SMOOTHING_S = 0.5, 0.002
_SPECIAL = {math.inf: "inf", -math.inf: "-inf"}


@dataclass(frozen=True)
class LadderRow:
    """One metric of one rung on one file.

    Attributes:
        file: name of the file.
        codec: name of the codec.
        rung: R0 to R10, or one of CONTROLS.
        take: tells takes of one rung apart; empty where there is one.
        metric: of `RECONSTRUCTION_METRICS`, or ENVELOPE_LAG.
        unit: of the value.
        value: the number; NaN where the metric has none, and where it is invalid.
        invalid: why the number would mean nothing here; None where it means something.
        remark: what to know about the take.
        golden: whether the file is one that the chain made itself.
    """

    file: str
    codec: str
    rung: str
    take: str
    metric: str
    unit: str
    value: float
    invalid: str | None = None
    remark: str = ""
    golden: bool = False

    @property
    def label(self) -> str:
        """Rung and take, as tables show them."""
        return f"{self.rung} {self.take}" if self.take else self.rung

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: infinite ones as "inf" and "-inf", NaN and invalid ones as None."""
        value = None if math.isnan(self.value) else _SPECIAL.get(self.value, self.value)
        return {**asdict(self), "value": value}

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> LadderRow:
        """Undo `to_dict`."""
        value = plain["value"]
        return LadderRow(**{**plain, "value": math.nan if value is None else float(value)})


@dataclass(frozen=True)
class Step:
    """What comes out of a rung, and its scores."""

    take: Take
    rung: str
    rows: list[LadderRow]


def missing_rungs(shop: Workshop, names: Sequence[str]) -> dict[str, str]:
    """Say which rungs a codec does not have.

    Args:
        shop: the codec.
        names: of `RUNGS`.

    Returns:
        Name to reason.

    Raises:
        UnknownNameError: if there is no such rung.
    """
    found = {name: RUNGS.build(name).missing(shop) for name in names}
    return {name: reason for name, reason in found.items() if reason is not None}


def climb(
    shop: Workshop,
    piece: Piece,
    rungs: Sequence[Rung],
    report: Callable[[float], None] | None = None,
    golden: bool = False,
) -> Iterator[Step]:
    """Run the controls and all rungs on a piece of a file.

    Args:
        shop: the codec.
        piece: of the file.
        rungs: from the bottom up; those that the codec does not have are left out.
        report: called with the finished share, 0 to 1.
        golden: whether the chain made the file itself.

    Yields:
        Every take with its scores.
    """
    judge = _Judge(piece, shop, golden)
    for name, wave in control_waves(piece.reference, shop.seed).items():
        yield judge.step(name, Take("", wave), phase_free=False)
    usable = [rung for rung in rungs if rung.missing(shop) is None]
    for done, rung in enumerate(usable):
        if report is not None:
            report(done / len(usable))
        with torch.no_grad():
            takes = list(rung.run(shop, piece))
        for take in takes:
            yield judge.step(rung.name, take, rung.phase_free(shop.codec))


def control_waves(reference: Tensor, seed: int) -> dict[str, Tensor]:
    """Make the controls for a reference `[C, T]`: the wave itself, silence, and white noise at its level."""
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(seed))
    loudness = reference.double().square().mean().sqrt().float()
    return {IDENTITY: reference, SILENCE: torch.zeros_like(reference), NOISE: noise * loudness}


def envelope_lag(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> float:
    """Estimate the delay of the envelope in samples, > 0 if the estimate is late; NaN if the envelopes do not
    correlate.
    """
    most = min(round(LAG_SEARCH_S * sample_rate_hz), reference.shape[-1] - 1)
    lag = estimate_lag(_envelope(reference, sample_rate_hz), _envelope(estimate, sample_rate_hz), max(1, most))
    return lag.samples if lag.correlation >= _TRUSTED else math.nan


def _envelope(wave: Tensor, sample_rate_hz: int) -> Tensor:
    """Smoothed root of the power, its mean taken away."""
    half = max(1, round(_SMOOTHING_S * sample_rate_hz / 2))
    power = F.avg_pool1d(wave.double().square()[:, None], 2 * half + 1, stride=1, padding=half)[:, 0]
    root = power.clamp_min(0).sqrt()
    return root - root.mean(dim=-1, keepdim=True)


class _Judge:
    """Scores what comes out of rungs."""

    def __init__(self, piece: Piece, shop: Workshop, golden: bool) -> None:
        self._piece, self._shop, self._golden = piece, shop, golden
        self._names = reconstruction_names()

    def step(self, rung: str, take: Take, phase_free: bool) -> Step:
        """Score a take."""
        invalid = {name: reason for name in self._names if (reason := invalid_reason(name, phase_free))}
        if take.wave is None:
            values = self._of_mel(take)
            invalid |= {name: NO_WAVE for name in (*self._names, ENVELOPE_LAG) if name not in values}
        else:
            values = self._of_wave(take, take.wave, [name for name in self._names if name not in invalid])
        rows = []
        for name in (*self._names, ENVELOPE_LAG):
            unit = "sample" if name == ENVELOPE_LAG else RECONSTRUCTION_METRICS.build(name).unit
            rows.append(
                LadderRow(
                    file=self._piece.name,
                    codec=self._shop.codec.name,
                    rung=rung,
                    take=take.label,
                    metric=name,
                    unit=unit,
                    value=values.get(name, math.nan),
                    invalid=invalid.get(name),
                    remark=take.remark,
                    golden=self._golden,
                )
            )
        return Step(take, rung, rows)

    def _of_wave(self, take: Take, wave: Tensor, names: list[str]) -> dict[str, float]:
        reference = self._piece.reference if take.reference is None else take.reference
        rate_hz = take.sample_rate_hz or self._shop.codec.sample_rate_hz
        found = score(reference, wave, rate_hz, names)
        return {**found, ENVELOPE_LAG: envelope_lag(reference, wave, rate_hz)}

    def _of_mel(self, take: Take) -> dict[str, float]:
        if take.mel is None:
            return {}
        wanted, given = self._shop.chain.mel(self._piece.grouped).cpu(), take.mel
        config = self._shop.chain.mel_config
        found = {"log_mel_l1": float(log_mel_distance(wanted, given))}
        found["mcd"] = float(mel_cepstral_distortion(wanted, given))
        for band, limits_hz in RECONSTRUCTION_BANDS_HZ.items():
            found[f"log_mel_l1_{band}"] = float(log_mel_band_distance(wanted, given, config, limits_hz))
        return found
