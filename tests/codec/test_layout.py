"""Latents that lie: nothing of them is believed that the codec, the length and the tensors do not bear out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from polyres.codec.latent import Latent
from polyres.codec.load import LoadedCodec
from polyres.core.errors import InputError
from polyres.weights.files import METADATA_KEY
from tests.codec.toy_codec import ToyCodec

Tensors = dict[str, Tensor]
Change = Callable[[dict[str, Any], Tensors], object]


@pytest.fixture(scope="module")
def codec() -> LoadedCodec:
    return LoadedCodec(ToyCodec(), "cpu")


@pytest.fixture(scope="module")
def saved(codec: LoadedCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wave = 0.1 * torch.randn(1, 400, generator=torch.Generator().manual_seed(2))
    return codec.encode(wave, 2000).save(tmp_path_factory.mktemp("z") / "z.safetensors")


def rewritten(saved: Path, out: Path, change: Change) -> Path:
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = change(header, tensors)
    save_file(tensors, out, {METADATA_KEY: text if isinstance(text, str) else json.dumps(header)})
    return out


def put(**values: Any) -> Change:
    return lambda header, tensors: header.update(values)


def tensor(name: str, make: Callable[[Tensor], Tensor]) -> Change:
    return lambda header, tensors: tensors.update({name: make(tensors[name]).contiguous()})


HEADERS: dict[str, Change] = {
    "rate 1e9": put(input_rate_hz=10**9, length_samples=3 * 10**9),
    "rate fits, length not": put(length_samples=3 * 10**9),
    "one step longer": put(length_samples=420),
    "one step shorter": put(length_samples=380),
    "another rate": put(input_rate_hz=1000),
    "two channels": put(channels=2),
    "a billion channels": put(channels=10**9),
    "no channel": put(channels=0),
    "negative length": put(length_samples=-400),
    "boolean": put(channels=True),
    "digits": put(length_samples="400"),
    "whole float": put(input_rate_hz=2000.0),
    "infinity": put(length_samples=float("inf")),
    "nan": put(input_rate_hz=float("nan")),
    "1e308": put(length_samples=1e308),
    "-0.0": put(length_samples=-0.0),
    "null": put(channels=None),
    "list": put(channels=[1]),
    "huge": put(length_samples=10**299),
    "too many digits": lambda header, tensors: json.dumps(header).replace("400", "4" * 5000),
    "rate of another codec": put(sample_rate_hz=2000),
    "no config": put(config=None),
    "list as config": put(config=[1]),
    "fingerprint": put(fingerprint="../../x"),
    "name with line feed": put(codec="toy\nerror: all is well"),
    "empty name": put(codec=""),
    "long name": put(codec="x" * 5000),
    "further key": put(gain=1),
    "missing key": lambda header, tensors: header.pop("channels"),
    "key twice": lambda header, tensors: json.dumps(header)[:-1] + ', "channels": 2}',
    "deep": lambda header, tensors: "[" * 100_000,
    "deep in config": lambda header, tensors: json.dumps(header).replace('"frames"', "[" * 500 + "]" * 500),
    "two megabytes": put(config={"a": "x" * 2**21}),
    "half a character": lambda header, tensors: json.dumps(header).replace('"toy"', r'"\ud800"'),
}
TENSORS: dict[str, Change] = {
    "flat": tensor("z", torch.flatten),
    "doubled": tensor("z", lambda z: torch.cat([z, z])),
    "one row short": tensor("z", lambda z: z[:, :-1]),
    "one step short": tensor("z", lambda z: z[:, :, :-1]),
    "steps three times": tensor("z", lambda z: z.repeat(1, 1, 3)),
    "axes swapped": tensor("z", lambda z: z.transpose(1, 2)),
    "one more axis": tensor("z", lambda z: z[..., None]),
    "empty": tensor("z", lambda z: z[:, :, :0]),
    "float32": tensor("z", lambda z: z.float()),
    "whole numbers": tensor("z", lambda z: z.to(torch.int16)),
    "bfloat16": tensor("z", lambda z: z.to(torch.bfloat16)),
    "nan": tensor("z", lambda z: z * float("nan")),
    "infinity": tensor("z", lambda z: z / 0),
    "absent": lambda header, tensors: tensors.pop("z"),
    "renamed": lambda header, tensors: tensors.update({"y": tensors.pop("z")}),
    "further tensor": lambda header, tensors: tensors.update({"y": tensors["z"].clone()}),
    "mean of another shape": tensor("side.mean", lambda mean: mean[:, :1]),
    "mean of more channels": tensor("side.mean", lambda mean: mean.repeat(2, 1)),
    "scalar mean": tensor("side.mean", lambda mean: mean[0, 0]),
    "no mean": lambda header, tensors: tensors.pop("side.mean"),
    "no side": lambda header, tensors: [tensors.pop(name) for name in list(tensors) if name != "z"],
    "mean 65504": tensor("side.mean", lambda mean: mean * 0 + 65504),
    "peak 65504": tensor("side.log2_peak", lambda peak: peak * 0 + 65504),
    "peak below silence": tensor("side.log2_peak", lambda peak: peak * 0 - 41),
    "infinite peak": tensor("side.log2_peak", lambda peak: peak / 0),
    "swapped": lambda header, tensors: tensors.update(
        {"side.mean": tensors["side.log2_peak"], "side.log2_peak": tensors["side.mean"]}
    ),
    "unknown side": lambda header, tensors: tensors.update({"side.gain": tensors["side.mean"].clone()}),
    "averages of one kind": lambda header, tensors: tensors.update({"side.mel_std": torch.zeros(1, 4).half()}),
    "negative deviation": lambda header, tensors: tensors.update(
        {f"side.mel_{key}": -torch.ones(1, *([4] if key != "level" else [])).half() for key in ("mean", "std", "level")}
    ),
}


@pytest.mark.parametrize("change", [*HEADERS.values(), *TENSORS.values()], ids=[*HEADERS, *TENSORS])
def test_damaged_latents_are_refused_in_one_line_before_anything_is_decoded(
    change: Change, codec: LoadedCodec, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as found:
        codec.decode_blocks(Latent.load(rewritten(saved, tmp_path / "a.safetensors", change)))
    assert re.search("damaged|float16 is needed|at least one tensor|holds no latent", str(found.value))
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 600


def test_an_untouched_copy_decodes(codec: LoadedCodec, saved: Path, tmp_path: Path) -> None:
    again = Latent.load(rewritten(saved, tmp_path / "a.safetensors", put()))
    assert torch.equal(codec.decode(again), codec.decode(Latent.load(saved)))
    averages = {
        "mel_mean": torch.zeros(1, 4).half(),
        "mel_std": torch.ones(1, 4).half(),
        "mel_level": torch.ones(1).half(),
    }
    more = rewritten(
        saved, tmp_path / "b.safetensors", lambda h, t: t.update({f"side.{k}": v for k, v in averages.items()})
    )
    assert torch.equal(codec.decode(Latent.load(more)), codec.decode(again))


def test_messages_say_what_must_be(codec: LoadedCodec, saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "a.safetensors", TENSORS["one row short"])
    with pytest.raises(
        InputError,
        match=r"a.safetensors is damaged \('z' is \[1, 7, 25\]; for 400 samples at 2000 Hz in"
        r" 1 channels it must be \[1, 8, 25\]\); encode the audio again",
    ):
        codec.decode(Latent.load(path))  # fmt: skip


def test_decoding_to_what_is_no_sound_is_refused(saved: Path) -> None:
    codec = LoadedCodec(ToyCodec(), "cpu")
    latent = Latent.load(saved)
    codec.model.to_features = lambda latents: {"frames": latents["z"].repeat_interleave(2, dim=2) * torch.inf}  # type: ignore[method-assign]
    with pytest.raises(InputError, match="decodes to NaN or infinite samples"):
        codec.decode(latent)


@pytest.mark.filterwarnings("ignore:wave has samples up to")
def test_samples_far_beyond_full_scale_are_not_coded(codec: LoadedCodec) -> None:
    with pytest.raises(InputError, match=r"samples reach 6\.\d+e\+07; full scale is 1: divide them"):
        codec.encode(torch.tensor([[1e8, -3e7] * 50]), 1000)
