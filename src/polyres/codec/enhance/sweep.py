"""Compare enhancers of a codec: level-matched scores, run time, and the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.audio.files import probe, read_audio
from polyres.audio.resample import resample
from polyres.codec.base import MEL, CodecPicture
from polyres.codec.enhance.context import EnhanceContext, MelStatistics, mel_statistics
from polyres.codec.enhance.enhancers import ENHANCERS, Enhancer, enhance, is_informed, time_enhancer
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.core.whole_files import replaced_atomically
from polyres.metrics.reconstruction.levels import gain_db, matched
from polyres.metrics.reconstruction.metrics import score
from polyres.metrics.reconstruction.spectra import RECONSTRUCTION_BANDS_HZ, log_mel_band_distance, log_mel_distance
from polyres.report.figures import check_matplotlib

CODEC_ALONE = "codec"
"""Name of the rows without any enhancer."""

PHASE_FREE_METRICS = ("lsd", "log_mel_l1", "log_mel_l1_high", "mr_stft", "band_error_high", "retention_high")
PHASE_METRICS = ("snr",)
HIGH_ERROR, SPECTRAL_ERROR = "log_mel_l1_high", "lsd"
"""What is traded against each other: error of the high band, and of the whole spectrum."""

DEFAULT_STRENGTHS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class EnhanceOptions:
    """Which enhancers to compare, and how."""

    names: tuple[str, ...]  # of `ENHANCERS`
    strengths: tuple[float, ...] = (1.0,)  # of each
    seed: int = 0  # of everything random
    steps: int = 60  # of gradient descent
    # averages of other signals for enhancers that match some; those of the original where None, which makes their
    # results informed
    typical: MelStatistics | None = None
    networks: Mapping[str, torch.nn.Module] = field(default_factory=dict)  # trained networks by enhancer


@dataclass(frozen=True)
class EnhanceRow:
    """Scores of one enhancer at one strength on one file."""

    file: str
    codec: str
    enhancer: str  # of `ENHANCERS`, or "codec" without any
    strength: float  # of it
    informed: bool  # whether the result depends on the original beyond its latent
    control: bool  # whether it is a trivial baseline
    gain_db: float  # level over that of the original, before levels were matched
    real_time_factor: float  # of the enhancer alone; 0 without any
    scores: dict[str, float]  # of the wave, its level matched to the original's, by name of the metric
    mel_l1: float  # distance of the mel spectra before synthesis, nat
    mel_l1_high: float  # of their bands above 4 kHz

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Enhanced:
    """A row and the sound it is of: `[C, T]` at the rate of the codec, level matched."""

    row: EnhanceRow
    wave: Tensor


def usable_names(chain: Chain, networks: Mapping[str, torch.nn.Module]) -> tuple[str, ...]:
    """List the enhancers that a codec and the trained networks at hand allow.

    Returns:
        Names of `ENHANCERS`.
    """
    entries = [ENHANCERS.build(name) for name in ENHANCERS.names()]
    return tuple(entry.name for entry in entries if _allowed(entry, chain, networks))


def _allowed(entry: Enhancer, chain: Chain, networks: Mapping[str, torch.nn.Module]) -> bool:
    return ("network" not in entry.needs or entry.name in networks) and (entry.domain != "mel" or chain.has_mel)


def check_names(options: EnhanceOptions, chain: Chain) -> None:
    """Refuse enhancers that cannot be run, before anything is.

    Args:
        options: what is to be tried.

    Raises:
        UnknownNameError: if there is no such enhancer.
        ConfigError: if one lacks its network, or the mel spectrogram that it changes.
    """
    for name in options.names:
        entry = ENHANCERS.build(name)
        if "network" in entry.needs and name not in options.networks:
            raise ConfigError(f"enhancer {name!r} needs a trained network; give its weight file with --network")
        if entry.domain == "mel" and not chain.has_mel:
            raise ConfigError(f"enhancer {name!r} changes mel spectra, but {chain.codec.name} decodes to none")


def run_enhancers(
    chain: Chain, excerpt: Excerpt, options: EnhanceOptions, report: Callable[[float], None] | None = None
) -> Iterator[Enhanced]:
    """Run every enhancer at every strength on a piece of a file, after the codec alone.

    Args:
        report: called with the finished share, 0 to 1.

    Raises:
        ConfigError: if an enhancer cannot be run.
    """
    check_names(options, chain)
    latent, reference_mel = chain.encode(excerpt.wave), chain.mel(excerpt.wave)
    target = options.typical or mel_statistics(reference_mel, informed=True)
    context = EnhanceContext(
        seed=options.seed,
        decode=chain.decode_mel,
        mel=chain.mel_config,
        target=target,
        reference_mel=reference_mel,
        steps=options.steps,
    )
    tries: list[tuple[str | None, float]] = [(None, 0.0)]
    tries += [(name, strength) for name in options.names for strength in options.strengths]
    for done, (name, strength) in enumerate(tries):
        if report is not None:
            report(done / len(tries))
        mine = replace(context, network=options.networks.get(name)) if name is not None else context
        yield _try(chain, excerpt, (latent, reference_mel), (name, strength), mine)


def _try(
    chain: Chain,
    excerpt: Excerpt,
    known: tuple[Tensor, Tensor],
    what: tuple[str | None, float],
    context: EnhanceContext,
) -> Enhanced:
    """Run one enhancer at one strength."""
    (latent, reference_mel), (name, strength) = known, what
    decoded, mel = chain.run(name, latent, strength, context)
    reference, estimate = excerpt.wave.flatten(0, 1), decoded.flatten(0, 1).cpu()
    level_db = float(gain_db(reference, estimate))
    estimate = matched(reference, estimate)
    names = (*PHASE_FREE_METRICS, *(PHASE_METRICS if chain.codec.phase_sensitive else ()))
    factor = 0.0
    if name is not None:
        tensor = latent if ENHANCERS.build(name).domain == "latent" else chain.decode_mel(latent).detach()
        # Slow ones are timed once: what is tried repeatedly is quick anyway.
        repeats = 1 if "decode" in ENHANCERS.build(name).needs else 3
        duration_s = excerpt.duration_s * len(latent)
        with torch.no_grad():
            factor = time_enhancer(name, tensor, strength, context, duration_s, repeats).real_time_factor
    row = EnhanceRow(
        file=excerpt.name,
        codec=chain.codec.name,
        enhancer=name or CODEC_ALONE,
        strength=strength,
        informed=name is not None and is_informed(name, context),
        control=name is not None and ENHANCERS.build(name).control,
        gain_db=level_db,
        real_time_factor=factor,
        scores=score(reference, estimate, chain.codec.sample_rate_hz, names),
        mel_l1=float(log_mel_distance(reference_mel, mel)),
        mel_l1_high=float(log_mel_band_distance(reference_mel, mel, chain.mel_config, RECONSTRUCTION_BANDS_HZ["high"])),
    )
    return Enhanced(row, estimate)


def summarise(rows: Sequence[EnhanceRow]) -> list[EnhanceRow]:
    """Take medians over files.

    Args:
        rows: of any number of files.

    Returns:
        One row for every enhancer and strength, in the order they first appear; `file` says of how many files.
    """
    groups: dict[tuple[str, float], list[EnhanceRow]] = {}
    for row in rows:
        groups.setdefault((row.enhancer, row.strength), []).append(row)
    found = []
    for group in groups.values():
        names = group[0].scores
        found.append(
            replace(
                group[0],
                file=f"{len(group)} files",
                informed=any(row.informed for row in group),
                gain_db=median(row.gain_db for row in group),
                real_time_factor=median(row.real_time_factor for row in group),
                scores={name: median(row.scores[name] for row in group) for name in names},
                mel_l1=median(row.mel_l1 for row in group),
                mel_l1_high=median(row.mel_l1_high for row in group),
            )
        )
    return found


def pareto_front(rows: Sequence[EnhanceRow]) -> list[EnhanceRow]:
    """Keep rows that no other beats in both the error of the high band and log-spectral distance.

    Args:
        rows: one for every enhancer and strength.

    Returns:
        The front, from the smallest error of the high band to the smallest log-spectral distance.
    """
    candidates = [row for row in rows if not row.informed]
    ordered = sorted(candidates, key=lambda row: (row.scores[HIGH_ERROR], row.scores[SPECTRAL_ERROR]))
    front: list[EnhanceRow] = []
    for row in ordered:
        if not front or row.scores[SPECTRAL_ERROR] < front[-1].scores[SPECTRAL_ERROR]:
            front.append(row)
    return front


def typical_statistics(chain: Chain, paths: Sequence[Path], seconds: float) -> MelStatistics:
    """Measure other signals, for enhancers that match averages without seeing the original.

    Returns:
        One set of averages over all.

    Raises:
        ConfigError: if there are no files.
        InputError: if a file cannot be used.
    """
    if not paths:
        raise ConfigError("no files to take typical averages of; name at least one")
    frames = [chain.mel(chain.excerpt(path, seconds).wave).flatten(0, 1) for path in paths]
    return mel_statistics(torch.cat(frames)[None], informed=False, pooled=True)


@dataclass(frozen=True)
class Excerpt:
    """A piece of a file as a codec takes it."""

    name: str  # of the file
    wave: Tensor  # `[G, C, T]` float32, groups of channels that are coded together, at rate and level of the codec
    duration_s: float  # of the piece


class Chain(CodecPicture):
    """A codec taken apart: wave, latent, mel spectrogram, wave."""

    def excerpt(self, path: Path, seconds: float, start_s: float | None = None) -> Excerpt:
        """Read a piece of a file.

        Args:
            path: any file with audio in it.
            seconds: of the piece; no more than one window of the codec is taken.
            start_s: where it begins; from the middle of the file where None.

        Returns:
            The piece, cut to whole steps of the codec.

        Raises:
            InputError: if the file cannot be used or the piece is shorter than a step.
        """
        info = probe(path)
        rate_hz, codec = info.sample_rate_hz, self.codec
        wanted = min(seconds, codec.window_samples / codec.sample_rate_hz)
        length = round(wanted * rate_hz)
        middle = max(0, ((info.length_samples or 0) - length) // 2)
        start = middle if start_s is None else round(start_s * rate_hz)
        samples, rate_hz = read_audio(path, start, length)
        wave = torch.from_numpy(resample(samples, rate_hz, codec.sample_rate_hz))
        steps = wave.shape[-1] // codec.hop_samples
        if steps < 8:
            raise InputError(
                f"{path}: {wave.shape[-1] / codec.sample_rate_hz:.2f} s from {start / rate_hz:.2f} s on are too short; "
                f"{8 * codec.hop_samples / codec.sample_rate_hz:.2f} s or more are needed"
            )
        wave = wave[:, : steps * codec.hop_samples]
        wave = self.levelled(wave)
        missing = -wave.shape[0] % codec.audio_channels
        grouped = torch.cat([wave, wave[:1].expand(missing, -1)]).unflatten(0, (-1, codec.audio_channels))
        return Excerpt(path.name, grouped, wave.shape[-1] / codec.sample_rate_hz)

    def run(self, name: str | None, latent: Tensor, strength: float, context: EnhanceContext) -> tuple[Tensor, Tensor]:
        """Decode a latent with an enhancer on the way.

        Args:
            name: of `ENHANCERS`, or None for the codec alone.
            latent: of `encode`.

        Returns:
            Waves `[G, C, T]`, and the log-mel spectrogram `[G, N, M]` before synthesis.

        Raises:
            ConfigError: if the codec has no mel spectrogram and the enhancer needs one.
        """
        domain = None if name is None else ENHANCERS.build(name).domain
        length = latent.shape[2] * self.codec.hop_samples
        if domain == "mel" and not self.has_mel:
            raise ConfigError(f"enhancer {name!r} changes mel spectra, but {self.codec.name} decodes to none")
        with torch.no_grad():
            if name is not None and domain == "latent":
                latent = enhance(name, latent, strength, context)
            if not self.has_mel:
                wave = self.codec.decode(self.named(latent), length)
                return wave, self.mel(wave)
            mel = self.decode_mel(latent)
            if name is not None and domain == "mel":
                mel = enhance(name, mel, strength, context)
            wave = self.codec.from_features({MEL: mel[:, None]}, length)
        return F.pad(wave, (0, length - wave.shape[-1])), mel


def draw_front(rows: Sequence[EnhanceRow], path: Path) -> Path:
    """Draw a line per enhancer through its strengths, and the front of the blind ones.

    Args:
        rows: one for every enhancer and strength.
        path: PNG or SVG file.

    Raises:
        ConfigError: without matplotlib.
        OutputError: if the file cannot be written.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for index, name in enumerate(dict.fromkeys(row.enhancer for row in rows)):
        mine = sorted((row for row in rows if row.enhancer == name), key=lambda row: row.strength)
        across = [row.scores[HIGH_ERROR] for row in mine]
        up = [row.scores[SPECTRAL_ERROR] for row in mine]
        if name == CODEC_ALONE:
            axes.plot(across, up, "k*", markersize=14, label="codec alone", zorder=4)
            continue
        style = ":" if mine[0].informed else "--" if mine[0].control else "-"
        kind = " (sees the original)" if mine[0].informed else " (control)" if mine[0].control else ""
        axes.plot(across, up, style, marker="o", markersize=4, color=f"C{index % 10}", label=name + kind)
        axes.annotate(f"{mine[-1].strength:g}", (across[-1], up[-1]), fontsize=7, color=f"C{index % 10}")
    front = pareto_front(rows)
    axes.plot(
        [row.scores[HIGH_ERROR] for row in front],
        [row.scores[SPECTRAL_ERROR] for row in front],
        "s",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor="black",
        label="best blind trade-offs",
    )
    axes.set_xlabel("error above 4 kHz (log-mel L1, nat); left is better")
    axes.set_ylabel("log-spectral distance (log10 power); down is better")
    axes.set_title("Enhancers at equal level; numbers are the largest strength")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    try:
        with replaced_atomically(path) as temporary:
            figure.savefig(temporary, dpi=120, format=path.suffix.removeprefix("."))
    except OSError as error:
        raise OutputError(f"cannot write '{path}' ({error.strerror}); make room or choose another folder") from error
    return path
