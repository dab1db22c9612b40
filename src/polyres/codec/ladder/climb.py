"""The ladder: every rung of a codec with every metric, beside identity, silence and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.codec.base import MEL, Codec
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
    """One metric of one rung on one file."""

    file: str
    codec: str
    rung: str  # R0 to R10, or one of CONTROLS
    take: str  # tells takes of one rung apart; empty where there is one
    metric: str  # of `RECONSTRUCTION_METRICS`, or ENVELOPE_LAG
    unit: str  # of the value
    value: float  # the number; NaN where the metric has none, and where it is invalid
    invalid: str | None = None  # why the number would mean nothing here; None where it means something
    remark: str = ""  # what to know about the take
    golden: bool = False  # whether the file is one that the chain made itself

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
        names: of `RUNGS`.

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


MEL_GIVEN, MEL_DECODED, LATENT = "mel of the file", "mel decoded", "latent"
CELLS = 80
MEL_RANGE_NAT = (-12.0, 8.0)
LATENT_RANGE = (-8.0, 8.0)
"""Of latents in units of what the weights expect."""


@dataclass(frozen=True)
class Distribution:
    """Values of one picture on one file, or on many."""

    name: str  # MEL_GIVEN, MEL_DECODED or LATENT
    # how many values fall into each of CELLS equal cells; those outside count in the first or last
    counts: tuple[int, ...]
    frames: int  # over which the averages are taken
    bin_mean: tuple[float, ...]  # average of every mel band, or latent channel
    bin_square: tuple[float, ...]  # average square of the same

    @property
    def bin_std(self) -> tuple[float, ...]:
        """Standard deviation of every bin."""
        pairs = zip(self.bin_mean, self.bin_square, strict=True)
        return tuple(math.sqrt(max(0.0, square - mean * mean)) for mean, square in pairs)

    @property
    def mean(self) -> float:
        """Over all bins."""
        return sum(self.bin_mean) / len(self.bin_mean)

    @property
    def std(self) -> float:
        """Over all values."""
        return math.sqrt(max(0.0, sum(self.bin_square) / len(self.bin_square) - self.mean**2))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Distribution:
        """Undo `to_dict`."""
        rows = {name: tuple(plain[name]) for name in ("counts", "bin_mean", "bin_square")}
        return Distribution(name=plain["name"], frames=plain["frames"], **rows)


def expected_std(codec: Codec) -> tuple[float, str]:
    """Say how far from 0 the weights of a codec expect latents to be.

    Returns:
        The standard deviation, and where it is from.
    """
    config = getattr(getattr(codec, "autoencoder", None), "config", None)
    factor = getattr(config, "scaling_factor", None)
    if isinstance(factor, float) and factor > 0:
        return 1 / factor, f"1 / scaling factor {factor:g}, which gave the latents of the training unit variance"
    return 1.0, "1, the normal distribution to which the training pulls latents"


def distributions(shop: Workshop, piece: Piece) -> list[Distribution]:
    """Measure a piece of a file on its way.

    Returns:
        Mel spectra before and after the autoencoder and the latent between, as far as the codec has them.
    """
    chain, codec, grouped = shop.chain, shop.codec, piece.grouped
    with torch.no_grad():
        latents = codec.encode(grouped.to(codec.device))
        if chain.has_mel:
            decoded = codec.to_features(latents)[MEL][:, 0]
        else:
            decoded = chain.mel(codec.decode(latents, grouped.shape[-1]))
        found = [_mel(MEL_GIVEN, chain.mel(grouped)), _mel(MEL_DECODED, decoded)]
    # A codec may store other numbers beside its latent, which follow no distribution.
    latent = latents.get(LATENT) if len(latents) > 1 else next(iter(latents.values()))
    if latent is not None:
        scale = expected_std(codec)[0]
        # Every channel is a bin; its places in frequency count as frames.
        flat = latent.double().cpu().movedim(1, -1).flatten(0, -2)
        found.append(_measured(LATENT, flat, (LATENT_RANGE[0] * scale, LATENT_RANGE[1] * scale)))
    return found


def _mel(name: str, log_mel: Tensor) -> Distribution:
    return _measured(name, log_mel.double().cpu().flatten(0, 1), MEL_RANGE_NAT)


def _measured(name: str, values: Tensor, limits: tuple[float, float]) -> Distribution:
    """Measure `[frames, bins]`."""
    inside = values.clamp(*limits)
    counts = torch.histc(inside, CELLS, *limits)
    return Distribution(
        name=name,
        counts=tuple(int(count) for count in counts),
        frames=len(values),
        bin_mean=tuple(values.mean(dim=0).tolist()),
        bin_square=tuple(values.square().mean(dim=0).tolist()),
    )


def joined(parts: Sequence[Distribution]) -> Distribution:
    """Merge the measurements of several files."""
    frames = sum(part.frames for part in parts)

    def average(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        shares = [part.frames / frames for part in parts]
        return tuple(sum(w * v for w, v in zip(shares, column, strict=True)) for column in zip(*rows, strict=True))

    return Distribution(
        name=parts[0].name,
        counts=tuple(sum(column) for column in zip(*(part.counts for part in parts), strict=True)),
        frames=frames,
        bin_mean=average([part.bin_mean for part in parts]),
        bin_square=average([part.bin_square for part in parts]),
    )


def overlap(one: Distribution, other: Distribution) -> float:
    """Compute the share of values that two histograms have in common, 0 to 1."""
    sums = max(1, sum(one.counts)), max(1, sum(other.counts))
    return sum(min(a / sums[0], b / sums[1]) for a, b in zip(one.counts, other.counts, strict=True))
