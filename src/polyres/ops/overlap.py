"""Cutting a long signal into overlapping segments and cross-fading the results back, block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.core.errors import ConfigError, InputError


def stride_samples(segment_samples: int, overlap: float) -> int:
    """Distance between the starts of neighbouring segments.

    Args:
        segment_samples: segment length, >= 1.
        overlap: share of a segment that the next one covers again, 0 <= overlap < 1.

    Returns:
        Stride in samples, at least 1.

    Raises:
        ConfigError: when the overlap is out of range.
    """
    if not 0.0 <= overlap < 1.0:
        raise ConfigError(f"overlap {overlap} is not possible; choose 0 <= overlap < 1, such as 0.25")
    return max(1, int((1.0 - overlap) * segment_samples))


def segment_starts(length_samples: int, segment_samples: int, overlap: float) -> range:
    """Starts of the segments that cover a signal; the last segments may reach beyond its end.

    Args:
        length_samples: signal length, >= 1.
        segment_samples: segment length, >= 1.
        overlap: share of a segment that the next one covers again, 0 <= overlap < 1.

    Returns:
        Start positions in samples.
    """
    return range(0, length_samples, stride_samples(segment_samples, overlap))


def triangle_weight(segment_samples: int) -> Tensor:
    """Cross-fade weight of a segment: rises by equal steps to 1 in the middle, then falls, never zero.

    Args:
        segment_samples: segment length, >= 1.

    Returns:
        `[segment_samples]` float32 in (0, 1].

    Source:
        Defossez et al., "Music Source Separation in the Waveform Domain", 2019 (weighting of overlapping segments).
    """
    half = segment_samples // 2
    rising = torch.arange(1, half + 1, dtype=torch.float32)
    falling = torch.arange(segment_samples - half, 0, -1, dtype=torch.float32)
    weight = torch.cat([rising, falling])
    return weight / weight.max()


def centred_bounds(start: int, length_samples: int, segment_samples: int) -> tuple[int, int]:
    """Range that a segment of full length takes around a shorter piece, the piece in its middle.

    Args:
        start: first sample of the piece.
        length_samples: length of the piece, at most `segment_samples`.
        segment_samples: full segment length.

    Returns:
        (first, last + 1) in samples; may lie outside the signal, where zeros stand in.
    """
    first = start - (segment_samples - length_samples) // 2
    return first, first + segment_samples


class OverlapAdd:
    """Weighted overlap-add that hands out samples as soon as they are complete, in bounded memory."""

    def __init__(self, weight: Tensor) -> None:
        """Start at sample 0.

        Args:
            weight: `[L]` positive cross-fade weight of a full segment; a shorter segment uses its first samples.
        """
        self._weight = weight
        self._sum: Tensor | None = None
        self._norm = torch.zeros(0)
        self._position = 0

    def add(self, segment: Tensor, start: int) -> None:
        """Add one segment to the sum.

        Args:
            segment: `[..., n]`, n <= L.
            start: absolute position of its first sample; not before what was handed out already.

        Raises:
            InputError: when the segment begins before samples that were already handed out.
        """
        if start < self._position:
            raise InputError(f"segment at sample {start} comes too late; samples before {self._position} are finished")
        length = segment.shape[-1]
        first = start - self._position
        total = self._grown(segment, first + length)
        weight = self._weight[:length]
        total[..., first : first + length] += weight * segment
        self._norm[first : first + length] += weight

    def take(self, end: int) -> Tensor | None:
        """Hand out the finished samples before `end` and forget them.

        Args:
            end: absolute position; no later segment may begin before it.

        Returns:
            `[..., m]` cross-faded samples, or None when there are none.
        """
        count = end - self._position
        if self._sum is None or count <= 0:
            return None
        done = self._sum[..., :count] / self._norm[:count]
        self._sum = self._sum[..., count:]
        self._norm = self._norm[count:]
        self._position = end
        return done

    def _grown(self, like: Tensor, size: int) -> Tensor:
        total = like.new_zeros((*like.shape[:-1], 0)) if self._sum is None else self._sum
        missing = size - total.shape[-1]
        if missing > 0:
            total = torch.cat([total, like.new_zeros((*like.shape[:-1], missing))], dim=-1)
            self._norm = torch.cat([self._norm, torch.zeros(missing)])
        self._sum = total
        return total
