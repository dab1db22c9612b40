"""Several separators as one, each counted per source."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from torch import Tensor, nn

from polyres.core.errors import WeightsError
from polyres.separation.model import Separator


class Bag(nn.Module):
    """Weighted average of separators, with one weight per model and source.

    `models`: one or more with the same sources, channels and sample rate. `weights`: one row per model with one number
    >= 0 per source; all ones if None.

    Source: the bags of Défossez 2021, "Hybrid Spectrogram and Waveform Source Separation", section 5.
    """

    def __init__(self, models: Sequence[Separator], weights: Sequence[Sequence[float]] | None = None) -> None:
        super().__init__()
        if not models:
            raise WeightsError("a bag needs 1 or more models; it has 0")
        first = models[0]
        for index, model in enumerate(models):
            for name in ("sources", "sample_rate_hz", "audio_channels"):
                mine, other = getattr(model, name), getattr(first, name)
                if mine != other:
                    raise WeightsError(
                        f"model {index} of the bag has {name} {mine}, model 0 has {other}; both must agree"
                    )
        self.models = nn.ModuleList(models)
        rows = [[1.0] * len(first.sources) for _ in models] if weights is None else weights
        self.weights = _checked_weights(rows, len(models), first.sources)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the stems, in the order of the output."""
        return self._first.sources

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the audio the models expect."""
        return self._first.sample_rate_hz

    @property
    def audio_channels(self) -> int:
        """Number of audio channels the models expect."""
        return self._first.audio_channels

    @property
    def segment_samples(self) -> int:
        """Longest length in samples that every model is meant for."""
        return min(model.segment_samples for model in self._separators)

    @property
    def _separators(self) -> list[Separator]:
        return [model for model in self.models if isinstance(model, Separator)]

    @property
    def _first(self) -> Separator:
        return self._separators[0]

    def forward(self, mix: Tensor) -> Tensor:
        """Separate a batch of mixtures: `[B, C, T]` -> `[B, S, C, T]`, the weighted average of the models."""
        total = mix.new_zeros(mix.shape[0], len(self.sources), *mix.shape[1:])
        for model, row in zip(self.models, self.weights, strict=True):
            if any(row):
                total = total + model(mix) * mix.new_tensor(row)[:, None, None]
        return total / mix.new_tensor([sum(column) for column in zip(*self.weights, strict=True)])[:, None, None]


def _checked_weights(
    rows: Sequence[Sequence[float]], models: int, sources: tuple[str, ...]
) -> tuple[tuple[float, ...], ...]:
    if len(rows) != models or any(len(row) != len(sources) for row in rows):
        raise WeightsError(
            f"the bag's weights are {len(rows)} rows of {sorted({len(row) for row in rows})} numbers; "
            f"{models} rows of {len(sources)} are needed"
        )
    table = tuple(tuple(float(value) for value in row) for row in rows)
    for value in (value for row in table for value in row):
        if not math.isfinite(value) or value < 0:
            raise WeightsError(f"the bag has the weight {value}; 0 or more is needed")
    for column, source in enumerate(sources):
        if not any(row[column] for row in table):
            raise WeightsError(f"the bag's weights for {source!r} are all 0; give one model a weight")
    return table


class Subset(nn.Module):
    """A separator with all but some resolutions switched off.

    `active`: positions in `model.config.n_fft` of the resolutions that listen; empty for none.
    """

    def __init__(self, model: Separator, active: Collection[int]) -> None:
        super().__init__()
        self.model = model
        self.active = tuple(sorted(set(active)))

    def forward(self, mix: Tensor) -> Tensor:
        """Separate `[B, C, T]` into `[B, S, C, T]` with the active resolutions."""
        return self.model(mix, self.active)
