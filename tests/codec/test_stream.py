"""Latents that lie: nothing of them is believed that the codec, the length and the tensors do not bear out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from polyres.codec.latent import Latent
from polyres.codec.load import LoadedCodec
from polyres.codec.windows import Tensors, WindowJoin, WindowPlan
from polyres.core.errors import ConfigError, InputError
from polyres.weights.files import METADATA_KEY
from tests.codec.toy_codec import ToyCodec

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


def smooth(tensors: Tensors) -> Tensors:
    """A filter that reaches 3 steps to each side, with 2 items per step going out."""
    kernel = torch.tensor([1.0, 2, 3, 4, 3, 2, 1]).reshape(1, 1, -1) / 16
    return {"y": F.conv1d(tensors["x"], kernel, padding=3).repeat_interleave(2, dim=2)}


def streamed(plan: WindowPlan, x: torch.Tensor, cuts: list[int], runner=smooth) -> torch.Tensor:  # type: ignore[no-untyped-def]
    join = WindowJoin(runner, plan)
    edges = [0, *sorted({cut % plan.total for cut in cuts} - {0}), plan.total]
    rate = x.shape[2] // plan.total
    parts = []
    for low, high in pairwise(edges):
        parts += join.push({"x": x[:, :, low * rate : high * rate]}, high - low)
    return torch.cat([part["y"] for part in parts], dim=2)


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(1, 120),
    context=st.integers(3, 9),
    core=st.integers(1, 20),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    data=st.data(),
)
def test_windows_with_enough_context_leave_no_trace(
    total: int, context: int, core: int, cuts: list[int], data: st.DataObject
) -> None:
    fade = data.draw(st.integers(0, context - 3))
    plan = WindowPlan(total, core + 2 * context, context, fade)
    x = torch.randn(2, 1, total, generator=torch.Generator().manual_seed(total))
    assert torch.allclose(streamed(plan, x, cuts), smooth({"x": x})["y"], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 300), context=st.integers(0, 9), core=st.integers(1, 30))
def test_plans_cover_everything_with_context(total: int, context: int, core: int) -> None:
    plan = WindowPlan(total, core + 2 * context, context)
    assert plan.start(0) == 0
    assert plan.stop(plan.count - 1) == total
    low = 0
    for number in range(plan.count):
        high = plan.handover(number)
        assert plan.stop(number) - plan.start(number) == min(total, plan.window)
        assert low == 0 or low - plan.start(number) >= context
        assert high == total or plan.stop(number) - high >= context
        assert high > low or high == total
        low = high


def test_the_fade_goes_from_one_window_to_the_next_by_equal_steps() -> None:
    number = iter(range(10))
    plan = WindowPlan(12, 8, 2, 2)
    runner = lambda tensors: {"y": torch.full((1, 1, tensors["x"].shape[2]), float(next(number)))}  # noqa: E731
    y = streamed(plan, torch.zeros(1, 1, 12), [], runner)[0, 0]
    assert plan.count == 2
    assert y.tolist() == [0, 0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1]


def test_memory_is_that_of_a_window() -> None:
    plan = WindowPlan(5000, 20, 4, 2)
    join = WindowJoin(smooth, plan)
    most = 0
    for _ in range(1000):
        join.push({"x": torch.zeros(1, 1, 5)}, 5)
        most = max(most, join._held["x"].shape[2])
    assert most <= 20 + 5


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(InputError, match=r"0 samples"):
        WindowPlan(0, 8, 2)
    with pytest.raises(ConfigError, match=r"window of 4 steps has no room between two contexts of 2"):
        WindowPlan(10, 4, 2)
    with pytest.raises(ConfigError, match=r"fade of 3 steps is not possible; choose 0 to the context 2"):
        WindowPlan(10, 8, 2, 3)


def test_what_has_no_whole_number_of_items_is_refused() -> None:
    join = WindowJoin(smooth, WindowPlan(4, 4, 0))
    with pytest.raises(InputError, match=r"'x' has 7 items in 4 steps; a multiple is needed"):
        join.push({"x": torch.zeros(1, 1, 7)}, 4)
