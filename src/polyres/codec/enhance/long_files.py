"""Run enhancers on long files window by window, in the memory of one window."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from polyres.audio.sources import BlockSource
from polyres.audio.writer import WriteSpec
from polyres.codec.enhance.sweep import Chain, EnhanceOptions, EnhanceRow, Excerpt, run_enhancers, summarise
from polyres.codec.load import Take
from polyres.codec.stream import measure, run_encoder
from polyres.codec.windows import Tensors

ORIGINAL = "original"


def sound_name(row: EnhanceRow) -> str:
    """Name the sound of a row: the enhancer, and its strength where there is one.

    Returns:
        A file name without an ending.
    """
    return row.enhancer if row.strength == 0 else f"{row.enhancer}_{row.strength:g}"


def enhance_long(
    chain: Chain,
    source: BlockSource,
    options: EnhanceOptions,
    folder: Path | None = None,
    report: Callable[[float], None] | None = None,
) -> list[EnhanceRow]:
    """Run every enhancer at every strength on a source of any length, after the codec alone.

    The level is taken once for the whole source. Windows overlap and are cross-faded; sounds are brought to the level
    of the original by one gain for all of it.

    Args:
        source: where samples come from; it is read twice.
        folder: where sounds are written; none are kept where None.
        report: called with the finished share, 0 to 1.

    Returns:
        Rows: medians over windows, the gain of the whole.

    Raises:
        ConfigError: if an enhancer cannot be run.
        InputError: if the source cannot be used.
        OutputError: if a sound cannot be written.
    """
    codec, rows = chain.codec, list[EnhanceRow]()
    found = measure(source, codec)
    sounds = _Sounds(folder, source.channels, found.codec_samples)

    def run(window: Tensors) -> Tensors:
        wave = window["wave"]
        outputs = {ORIGINAL: wave}
        for one in run_enhancers(chain, Excerpt(source.name, wave, wave.shape[-1] / codec.sample_rate_hz), options):
            rows.append(one.row)
            gain = 10 ** (one.row.gain_db / 20) if math.isfinite(one.row.gain_db) else 1.0
            outputs[sound_name(one.row)] = (gain * one.wave).reshape(wave.shape)
        return outputs

    for block in run_encoder(source, codec, found, run, report, fades=True):
        sounds.push(block)
    sounds.finish(codec.sample_rate_hz)
    name = Path(source.name).name
    return [replace(row, file=name, gain_db=sounds.gain_db(sound_name(row))) for row in summarise(rows)]


class _Sounds:
    """Energy of every sound, and the sounds themselves where they are kept."""

    def __init__(self, folder: Path | None, channels: int, length_samples: int) -> None:
        self._folder, self._channels, self._left = folder, channels, length_samples
        self._energy: dict[str, float] = {}
        self._takes: dict[str, Take] = {}

    def push(self, block: Tensors) -> None:
        """Take in the next samples `[G, C, n]` of every sound."""
        count = min(self._left, next(iter(block.values())).shape[-1])
        self._left -= count
        for name, value in block.items():
            wave: Tensor = value.flatten(0, 1)[: self._channels, :count]
            self._energy[name] = self._energy.get(name, 0.0) + float(wave.double().square().sum())
            if self._folder is not None:
                take = self._takes.setdefault(name, Take(self._folder / f"{name}.f32", self._channels))
                take.append(wave.to("cpu", torch.float32))

    def gain_db(self, name: str) -> float:
        """Level of a sound over that of the original; NaN or infinite where one is silent."""
        mine, original = self._energy[name], self._energy[ORIGINAL]
        if original == 0:
            return math.nan
        return -math.inf if mine == 0 else 10 * math.log10(mine / original)

    def finish(self, sample_rate_hz: int) -> None:
        """Write the sounds at the level of the original."""
        for name, take in self._takes.items():
            level_db = self.gain_db(name)
            gain = 10 ** (-level_db / 20) if math.isfinite(level_db) else 1.0
            take.encode(take.path.with_suffix(".wav"), WriteSpec(sample_rate_hz, self._channels, "wav", "float"), gain)
            take.path.unlink()
