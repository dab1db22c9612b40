"""What a codec of stages is made of: a codec, and what is done to its latents, its mel spectra and its waves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from polyres.codec.enhance.enhancers import ENHANCERS
from polyres.codec.post_filter import POST_FILTERS
from polyres.core.config import Config
from polyres.core.errors import WeightsError
from polyres.weights.places import EMBEDDED_FOLDER, RUN_FILE, weights_file

EMBEDDED_BAND = "default"
"""Stands for the weights of the bandwidth extension that come with the package."""

STAGE_SETTINGS = ("enhancer", "strength", "post_filter", "bandwidth")
"""Settings of a stage that any codec can be given."""

FILE_SETTINGS = ("vocoder", "bandwidth")
"""Settings that name files; see also `Stages.weight_files`."""

EMBEDDED_BAND_FILE = EMBEDDED_FOLDER / "polyres-bandwidth.safetensors"


class EnhancerStage(Config):
    """An enhancer between encoder and decoder."""

    name: str  # of ENHANCERS
    strength: float = Field(default=1.0, ge=0)  # 0 changes nothing, 1 is the nominal amount
    network: str | None = None  # weights, for those that need them

    @model_validator(mode="after")
    def _usable(self) -> EnhancerStage:
        """Refuse what no decoder could do."""
        entry = ENHANCERS.build(self.name)
        if "reference_mel" in entry.needs:
            raise ValueError(f"{self.name} sees the original, which no decoder has; only 'polyres enhance' can run it")
        if ("network" in entry.needs) != (self.network is not None):
            wanted = "needs" if "network" in entry.needs else "takes no"
            raise ValueError(f"{self.name} {wanted} trained weights (network)")
        return self


class DetailStage(Config):
    """A network that adds detail to decoded mel spectra."""

    weights: str  # of a blind refiner: a file, or a run folder
    strength: float = Field(default=1.0, ge=0)  # 0 changes nothing, 1 adds all that the network says


class PostStage(Config):
    """A filter of decoded waves."""

    name: str  # of POST_FILTERS
    strength: float = Field(default=1.0, ge=0, le=1)  # 0 changes nothing, 1 is the full filter

    @model_validator(mode="after")
    def _known(self) -> PostStage:
        """Refuse names that the catalogue does not have."""
        POST_FILTERS.get(self.name)
        return self


class Stages(Config):
    """A codec and the stages behind it, in order; those left out are not run."""

    codec: str = "default"  # name or path of the coarse codec
    settings: dict[str, Any] = Field(default_factory=dict)  # what of its config is to be otherwise
    enhancer: EnhancerStage | None = None  # of latents, or of decoded mel spectra, as the enhancer's domain says
    detail: DetailStage | None = None  # network that refines decoded mel spectra
    post_filters: tuple[PostStage, ...] = Field(default=(), max_length=16)  # of decoded waves, in this order
    bandwidth: str | None = None  # weights that make the band above the codec's: `default`, a file, or a run folder
    seed: int = Field(default=0, ge=0, lt=2**63)  # of everything random
    digests: dict[str, str] = Field(default_factory=dict)  # by path, of the weight files above when a latent was coded

    @property
    def weight_files(self) -> list[str]:
        """Paths of all weights but those of the codec and those in the package."""
        found = [self.enhancer.network if self.enhancer else None, self.detail.weights if self.detail else None]
        return [path for path in (*found, self.bandwidth) if path is not None and path != EMBEDDED_BAND]

    def located(self, folder: Path) -> Stages:
        """Return a copy with absolute paths; names of codecs stay names."""

        def full(path: str) -> str:
            return os.path.abspath(folder / os.path.expanduser(path))

        changes: dict[str, Any] = {}
        here = Path(full(self.codec))
        if os.path.isfile(here) or any(os.path.exists(here / inside) for inside in ("vae", "vocoder", RUN_FILE)):
            changes["codec"] = str(here)
        if self.enhancer is not None and self.enhancer.network is not None:
            changes["enhancer.network"] = full(self.enhancer.network)
        if self.detail is not None:
            changes["detail.weights"] = full(self.detail.weights)
        if self.bandwidth not in (None, EMBEDDED_BAND):
            changes["bandwidth"] = full(str(self.bandwidth))
        return self.with_values(changes)

    def checked(self) -> Stages:
        """Return a copy with the digests of all weight files."""
        found = {path: file_digest(path) for path in self.weight_files}
        for path, digest in found.items():
            if self.digests.get(path, digest) != digest:
                raise WeightsError(
                    f"{path} holds other weights ({digest}) than when the latent was coded ({self.digests[path]}); "
                    "bring those back, or decode with --codec and a config of your own"
                )
        return self.with_values({"digests": found})


def file_digest(path: str | Path) -> str:
    """Return 16 hexadecimal digits of the digest of a weight file."""
    source = weights_file(path)
    try:
        return hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise WeightsError(f"there are no weights at {source} ({error.strerror}); check the path") from error


def read_stages(path: Path) -> Stages:
    """Read a file of stages and resolve its paths."""
    return Stages.from_yaml(path).located(path.parent)


def is_stages(values: Mapping[str, Any]) -> bool:
    """Say whether the config of a latent is that of a codec of stages."""
    return isinstance(values.get("stages"), Mapping)


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split settings into those of STAGE_SETTINGS and those of the codec."""
    own = {key: value for key, value in settings.items() if key in STAGE_SETTINGS}
    return own, {key: value for key, value in settings.items() if key not in own}


def with_stages(stages: Stages, settings: Mapping[str, Any]) -> Stages:
    """Return stages with the given settings of STAGE_SETTINGS."""
    changes: dict[str, Any] = {}
    if "enhancer" in settings or "strength" in settings:
        stage = stages.enhancer.to_dict() if stages.enhancer is not None else {}
        name = settings.get("enhancer", stage.get("name"))
        given = {"name": name, "strength": settings.get("strength", stage.get("strength", 1.0))}
        changes["enhancer"] = None if name is None else EnhancerStage.from_dict(given)
    if "post_filter" in settings:
        name = settings["post_filter"]
        changes["post_filters"] = () if name is None else [PostStage(name=name).to_dict()]
    if "bandwidth" in settings:
        changes["bandwidth"] = settings["bandwidth"]
    return stages.with_values(changes)
