"""Encode and decode streams in bounded memory: resampling, levelling, windowing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.audio.resample import resampled_length
from polyres.audio.sources import DEFAULT_BLOCK_SAMPLES, BlockSource, Progress, channel_groups, resampled
from polyres.codec.bandwidth import way_out
from polyres.codec.base import Codec, Span
from polyres.codec.enhance.context import MelStatistics
from polyres.codec.latent import Latent, to_half
from polyres.codec.staged.codec import AVERAGES, StagedCodec
from polyres.codec.windows import Runner, Tensors, WindowJoin, WindowPlan
from polyres.core.errors import ConfigError, InputError
from polyres.dsp.input_level import PEAK, InputLevel, InputLevelMeter
from polyres.dsp.overlap import Fifo

MEAN, LOG2_PEAK = "mean", "log2_peak"
"""Side information of codecs that take the level away: per channel its mean, in two parts, and its peak."""

SILENCE_LOG2 = -40.0
"""Peak that stands for silence."""
LOUDEST_LOG2, LOUDEST_MEAN = 24.0, 32_768.0
"""Most that a peak and a mean may be where full scale is 1: those of whole numbers of 24 and of 16 bits."""


@dataclass(frozen=True)
class Measured:
    """Lengths and levels of a source, from the first pass."""

    input_rate_hz: int  # of the input
    channels: int  # of the input
    length_samples: int  # at the rate of the input
    codec_samples: int  # at the rate of the codec
    side: dict[str, Tensor]  # mean and peak as they are stored; empty where the codec leaves the level as it is


def measure(source: BlockSource, codec: Codec) -> Measured:
    """Measure length and level of a whole source in a first pass."""
    meter = InputLevelMeter()
    length = codec_length = 0
    for block, wave in resampled(source, codec.sample_rate_hz, DEFAULT_BLOCK_SAMPLES):
        length += block.shape[-1]
        codec_length += wave.shape[-1]
        meter.push(torch.from_numpy(wave))
    if length == 0:
        raise InputError(f"{source.name}: holds no samples; nothing to code")
    side = _stored_level(meter.level(), source.name) if codec.level == "peak" else {}
    return Measured(source.sample_rate_hz, source.channels, length, codec_length, side)


def _stored_level(level: InputLevel, name: str) -> dict[str, Tensor]:
    """Round a level to what is stored of it."""
    peak = (PEAK / level.gain).clamp_min(2**SILENCE_LOG2)
    if bool((peak > 2**LOUDEST_LOG2).any()) or bool((level.mean.abs() > LOUDEST_MEAN).any()):
        raise InputError(f"{name}: samples reach {float(peak.max()):g}; full scale is 1: divide them")
    mean = to_half(level.mean, MEAN)
    # A mean far above the signal itself needs more digits than one half has.
    rest = to_half(level.mean - mean.double(), MEAN)
    return {MEAN: torch.cat([mean, rest], dim=1), LOG2_PEAK: to_half(peak.log2()[:, 0], LOG2_PEAK)}


def level_from(side: dict[str, Tensor]) -> InputLevel | None:
    """Return the levels stored in the side information, which the encoder uses too; None where none was changed."""
    if MEAN not in side or LOG2_PEAK not in side:
        return None
    return InputLevel(side[MEAN].double().sum(dim=1, keepdim=True), PEAK * (-side[LOG2_PEAK].double()[:, None]).exp2())


def step_count(codec: Codec, codec_samples: int) -> int:
    """Steps of the latents for a signal."""
    return -(-codec_samples // codec.hop_samples)


def window_plan(codec: Codec, steps: int, fades: bool) -> WindowPlan:
    """Lay out the windows of a codec over a file."""
    context = -(-codec.context_samples // codec.hop_samples)
    return WindowPlan(steps, codec.window_samples // codec.hop_samples, context, context // 2 if fades else 0)


def run_encoder(
    source: BlockSource,
    codec: Codec,
    found: Measured,
    runner: Runner,
    progress: Progress | None = None,
    fades: bool = False,
) -> Iterator[Tensors]:
    """Run a function on windows at the codec's rate and level and join its tensors, in all the steps of the source."""
    level, hop = level_from(found.side), codec.hop_samples
    steps = step_count(codec, found.codec_samples)
    plan = window_plan(codec, steps, fades)
    join = WindowJoin(runner, plan, CountUp(progress, plan.count))
    fifo, read, done = Fifo(), 0, 0
    for block, wave in resampled(source, codec.sample_rate_hz, DEFAULT_BLOCK_SAMPLES):
        read += block.shape[-1]
        if read > found.length_samples:
            break
        fifo.push(level.apply(torch.from_numpy(wave)).numpy() if level is not None else wave)
        if count := fifo.length // hop:
            done += count
            yield from join.push({"wave": _grouped(torch.from_numpy(fifo.take(count * hop)), codec)}, count)
    if read != found.length_samples:
        raise InputError(f"{source.name}: changed while it was read; try again when nothing writes to it")
    if fifo.length:
        last = F.pad(torch.from_numpy(fifo.take(fifo.length)), (0, steps * hop - found.codec_samples))
        yield from join.push({"wave": _grouped(last, codec)}, steps - done)


def encode_blocks(
    source: BlockSource, codec: Codec, found: Measured, progress: Progress | None = None
) -> Iterator[Tensors]:
    """Encode a source window by window to float16 latents, to be joined along axis 2."""

    def run(window: Tensors) -> Tensors:
        with torch.no_grad():
            return {name: to_half(z, name) for name, z in codec.encode(window["wave"].to(codec.device)).items()}

    yield from run_encoder(source, codec, found, run, progress)


def decode_blocks(
    latents: Iterable[Tensors], codec: Codec, found: Measured, progress: Progress | None = None
) -> Iterator[Tensor]:
    """Decode latents window by window to blocks `[C, n]` at the input's rate, cross-faded in features and wave."""
    codec = codec.told(found.side)
    waves = _Waves(codec, found)
    steps = step_count(codec, found.codec_samples)
    plan = window_plan(codec, steps, fades=True)
    tick = CountUp(progress, plan.count * (2 if codec.joins_features else 1))
    joins = [WindowJoin(_waves_runner(codec, plan), plan, tick)]
    if codec.joins_features:
        joins.insert(0, WindowJoin(_features_runner(codec), plan, tick))
    rate: int | None = None
    for block in _cut(latents, plan.window):
        count = next(iter(block.values())).shape[2]
        blocks = joins[0].push({name: z.float() for name, z in block.items()}, count)
        if codec.joins_features:
            if rate is None and blocks:
                rate = _feature_rate(blocks, plan)
            done = [piece for one in blocks for piece in joins[1].push(one, _steps_of(one, rate or 1))]
        else:
            done = blocks
        for piece in done:
            yield from waves.push(piece["wave"])
    yield from waves.finish()


def _cut(latents: Iterable[Tensors], steps: int) -> Iterator[Tensors]:
    """Hand over no more steps at a time, so that what they decode to need not be held."""
    for block in latents:
        for start in range(0, next(iter(block.values())).shape[2], steps):
            yield {name: value[:, :, start : start + steps] for name, value in block.items()}


def _feature_rate(blocks: list[Tensors], plan: WindowPlan) -> int:
    """Items of the first feature per step, from the first window."""
    first = next(iter(blocks[0].values())).shape[2]
    steps = plan.total if plan.count == 1 else plan.handover(0) - plan.fade
    return max(1, first // steps)


def _steps_of(block: Tensors, rate: int) -> int:
    return next(iter(block.values())).shape[2] // rate


def _features_runner(codec: Codec) -> Runner:
    def run(window: Tensors) -> Tensors:
        with torch.no_grad():
            given = {name: z.to(codec.device).contiguous() for name, z in window.items()}
            return {name: value.cpu() for name, value in codec.to_features(codec.enhance(given)).items()}

    return run


def _waves_runner(codec: Codec, plan: WindowPlan) -> Runner:
    speak, spans, hop = codec.speaker(), iter(_spans(plan, codec.hop_samples)), codec.hop_samples

    def run(window: Tensors) -> Tensors:
        with torch.no_grad():
            given = {name: value.to(codec.device).contiguous() for name, value in window.items()}
            if codec.joins_features:
                return {"wave": speak(given, next(spans)).cpu()}
            length = next(iter(given.values())).shape[2] * hop
            return {"wave": codec.decode(codec.enhance(given), length).cpu()}

    return run


def _spans(plan: WindowPlan, hop: int) -> Iterator[Span]:
    """Say of every window where it lies, in samples; what was faded in is settled."""
    for number in range(plan.count):
        start, stop = plan.start(number), plan.stop(number)
        settled = plan.handover(number - 1) + plan.fade - start if number else 0
        yield Span(start * hop, (stop - start) * hop, settled * hop)


class _Waves:
    """From decoded waves `[G, C, n]` to samples at the rate, channels, level and length of the input."""

    def __init__(self, codec: Codec, found: Measured) -> None:
        self._codec, self._found = codec, found
        self._level = level_from(found.side)
        rates_hz = codec.sample_rate_hz, found.input_rate_hz
        self._back = way_out(codec.extender(), *rates_hz, found.channels, found.codec_samples)
        self._left_in, self._left_out = found.codec_samples, found.length_samples

    def push(self, waves: Tensor) -> Iterator[Tensor]:
        wave = _ungrouped(waves, self._codec, self._found.channels)[:, : self._left_in]
        self._left_in -= wave.shape[-1]
        if self._level is not None:
            wave = self._level.undo(wave)
        yield from self._out(self._back.push(wave.contiguous().numpy()))

    def finish(self) -> Iterator[Tensor]:
        yield from self._out(self._back.finish())
        if self._left_in or self._left_out:
            raise InputError("latents are missing; they end before the length that they should have; encode again")

    def _out(self, samples: object) -> Iterator[Tensor]:
        done = torch.as_tensor(samples)[:, : self._left_out]
        if not bool(torch.isfinite(done).all()):
            raise InputError("the latent is damaged: it decodes to NaN or infinite samples; encode the audio again")
        self._left_out -= done.shape[-1]
        if done.shape[-1]:
            yield done


def _grouped(wave: Tensor, codec: Codec) -> Tensor:
    """Cut `[C, n]` into groups `[G, audio_channels, n]`; a channel that is left over fills its group."""
    size = codec.audio_channels
    groups = channel_groups(wave.shape[0], size)
    return torch.stack([wave[group.start : group.stop].expand(size, -1) for group in groups])


def _ungrouped(waves: Tensor, codec: Codec, channels: int) -> Tensor:
    """Undo `_grouped`: `[C, n]`; a group that one channel filled gives back the mean of its channels."""
    groups = channel_groups(channels, codec.audio_channels)
    parts = [
        one if len(group) == one.shape[0] else one.mean(dim=0, keepdim=True)
        for one, group in zip(waves, groups, strict=True)
    ]
    return torch.cat(parts)


class CountUp:
    """Called after every window; reports the finished share."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        """Start at 0 of `total` windows."""
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self) -> None:
        """Count one window."""
        self._done += 1
        if self._progress is not None:
            self._progress(min(1.0, self._done / self._total))


RANGES = {
    MEAN: (-LOUDEST_MEAN, LOUDEST_MEAN),
    LOG2_PEAK: (SILENCE_LOG2, LOUDEST_LOG2),
    **dict.fromkeys(AVERAGES, (-64.0, 64.0)),
    AVERAGES[1]: (0.0, 64.0),
}
"""What side information may be."""


def check_layout(latent: Latent, codec: Codec) -> None:
    """Refuse a latent whose counts, shapes or levels the codec cannot have written."""
    if latent.sample_rate_hz != codec.sample_rate_hz:
        raise latent.damaged(f"sample_rate_hz is {latent.sample_rate_hz}; {codec.name} has {codec.sample_rate_hz}")
    groups = len(channel_groups(latent.channels, codec.audio_channels))
    steps = step_count(codec, resampled_length(latent.length_samples, latent.input_rate_hz, codec.sample_rate_hz))
    told = {key: latent.config[key] for key in codec.code_settings if key in latent.config}
    try:
        one = (codec.reconfigured(told) if told else codec).step_shapes()
    except ConfigError as error:
        raise latent.damaged(f"its config: {error}") from error
    _compare(
        latent,
        {name: tuple(value.shape) for name, value in latent.tensors.items()},
        {name: (groups, shape[0], steps * shape[1], *shape[2:]) for name, shape in one.items()},
    )
    side = {MEAN: (latent.channels, 2), LOG2_PEAK: (latent.channels,)} if codec.level == "peak" else {}
    if any(name in latent.side for name in AVERAGES):
        bands = latent.side[AVERAGES[0]].shape[-1:] if AVERAGES[0] in latent.side else (0,)
        side |= dict.fromkeys(AVERAGES[:2], (groups, *bands)) | {AVERAGES[2]: (groups,)}
    _compare(latent, {name: tuple(value.shape) for name, value in latent.side.items()}, side)
    for name, value in latent.side.items():
        _check_range(latent, name, value)


def _compare(latent: Latent, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    for name in dict.fromkeys((*wanted, *found)):
        if found.get(name) != wanted.get(name):
            here, there = (list(shapes[name]) if name in shapes else "absent" for shapes in (found, wanted))
            raise latent.damaged(
                f"{name!r} is {here}; for {latent.length_samples} samples at {latent.input_rate_hz} Hz in "
                f"{latent.channels} channels it must be {there}"
            )


def _check_range(latent: Latent, name: str, value: Tensor) -> None:
    low, high = RANGES[name]
    if not bool(((value >= low) & (value <= high)).all()):
        raise latent.damaged(
            f"{name!r} goes from {float(value.min()):g} to {float(value.max()):g}; {low:g} to {high:g} is possible"
        )


def mel_averages(source: BlockSource, codec: Codec, found: Measured, mel: Callable[[Tensor], Tensor]) -> MelStatistics:
    """Average the log-mel spectra of a source window by window: `[G, M]` and `[G]` for G groups of channels."""

    def run(window: Tensors) -> Tensors:
        return {"mel": mel(window["wave"])[:, None].double().cpu()}

    count, total, squares, power = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for block in run_encoder(source, codec, found, run):
        spectra: Tensor = block["mel"][:, 0]
        count += spectra.shape[1]
        total, squares = total + spectra.sum(dim=1), squares + spectra.square().sum(dim=1)
        power = power + (2 * spectra).exp().sum(dim=(1, 2))
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    level = (power / (count * mean.shape[1])).log() / 2
    device = codec.device
    return MelStatistics(mean.float().to(device), std.float().to(device), level.float().to(device), informed=True)


def measured(source: BlockSource, codec: Codec) -> Measured:
    """Measure lengths, levels and, where latents carry them, averages of a source."""
    found = measure(source, codec)
    if not isinstance(codec, StagedCodec) or not codec.sends_averages:
        return found
    averages = mel_averages(source, codec, found, codec.picture.mel)
    values = (averages.mean, averages.std, averages.level)
    sent = {name: to_half(value, name) for name, value in zip(AVERAGES, values, strict=True)}
    return replace(found, side={**found.side, **sent})
