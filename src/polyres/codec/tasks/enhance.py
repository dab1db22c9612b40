"""Train enhancers of latents, refiners, autoencoders behind a frozen codec, and bandwidth extension."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from polyres.codec.bandwidth import low_band
from polyres.codec.base import Codec, CodecPicture
from polyres.codec.mel.codec import MelCodec, save_mel_codec
from polyres.codec.networks import build_network, load_network, save_network
from polyres.codec.registry import build_codec
from polyres.codec.tasks.config import MelTrainConfig, ReconstructConfig, write_codec
from polyres.core.errors import TrainingError, WeightsError
from polyres.datasets.layouts import find_tracks
from polyres.datasets.stem_files import most_active_excerpt
from polyres.datasets.stems import StemsDataset
from polyres.datasets.tracks import load_layout_track
from polyres.dsp.mel import mel_centres_hz
from polyres.nn.losses import MultiResolutionStft, PerceptualDistance
from polyres.training.loading import Prepare, SegmentSource
from polyres.training.task import Forward, resolve_roots
from polyres.weights.files import fill

if TYPE_CHECKING:
    from polyres.codec.tasks.wave import CodecTrainConfig

HIGH_BAND_HZ = 4000.0
KINDS = {"learned_enhancer": "latent_enhancer", "refiner": "mel_refiner", "bandwidth": "bandwidth"}


def unchanged(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Return a batch unchanged."""
    return batch


class MixtureData:
    """Mixtures to train and to validate on, as a recipe names them."""

    def __init__(self, config: ReconstructConfig | MelTrainConfig | CodecTrainConfig) -> None:
        self.config = config
        paths = resolve_roots(tuple(root.path for root in config.data.roots), config.data_dir)
        roots = [{**root.to_dict(), "path": path} for root, path in zip(config.data.roots, paths, strict=True)]
        self.source = StemsDataset(config.data.with_values({"roots": roots, "seed": config.seed}))
        valid, sources = config.valid, config.data.sources
        self.files = [
            track
            for root in resolve_roots(valid.roots, config.data_dir)
            for track in find_tracks(root, valid.layout, valid.split, sources)
        ]
        self._excerpts: list[Tensor] | None = None

    def excerpts(self) -> list[Tensor]:
        """Return the busiest excerpt `[1, C, T]` of every validation track, as long as training segments by default."""
        if self._excerpts is None:
            self._excerpts = list(self._load())
        return self._excerpts

    def _load(self) -> Iterator[Tensor]:
        data, valid = self.config.data, self.config.valid
        for files in self.files:
            stems = load_layout_track(files, data.sources, data.sample_rate_hz, data.audio_channels)
            length = data.segment_samples
            if valid.max_seconds is not None:
                length = round(valid.max_seconds * data.sample_rate_hz)
            stems = most_active_excerpt(stems, length, data.sample_rate_hz)
            yield stems.sum(dim=0)[None].clone()


class Pool:
    """Mixtures that are read and coded when they are first asked for, and kept."""

    def __init__(self, source: StemsDataset, items: int, code: Callable[[Tensor], Tensor]) -> None:
        """Wrap a data set of stems: its first `items` mixtures `[C, T]` as `code` gives them."""
        self._source, self._items, self._code = source, items, code
        self._coded: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Return the number of mixtures."""
        return self._items

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the pool is the same in every epoch."""

    def __getitem__(self, index: int) -> Tensor:
        """Return a coded mixture."""
        if index not in self._coded:
            self._coded[index] = self._code(self._source[index].sum(dim=0))
        return self._coded[index]


class MixtureTask:
    """What all tasks on mixtures share: data, warnings, norms of gradients."""

    data: MixtureData

    @property
    def warnings(self) -> list[str]:
        """One line for each track of the training data with stems that are padded."""
        return self.data.source.warnings

    def build_source(self) -> SegmentSource:
        """Return the training segments."""
        return self.data.source

    def describe(self, model: nn.Module) -> dict[str, Any]:
        """Return nothing: such a model has no parts of interest."""
        return {}

    def gradient_norms(self, model: nn.Module) -> dict[str, float]:
        """Return the L2 norm of all gradients under `all`; nothing where there are none."""
        gradients = [parameter.grad.detach() for parameter in model.parameters() if parameter.grad is not None]
        return {"all": float(torch.stack(torch._foreach_norm(gradients)).norm())} if gradients else {}


class MelTask(MixtureTask):
    """Trains what changes latents or mel spectra of a frozen codec, or the autoencoder in it."""

    def __init__(self, config: ReconstructConfig) -> None:
        self.config = config
        try:
            self.codec: Codec = build_codec(config.codec)
        except WeightsError as error:
            raise TrainingError(f"codec is {config.codec!r}: {error}") from error
        self.codec.requires_grad_(False)
        self.picture = CodecPicture(self.codec)
        if not self.picture.has_mel:
            raise TrainingError(f"codec is {config.codec!r}, which decodes to no mel spectrogram; name one that does")
        self._check_data()
        self.data = MixtureData(config)
        self._high = mel_centres_hz(self.picture.mel_config) >= HIGH_BAND_HZ
        self._channels = 1
        if config.task == "learned_enhancer":
            silence = torch.zeros(1, self.codec.audio_channels, 16 * self.codec.hop_samples)
            self._channels = self.picture.encode(silence).shape[1]

    def _check_data(self) -> None:
        data, codec = self.config.data, self.codec
        for key in ("sample_rate_hz", "audio_channels"):
            wanted, given = getattr(codec, key), getattr(data, key)
            if wanted != given:
                raise TrainingError(f"data.{key} is {given} but {codec.name} takes {wanted}; make them equal")
        if data.segment_samples % codec.hop_samples or data.segment_samples > codec.window_samples:
            raise TrainingError(
                f"data.segment_samples is {data.segment_samples}; {codec.name} takes multiples of {codec.hop_samples} "
                f"up to {codec.window_samples}"
            )

    def build_model(self) -> nn.Module:
        """Return the network with its first weights, or those of `init`."""
        kind, settings = KINDS[self.config.task], self.config.network.with_values({"channels": self._channels})
        model = build_network(kind, settings.to_dict(), self.config.seed)
        if self.config.init is not None:
            start_network(model, self.config.init, kind)
        return model

    def build_prepare(self) -> Prepare:
        """Return the identity: random mixing is the only augmentation."""
        return unchanged

    def losses(self, forward: Forward, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare mel spectra of mixtures of stems `[B, S, C, T]` with what the codec and the model make of them."""
        return self._distance(*self.run(forward, batch.sum(dim=1)))

    def _distance(self, estimate: Tensor, reference: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the distance of mel spectra, high bands counted once more, and its parts."""
        apart = (estimate - reference).abs()
        whole, high = apart.mean(), apart[..., self._high.to(apart.device)].mean()
        total = whole + self.config.high_weight * high
        return total, {"log_mel_l1": whole.detach(), "log_mel_l1_high": high.detach()}

    def run(self, forward: Forward, mix: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct mixtures `[B, C, T]`: mel spectra `[B, N, M]` as decoded and changed, and of the mixtures."""
        picture = self.picture
        if picture.codec.device != mix.device:
            picture.codec.to(mix.device)
        wave = picture.levelled(mix)
        reference, latent = picture.mel(wave), picture.encode(wave)
        if self.config.task == "learned_enhancer":
            return picture.decode_mel(latent + forward(latent)), reference
        with torch.no_grad():
            coarse = picture.decode_mel(latent)
        added = forward(coarse, reference) if self.config.network.informed else forward(coarse)
        return coarse + added, reference

    def validate(self, forward: Forward) -> dict[str, float]:
        """Return mean distances on the validation tracks; the score is the negative of what is minimised."""
        return validated(self.data.excerpts(), lambda mix: self._validate_one(forward, mix))

    def _validate_one(self, forward: Forward, mix: Tensor) -> dict[str, float]:
        hop, most = self.codec.hop_samples, self.codec.window_samples
        mix = mix[..., : min(mix.shape[-1] // hop * hop, most)].to(self.codec.device)
        total, terms = self._distance(*self.run(forward, mix))
        return {"score": -float(total), **{name: float(value) for name, value in terms.items()}}

    def export(self, model: nn.Module, path: Path, card: Mapping[str, Any]) -> None:
        """Write weights that `polyres enhance --network` reads."""
        save_network(KINDS[self.config.task], model, path, {**card, "codec": self.config.codec})


class Trainee(nn.Module):
    """The autoencoder of a codec as a model to train."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder: Any = copy.deepcopy(autoencoder).requires_grad_(True)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Code mel spectra `[B, 1, N, M]`, sampling latents in training; return them decoded, and the divergence."""
        posterior = self.autoencoder.encode(mel).latent_dist
        latent = posterior.sample() if self.training else posterior.mode()
        divergence = posterior.kl().mean() / latent[0].numel()
        return self.autoencoder.decode(latent).sample, divergence


class AutoencoderTask(MelTask):
    """Fine-tunes the autoencoder of a codec for reconstruction."""

    def __init__(self, config: ReconstructConfig) -> None:
        super().__init__(config)
        autoencoder: Any = getattr(self.codec, "autoencoder", None)
        if not hasattr(autoencoder, "encoder"):
            raise TrainingError(f"codec is {config.codec!r}, which has no autoencoder of mel spectra to fine-tune")
        self._first: nn.Module = autoencoder
        self._perceptual: PerceptualDistance | None = None
        if config.perceptual_weight:
            names = [name for name, _ in autoencoder.encoder.named_children() if name in ("conv_in", "mid_block")]
            blocks = [f"down_blocks.{index}" for index in range(len(autoencoder.encoder.down_blocks))]
            self._perceptual = PerceptualDistance(autoencoder.encoder, [*names, *blocks])

    def build_model(self) -> nn.Module:
        """Return the autoencoder as the codec has it."""
        return Trainee(self._first)

    def losses(self, forward: Forward, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare mel spectra of mixtures with what the autoencoder makes of them."""
        reference = self.picture.mel(self.picture.levelled(batch.sum(dim=1)).to(batch.device)).to(batch.device)
        decoded, divergence = forward(reference[:, None])
        total, terms = self._distance(decoded[:, 0], reference)
        total = total + self.config.kl_weight * divergence
        terms["kl"] = divergence.detach()
        if self._perceptual is not None:
            apart = self._perceptual.to(batch.device)(decoded, reference[:, None])
            total, terms["perceptual"] = total + self.config.perceptual_weight * apart, apart.detach()
        return total, terms

    def run(self, forward: Forward, mix: Tensor) -> tuple[Tensor, Tensor]:
        """Code mixtures `[B, C, T]`; see `MelTask.run`."""
        reference = self.picture.mel(self.picture.levelled(mix))
        decoded, _ = forward(reference[:, None])
        return decoded[:, 0].to(reference.device), reference

    def export(self, model: nn.Module, path: Path, card: Mapping[str, Any]) -> None:
        """Write a codec that `polyres reconstruct --codec` reads: a file of ours, or the folder `codec` beside it."""
        autoencoder, about = cast(Trainee, model).autoencoder, {**card, "codec": self.config.codec}
        if not isinstance(self.codec, MelCodec):
            write_codec(autoencoder, cast(Any, self.codec).vocoder, path, about)
            return
        tuned = self.codec.reconfigured({})
        tuned.autoencoder = autoencoder
        save_mel_codec(tuned, path, about)


def start_network(model: nn.Module, name: str, kind: str) -> None:
    """Load the weights that `init` names into a network."""
    try:
        fill(model, load_network(name, (kind,)).module.state_dict(), name)
    except WeightsError as error:
        raise TrainingError(f"init is {name!r}: {error}") from error


@torch.no_grad()
def validated(excerpts: list[Tensor], one: Callable[[Tensor], dict[str, float]]) -> dict[str, float]:
    """Average the scores of excerpts `[1, C, T]`; empty without any."""
    rows = [one(excerpt) for excerpt in excerpts]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


TILT_FROM_HZ = 1000.0


def tilted(most_db_per_octave: float, sample_rate_hz: int, batch: Tensor, generator: torch.Generator) -> Tensor:
    """Tilt the spectra of a batch `[B, ..., T]` above 1 kHz, each item by a random slope."""
    slopes = (2 * torch.rand(len(batch), generator=generator) - 1) * most_db_per_octave
    bins_hz = torch.linspace(0, sample_rate_hz / 2, batch.shape[-1] // 2 + 1)
    octaves = (bins_hz / TILT_FROM_HZ).clamp_min(1).log2()
    gains = 10 ** (slopes.view(-1, *[1] * (batch.ndim - 1)) * octaves / 20)
    spectrum = torch.fft.rfft(batch) * gains.to(batch.device)
    return torch.fft.irfft(spectrum, n=batch.shape[-1])


class BandwidthTask(MixtureTask):
    """Trains the generator of a high band on mixtures of full bandwidth."""

    def __init__(self, config: ReconstructConfig) -> None:
        self.config = config
        self.data = MixtureData(config)
        self._loss = MultiResolutionStft(config.stft_n_fft)

    def build_model(self) -> nn.Module:
        """Return the generator with its first weights, or those of `init`."""
        model = build_network("bandwidth", self.config.bandwidth.to_dict(), self.config.seed)
        if self.config.init is not None:
            start_network(model, self.config.init, "bandwidth")
        return model

    def build_prepare(self) -> Prepare:
        """Return the augmentation: random spectral tilts above 1 kHz."""
        most = self.config.tilt_db_per_octave
        if most == 0:
            return unchanged
        return partial(tilted, most, self.config.data.sample_rate_hz)

    def losses(self, forward: Forward, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare spectra of mixtures of stems `[B, S, C, T]` with those of the extended low bands."""
        distance = self._distance(forward, batch.sum(dim=1))
        return distance, {"stft": distance.detach()}

    def _distance(self, forward: Forward, full: Tensor) -> Tensor:
        extended = forward(low_band(full, self.config.bandwidth))
        return self._loss.to(full.device)(extended[:, None], full.to(extended.device)[:, None]).mean()

    def validate(self, forward: Forward) -> dict[str, float]:
        """Return the mean distance on the validation tracks, and that of the low band alone."""

        def one(full: Tensor) -> dict[str, float]:
            found = float(self._distance(forward, full))
            return {"score": -found, "stft": found, "stft_low_band": float(self._distance(lambda skip: skip, full))}

        return validated(self.data.excerpts(), one)

    def export(self, model: nn.Module, path: Path, card: Mapping[str, Any]) -> None:
        """Write weights that `load_network` reads."""
        save_network(KINDS["bandwidth"], model, path, card)
