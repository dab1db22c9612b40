"""A coded file: every number that decoding needs, as float16, in memory and on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, StrictInt
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError, OutputError, WeightsError
from polyres.core.json_text import json_value
from polyres.core.whole_files import replaced_atomically
from polyres.weights.files import METADATA_KEY, one_line, read_metadata, read_tensors

FORMAT = 1
KIND = "latent"
HEADER_NUMBERS = ("input_rate_hz", "channels", "length_samples")
"""Numbers of the header that a decoder reads; they count as stored scalars like all others."""

MOST_HEADER_BYTES = 2**20
RateHz = Annotated[StrictInt, Field(ge=1, le=1_536_000)]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,4096}$")]

_SIDE = "side."  # before the names of tensors without a time axis


class LatentHeader(Config):
    """Header of a latent file; numbers are strict, neither text nor booleans."""

    format: Literal[1]  # of the file
    kind: Literal["latent"]  # what tells latents from weights
    codec: Line  # as `Latent.codec`
    weights_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", alias="fingerprint")]  # as `Latent.fingerprint`
    sample_rate_hz: RateHz  # as `Latent.sample_rate_hz`
    input_rate_hz: RateHz  # as `Latent.input_rate_hz`
    channels: Annotated[StrictInt, Field(ge=1, le=65_535)]  # as `Latent.channels`
    length_samples: Annotated[StrictInt, Field(ge=1, le=2**48)]  # as `Latent.length_samples`
    config: dict[str, Any]  # as `Latent.config`


@dataclass(frozen=True)
class Latent:
    """What a codec keeps of a file."""

    tensors: Mapping[str, Tensor]  # name to `[G, D, N, ...]` float16, G groups of channels, axis 2 is time.
    codec: str  # name of the codec, for `polyres.load_codec`.
    fingerprint: str  # of its config and weights; others cannot decode this
    input_rate_hz: int  # sample rate of the file that was coded, and of what is decoded
    channels: int  # of that file
    length_samples: int  # of that file, at its own rate
    sample_rate_hz: int  # rate at which the codec works
    # numbers without a time axis, float16: mean and peak of each channel where the codec takes them away
    side: Mapping[str, Tensor] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # of the codec, as plain values
    where: str = field(default="the latent", compare=False)  # what it is called in messages: its file, once it has one

    def __post_init__(self) -> None:
        """Refuse what cannot be stored, or cannot have been."""
        try:
            LatentHeader.from_dict(self.header())
        except ConfigError as error:
            raise self.damaged(str(error)) from error
        if not self.tensors:
            raise InputError("a latent needs at least one tensor")
        for name, value in (*self.tensors.items(), *self.side.items()):
            if value.dtype != torch.float16:
                raise InputError(f"tensor {name!r} of a latent is {value.dtype}; float16 is needed (to_half)")
            if not value.numel() or not bool(torch.isfinite(value).all()):
                raise self.damaged(f"tensor {name!r} is empty, or holds NaN or infinity")
        shapes = {name: tuple(value.shape) for name, value in self.tensors.items()}
        if any(len(shape) < 3 for shape in shapes.values()) or len({shape[::2][:2] for shape in shapes.values()}) > 1:
            raise self.damaged(f"its tensors have the shapes {shapes}; [groups, numbers, steps, ...] is needed")

    def damaged(self, reason: str) -> InputError:
        """Return the error for a damaged latent, with what to do."""
        return InputError(f"{self.where} is damaged ({reason}); encode the audio again")

    def header(self) -> dict[str, Any]:
        """Return what the file says beside its tensors; see `LatentHeader`."""
        return {
            "format": FORMAT,
            "kind": KIND,
            "codec": self.codec,
            "fingerprint": self.fingerprint,
            "sample_rate_hz": self.sample_rate_hz,
            "config": dict(self.config),
            **{name: getattr(self, name) for name in HEADER_NUMBERS},
        }

    @property
    def num_scalars(self) -> int:
        """Every number that decoding needs: latents, side information, and rate, channels and length."""
        stored = (*self.tensors.values(), *self.side.values())
        return sum(value.numel() for value in stored) + len(HEADER_NUMBERS)

    @property
    def duration_s(self) -> float:
        """Length of the coded file in seconds."""
        return self.length_samples / self.input_rate_hz

    @property
    def scalars_per_second(self) -> float:
        """Rate of the code."""
        return self.num_scalars / self.duration_s

    def save(self, path: str | Path) -> Path:
        """Write everything to one safetensors file; an older one is replaced only when the new one is complete.

        Raises:
            OutputError: when it cannot be written.
        """
        target = Path(os.path.expanduser(path))
        stored = {**self.tensors, **{_SIDE + name: value for name, value in self.side.items()}}
        tensors = {name: value.detach().cpu().contiguous() for name, value in stored.items()}
        try:
            with replaced_atomically(target) as temporary:
                save_file(tensors, temporary, {METADATA_KEY: json.dumps(self.header(), sort_keys=True)})
        except (OSError, SafetensorError) as error:
            raise OutputError(f"cannot write {target}: {one_line(error)}; choose another place") from error
        return target

    @staticmethod
    def load(path: str | Path) -> Latent:
        """Read a file that `save` wrote.

        Raises:
            InputError: when it is missing, damaged, or no latent.
        """
        source = Path(os.path.expanduser(path))
        header, stored = _read(source)
        if header.get("format") != FORMAT:
            raise InputError(
                f"{source} has format {header.get('format')!r}; this version reads format {FORMAT}; update polyres"
            )
        try:
            checked = LatentHeader.from_dict(header)
        except ConfigError as error:
            raise _damaged(source, error) from error
        return Latent(
            codec=checked.codec,
            fingerprint=checked.weights_digest,
            sample_rate_hz=checked.sample_rate_hz,
            config=checked.config,
            **{name: getattr(checked, name) for name in HEADER_NUMBERS},
            tensors={name: value for name, value in stored.items() if not name.startswith(_SIDE)},
            side={name.removeprefix(_SIDE): v for name, v in stored.items() if name.startswith(_SIDE)},
            where=str(source),
        )


def to_half(values: Tensor, name: str) -> Tensor:
    """Round to float16 on the CPU, as it is stored."""
    half = values.detach().to("cpu", torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise InputError(f"{name} holds NaN or values beyond 65504, which float16 cannot hold; the codec is broken")
    return half


def _read(source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read header and tensors."""
    try:
        metadata = read_metadata(source)
        header = json_value(metadata.get(METADATA_KEY, "{}"), most_bytes=MOST_HEADER_BYTES)
        if not isinstance(header, dict) or header.get("kind") != KIND:
            raise InputError(f"{source} holds no latent; give a file written by 'polyres encode'")
        return header, read_tensors(source)
    except WeightsError as error:
        raise InputError(str(error).replace("weight file", "latent file")) from error
    except ValueError as error:
        raise _damaged(source, error) from error


def _damaged(source: Path, error: Exception) -> InputError:
    return InputError(f"{source} is damaged: its header cannot be used ({one_line(error)}); encode the audio again")
