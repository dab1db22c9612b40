"""What goes through a codec against what its weights expect: histograms and averages of mel spectra and latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from polyres.codec.base import MEL, Codec
from polyres.codec.ladder.rungs import Piece, Workshop

MEL_GIVEN, MEL_DECODED, LATENT = "mel of the file", "mel decoded", "latent"
CELLS = 80
MEL_RANGE_NAT = (-12.0, 8.0)
LATENT_RANGE = (-8.0, 8.0)
"""Of latents in units of what the weights expect."""


@dataclass(frozen=True)
class Distribution:
    """Values of one picture on one file, or on many.

    Attributes:
        name: MEL_GIVEN, MEL_DECODED or LATENT.
        counts: how many values fall into each of CELLS equal cells; those outside count in the first or last.
        frames: over which the averages are taken.
        bin_mean: average of every mel band, or latent channel.
        bin_square: average square of the same.
    """

    name: str
    counts: tuple[int, ...]
    frames: int
    bin_mean: tuple[float, ...]
    bin_square: tuple[float, ...]

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

    Args:
        codec: any.

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

    Args:
        shop: the codec.
        piece: of the file.

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
