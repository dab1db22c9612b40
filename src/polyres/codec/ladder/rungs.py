"""The rungs of the ladder, and the excerpt that they are run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.audio.files import probe, read_audio
from polyres.audio.resample import resample
from polyres.codec.bandwidth import BandwidthExtender, extend
from polyres.codec.base import MEL, Codec
from polyres.codec.enhance.context import EnhanceContext, mel_statistics
from polyres.codec.enhance.enhancers import ENHANCERS, is_informed
from polyres.codec.enhance.sweep import Chain, usable_names
from polyres.core.catalogue import Catalogue
from polyres.core.errors import InputError
from polyres.dsp.framing import FrameTransform
from polyres.dsp.input_level import InputLevel, level_of
from polyres.dsp.mel import linear_magnitude, log_mel_to_linear, mel_framing
from polyres.dsp.phase import PHASE_METHODS, reconstruct_framed

LEAST_STEPS = 8


@dataclass(frozen=True)
class Piece:
    """A piece of a file, at rate and level of a codec."""

    name: str  # of the file
    reference: Tensor  # `[C, T]` float32, T a multiple of the codec's hop
    grouped: Tensor  # the same `[G, c, T]`, in groups of channels that the codec codes together
    level: InputLevel | None  # what was taken away of mean and peak; None for codecs that take files as they are
    source: Tensor  # `[C, L]` float32 at the rate of the file
    source_rate_hz: int  # of the file

    def at(self, rate_hz: int) -> Tensor:
        """Return the piece at another rate, `[C, L']`, at the level of the codec."""
        wave = torch.from_numpy(resample(self.source.numpy(), self.source_rate_hz, rate_hz))
        return wave if self.level is None else self.level.apply(wave)


def read_piece(path: Path, codec: Codec, seconds: float) -> Piece:
    """Read the middle of a file.

    Args:
        path: any file with audio in it.
        codec: what is to be taken apart.
        seconds: of the piece; one window of the codec at most.

    Returns:
        The piece, cut to whole steps of the codec.

    Raises:
        InputError: if the file cannot be used or is shorter than 8 steps.
    """
    info = probe(path)
    length = round(min(seconds, codec.window_samples / codec.sample_rate_hz) * info.sample_rate_hz)
    start = max(0, ((info.length_samples or 0) - length) // 2)
    samples, rate_hz = read_audio(path, start, length)
    return piece_of(torch.from_numpy(samples), rate_hz, codec, path.name)


def piece_of(samples: Tensor, sample_rate_hz: int, codec: Codec, name: str) -> Piece:
    """Bring a waveform `[C, L]` of at most one window to rate and level of a codec, cut to whole steps."""
    wave = torch.from_numpy(resample(samples.numpy(), sample_rate_hz, codec.sample_rate_hz))
    steps = min(wave.shape[-1], codec.window_samples) // codec.hop_samples
    if steps < LEAST_STEPS:
        least_s = LEAST_STEPS * codec.hop_samples / codec.sample_rate_hz
        raise InputError(
            f"{name}: {wave.shape[-1] / codec.sample_rate_hz:.2f} s are too short for {codec.name}; "
            f"{least_s:.2f} s or more are needed (a longer file, or more --seconds)"
        )
    wave = wave[:, : steps * codec.hop_samples]
    level = level_of(wave) if codec.level == "peak" else None
    wave = wave if level is None else level.apply(wave)
    missing = -wave.shape[0] % codec.audio_channels
    grouped = torch.cat([wave, wave[:1].expand(missing, -1)]).unflatten(0, (-1, codec.audio_channels))
    return Piece(name, wave, grouped, level, samples, sample_rate_hz)


PHASE_METHOD, PHASE_ITERATIONS = "pghi+fgla", 32
WRONG_TURNS = ("decibel_front_end", "transposed_layout", "doubled_scaling", "sampled_latent")
"""Variants of a codec that are mistakes, kept as controls."""
SLOW_ENHANCERS = ("optimise",)
"""Left to `polyres enhance`: gradient descent on every file."""


@dataclass(frozen=True)
class Take:
    """Output of a rung."""

    label: str  # tells takes of one rung apart; empty where there is one
    wave: Tensor | None  # `[C, T]`, at the level of the codec; None for rungs that end at a mel spectrogram
    mel: Tensor | None = None  # log-mel spectrogram `[C, N, M]` of a rung without a wave
    reference: Tensor | None = None  # what to compare the wave with where that is not the piece itself
    sample_rate_hz: int | None = None  # of wave and reference, where it is not the codec's
    remark: str = ""  # what to know about it


@dataclass(frozen=True)
class Workshop:
    """The inputs of all rungs."""

    chain: Chain  # the codec taken apart
    bandwidth: BandwidthExtender | None = None  # a trained generator of the band above the codec's, if there is one
    seed: int = 0  # of everything random

    @property
    def codec(self) -> Codec:
        """The codec."""
        return self.chain.codec

    @property
    def speaking(self) -> Codec:
        """The codec with its own vocoder, whatever phase method it was set to."""
        codec = self.codec
        return codec.reconfigured({"synthesis": "vocoder"}) if codec.config.synthesis in PHASE_METHODS else codec


@dataclass(frozen=True)
class Rung:
    """One step of the ladder."""

    name: str  # R0 to R10
    title: str  # what is done
    keeps: str  # what survives
    loses: str  # what does not
    # whether the phase of the original is "kept", "made up", or as the "codec" has it
    phase: Literal["kept", "made up", "codec"]
    after: tuple[str, ...]  # rungs whose loss this one comes on top of; the first that was run counts
    counts: bool  # whether it is a part of the chain, not a control or a remedy
    missing: Callable[[Workshop], str | None]  # why a codec has no such rung; None where it has
    run: Callable[[Workshop, Piece], Iterator[Take]]  # makes the takes

    def phase_free(self, codec: Codec) -> bool:
        """Say whether the phase is made up, so that waveforms must not be compared sample by sample."""
        return self.phase == "made up" or (self.phase == "codec" and not codec.phase_sensitive)


RUNGS: Catalogue[Rung] = Catalogue("rung")
"""Rungs by name, from the bottom up; `RUNGS.build(name)` returns the `Rung`."""


def _flat(wave: Tensor, piece: Piece) -> Tensor:
    """Bring `[G, C, T]` to the channels and the length of the piece."""
    length = piece.reference.shape[-1]
    wave = F.pad(wave[..., :length], (0, max(0, length - wave.shape[-1])))
    return wave.flatten(0, 1)[: piece.reference.shape[0]].detach().float().cpu()


def _always(shop: Workshop) -> str | None:
    return None


def _needs_mel(shop: Workshop) -> str | None:
    return None if shop.chain.has_mel else f"{shop.codec.name} has no mel spectrogram"


def _levels(shop: Workshop, piece: Piece) -> Iterator[Take]:
    wave = piece.reference
    yield Take("", wave if piece.level is None else piece.level.apply(piece.level.undo(wave)))


def _complex(shop: Workshop, piece: Piece) -> Iterator[Take]:
    framing = mel_framing(shop.chain.mel_config, piece.reference.shape[-1])
    transform = FrameTransform(framing, piece.reference.dtype)
    yield Take("", transform.synthesise(transform.analyse(piece.reference)))


def _speak_magnitude(shop: Workshop, piece: Piece, magnitude: Tensor) -> Tensor:
    framing = mel_framing(shop.chain.mel_config, piece.reference.shape[-1])
    return reconstruct_framed(magnitude, PHASE_METHOD, framing, PHASE_ITERATIONS, shop.seed)


def _magnitude(shop: Workshop, piece: Piece) -> Iterator[Take]:
    yield Take("", _speak_magnitude(shop, piece, linear_magnitude(piece.reference, shop.chain.mel_config)))


def _speak_mel(shop: Workshop, piece: Piece, mel: Tensor) -> Tensor:
    """Speak `[G, N, M]` by a phase method."""
    magnitude = log_mel_to_linear(mel.float().cpu(), shop.chain.mel_config)
    return _flat(_speak_magnitude(shop, piece, magnitude)[:, None], piece)


def _mel_phase(shop: Workshop, piece: Piece) -> Iterator[Take]:
    yield Take("", _speak_mel(shop, piece, shop.chain.mel(piece.grouped)))


def _vocode(shop: Workshop, piece: Piece, mel: Tensor) -> Tensor:
    length = piece.reference.shape[-1]
    return _flat(shop.speaking.from_features({MEL: mel[:, None]}, length), piece)


def _mel_vocoder(shop: Workshop, piece: Piece) -> Iterator[Take]:
    yield Take("", _vocode(shop, piece, shop.chain.mel(piece.grouped)))


def _decoded_mel(shop: Workshop, piece: Piece) -> Tensor:
    return shop.chain.decode_mel(shop.chain.encode(piece.grouped))


def _autoencoder(shop: Workshop, piece: Piece) -> Iterator[Take]:
    yield Take("", None, mel=_decoded_mel(shop, piece).float().cpu())


def _whole(shop: Workshop, piece: Piece) -> Iterator[Take]:
    if shop.chain.has_mel:
        yield Take("", _vocode(shop, piece, _decoded_mel(shop, piece)))
    else:
        yield Take("", _flat(_through(shop.codec, piece), piece))


def _through(codec: Codec, piece: Piece) -> Tensor:
    """Encode and decode, latents stored in 16 bits as in files."""
    wave = piece.grouped.to(codec.device)
    latents = {name: value.half().float() for name, value in codec.encode(wave).items()}
    return codec.decode(latents, wave.shape[-1])


def _autoencoder_phase(shop: Workshop, piece: Piece) -> Iterator[Take]:
    yield Take("", _speak_mel(shop, piece, _decoded_mel(shop, piece)))


def _needs_wrong_turns(shop: Workshop) -> str | None:
    known = any(name in shop.codec.variants for name in WRONG_TURNS)
    return None if known else f"{shop.codec.name} has no wrong turns among its variants"


def _wrong_turns(shop: Workshop, piece: Piece) -> Iterator[Take]:
    for name in WRONG_TURNS:
        if name in shop.codec.variants:
            wrong = shop.speaking.reconfigured(shop.codec.variants[name])
            yield Take(name, _flat(wrong.decode(wrong.encode(piece.grouped.to(wrong.device)), _length(piece)), piece))


def _length(piece: Piece) -> int:
    return piece.reference.shape[-1]


def _enhancers(shop: Workshop, piece: Piece) -> Iterator[Take]:
    chain = Chain(shop.speaking)
    latent, mel = chain.encode(piece.grouped), chain.mel(piece.grouped)
    target = mel_statistics(mel, informed=True)
    context = EnhanceContext(seed=shop.seed, decode=chain.decode_mel, mel=chain.mel_config, target=target)
    for name in usable_names(chain, {}):
        entry = ENHANCERS.build(name)
        if name in SLOW_ENHANCERS or "reference_mel" in entry.needs:
            continue
        wave, _ = chain.run(name, latent, 1.0, context)
        words = [*(["trivial control"] if entry.control else []), *(["sees the original"] * is_informed(name, context))]
        yield Take(name, _flat(wave, piece), remark=", ".join(words))


def _needs_bandwidth(shop: Workshop) -> str | None:
    if shop.bandwidth is None:
        return "no weights (a trained generator of the band above the codec's: --bandwidth FILE)"
    rate_hz = shop.bandwidth.config.sample_rate_hz
    if rate_hz <= shop.codec.sample_rate_hz:
        return f"the generator works at {rate_hz} Hz, which is not above the codec's {shop.codec.sample_rate_hz} Hz"
    cutoff_hz = shop.bandwidth.config.cutoff_hz
    if cutoff_hz > shop.codec.sample_rate_hz / 2:
        return f"the generator listens up to {cutoff_hz:g} Hz, more than the codec has"
    return None


def _bandwidth(shop: Workshop, piece: Piece) -> Iterator[Take]:
    network, codec = shop.bandwidth, shop.codec
    if network is None:
        return
    rate_hz = network.config.sample_rate_hz
    reference = piece.at(rate_hz)
    decoded = next(_whole(shop, piece)).wave
    if decoded is None:
        return
    skip = torch.from_numpy(resample(decoded.numpy(), codec.sample_rate_hz, rate_hz))
    length = min(skip.shape[-1], reference.shape[-1])
    skip, reference = skip[:, :length], reference[:, :length]
    device = next(nn.Module.parameters(network)).device
    extended = extend(network, skip[None].to(device))[0].detach().cpu()
    remark = f"scored at {rate_hz} Hz"
    yield Take("without", skip, reference=reference, sample_rate_hz=rate_hz, remark=remark)
    yield Take("extended", extended, reference=reference, sample_rate_hz=rate_hz, remark=remark)


def _register_all() -> None:
    """Register the rungs from the bottom up."""
    made = "phase, which is made up"
    for rung in (
        Rung("R0", "level taken and given back", "everything", "nothing", "kept", (), True, _always, _levels),
        Rung("R1", "complex STFT and back", "everything", "rounding", "kept", ("R0",), True, _always, _complex),
        Rung("R2", "exact magnitudes, phase method", "magnitudes", made, "made up", ("R1",), True, _always, _magnitude),
        Rung(
            "R3", "mel, NNLS, phase method", "mel bands", "detail inside mel bands; " + made, "made up",
            ("R2", "R1"), True, _needs_mel, _mel_phase,
        ),
        Rung("R4", "mel, vocoder", "mel bands", "what the vocoder cannot speak; " + made, "made up", ("R1", "R0"), True,
             _needs_mel, _mel_vocoder),
        Rung("R5", "mel, autoencoder, mel", "the latent", "what the latent has no room for", "made up", ("R1", "R0"),
             True, _needs_mel, _autoencoder),
        Rung("R6", "whole codec", "the latent", "all that its parts lose", "codec", ("R5", "R1", "R0"), True, _always,
             _whole),
        Rung("R7", "mel, autoencoder, phase method", "the latent", "as R5, and detail inside mel bands; " + made,
             "made up", ("R5",), True, _needs_mel, _autoencoder_phase),
        Rung("R8", "wrong turns", "what a mistake leaves", "control: must be worse than R6", "codec", ("R6",), False,
             _needs_wrong_turns, _wrong_turns),
        Rung("R9", "enhancers at strength 1", "the latent", "remedy: must be better than R6", "codec", ("R6",), False,
             _needs_mel, _enhancers),
        Rung("R10", "bandwidth extension", "the decoded band", "remedy: what is above it is made up", "made up",
             ("R6",), False, _needs_bandwidth, _bandwidth),
    ):  # fmt: skip
        RUNGS.register(rung.name, rung.title)(lambda rung=rung: rung)


_register_all()
