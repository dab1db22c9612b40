"""museval's JSON: scores of one track by target and frame, as its aggregation tools read them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from polyres.core.whole_files import write_whole

METRICS = ("SDR", "SIR", "SAR", "ISR")
_STEP = 1e-5


def track_scores(
    scores: Mapping[str, Sequence[Sequence[float]]], sources: Sequence[str], window_s: float = 1.0, hop_s: float = 1.0
) -> dict[str, object]:
    """Arrange BSSEval scores as museval's TrackStore does.

    Args:
        scores: metric to values in dB, `[S][frames]`.
        sources: names of the targets.
        window_s: length of a frame in seconds.
        hop_s: distance of frames in seconds.

    Returns:
        To be written as JSON; values rounded to 1e-5 dB, NaN where a frame has none or an infinite one.

    Source: museval 0.4.1, musdb.schema.json and TrackStore.
    """
    targets = []
    for index, source in enumerate(sources):
        count = len(next(iter(scores.values()))[index])
        frames = [
            {
                "time": frame * hop_s,
                "duration": window_s,
                "metrics": {name: _rounded(scores[name][index][frame]) for name in METRICS if name in scores},
            }
            for frame in range(count)
        ]
        targets.append({"name": source, "frames": frames})
    return {"targets": targets}


def _rounded(value: float) -> float:
    return round(round(value / _STEP) * _STEP, 5) if math.isfinite(value) else math.nan


def write_track(path: Path, scores: Mapping[str, object]) -> None:
    """Write the scores of one track in one step; a frame without a value is NaN, as museval writes and reads it.

    Raises:
        OutputError: if the file cannot be written.
    """
    write_whole(path, json.dumps(scores, indent=2))
