"""Phase methods over many windows: no seam where one window gives way to the next, and no more memory than a window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import polyres
from polyres.codec.audioldm2 import parts as audioldm2_parts
from polyres.codec.base import Codec, Latents, Span
from polyres.codec.load import LoadedCodec
from polyres.codec.staged.codec import staged
from polyres.codec.stream import step_count, window_plan
from polyres.dsp.input_level import level_of
from polyres.dsp.mel import AUDIOLDM2_16K, linear_magnitude, log_mel, log_mel_to_linear
from tests.codec.toy_codec import ToyCodec
from tests.dsp.test_phase import song

RATE_HZ, SECONDS, WINDOW_STEPS, INVERSE = 16000, 8.0, 96, "pinv"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYRES_CACHE", str(folder))
        audioldm2_parts.tiny_folder()
        yield folder


@pytest.fixture
def codec(cache: Path) -> LoadedCodec:
    settings = {"synthesis": "pghi+fgla", "phase_iterations": 16, "mel_inverse": INVERSE}
    return polyres.load_codec("audioldm2_tiny:no_autoencoder", "cpu", settings)


def levelled() -> Tensor:
    """A wave that the codec leaves at its level."""
    wave = song(SECONDS)[None]
    return level_of(wave).apply(wave).float()


def seams(codec: LoadedCodec, wave: Tensor) -> list[int]:
    """Frames at which windows give way to the next."""
    plan = window_plan(codec.model, step_count(codec.model, wave.shape[-1]), fades=True)
    return [4 * plan.handover(number) for number in range(plan.count - 1)]


def error_db(found: Tensor, wave: Tensor, middle: int) -> float:
    """Distance of 1.6 s of spectra from those that were to be spoken, in dB."""
    wanted = log_mel_to_linear(log_mel(wave, AUDIOLDM2_16K), AUDIOLDM2_16K, INVERSE)
    rows = slice(middle - 80, middle + 80)
    one, other = linear_magnitude(found, AUDIOLDM2_16K)[..., rows], wanted[..., rows]
    return float(20 * torch.log10((one - other).norm() / other.norm()))


@pytest.mark.parametrize("filtered", [False, True])
def test_seams_sound_like_the_rest(codec: LoadedCodec, filtered: bool) -> None:
    wave = levelled()
    if filtered:
        codec = LoadedCodec(staged(codec.model, {"post_filter": "wiener"}), "cpu")
    codec.model.window_samples = 10_000 * codec.model.hop_samples
    whole = codec.reconstruct(wave, RATE_HZ)
    codec.model.window_samples = WINDOW_STEPS * codec.model.hop_samples
    cut = codec.reconstruct(wave, RATE_HZ)
    middles = seams(codec, wave)
    assert len(middles) >= 3
    losses = [error_db(cut, wave, middle) - error_db(whole, wave, middle) for middle in middles]
    assert max(losses) < 1.0


def test_windows_on_their_own_would_have_seams(codec: LoadedCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = levelled()
    codec.model.window_samples = WINDOW_STEPS * codec.model.hop_samples
    cut = codec.reconstruct(wave, RATE_HZ)
    monkeypatch.setattr(type(codec.model), "speaker", Codec.speaker)
    alone = codec.reconstruct(wave, RATE_HZ)
    losses = [error_db(alone, wave, middle) - error_db(cut, wave, middle) for middle in seams(codec, wave)]
    assert max(losses) > 3.0


class Remembering(ToyCodec):
    """Keeps the spans it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[Span] = []

    def speaker(self):  # type: ignore[no-untyped-def]
        def speak(features: Latents, span: Span) -> Tensor:
            self.spans.append(span)
            return self.from_features(features, span.length_samples)

        return speak


def test_windows_are_told_where_they_lie() -> None:
    model = Remembering()
    LoadedCodec(model, "cpu").reconstruct(torch.randn(1, 500, generator=torch.Generator().manual_seed(0)), 1000)
    first, second, *_, last = model.spans
    # 10 steps a window, 2 of context, faded over 1 on each side of the middle of 4 common steps.
    assert first == Span(0, 80, 0)
    assert second == Span(48, 80, 24)
    assert last.start_samples + last.length_samples == 504
    assert all(span.length_samples == 80 for span in model.spans)
