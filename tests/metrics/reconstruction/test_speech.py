from __future__ import annotations

import math
import sys
import types

import numpy as np
import pystoi
import pytest
import torch
from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.metrics.reconstruction import speech
from polyres.metrics.reconstruction.metrics import score

RATE = 16000


def babble(seconds: float = 2.0, seed: int = 0) -> Tensor:
    """Syllables: noise through resonances that come and go."""
    generator = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * k * t + k) / k for k in range(1, 30))
    wave = voice * (np.sin(2 * np.pi * 4 * t) > -0.3) + 0.1 * generator.standard_normal(len(t))
    return torch.from_numpy(0.05 * wave)[None]


def test_stoi_is_that_of_the_library() -> None:
    wave, other = babble(), babble() + 0.05 * torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(0))
    values = score(wave, other, RATE, ["stoi", "estoi"])
    assert values["stoi"] == pytest.approx(pystoi.stoi(wave[0].numpy(), other[0].numpy(), RATE))
    extended = pystoi.stoi(wave[0].numpy(), other[0].numpy(), RATE, extended=True)
    assert values["estoi"] == pytest.approx(extended)
    assert values["estoi"] < values["stoi"] < 0.999
    assert score(wave, wave, RATE, ["stoi"])["stoi"] == pytest.approx(1)


def test_channels_are_averaged() -> None:
    clean, noisy = babble(), babble() + 0.05 * torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(0))
    both = score(torch.cat([clean, clean]), torch.cat([clean, noisy]), RATE, ["stoi"])["stoi"]
    assert both == pytest.approx((1 + score(clean, noisy, RATE, ["stoi"])["stoi"]) / 2)


def test_too_little_speech_and_silence_are_nan() -> None:
    wave = babble()
    short = wave[:, : RATE // 10]
    assert math.isnan(score(short, short, RATE, ["stoi"])["stoi"])
    assert math.isnan(score(wave, wave * 0, RATE, ["stoi"])["stoi"])


def test_pesq_gets_what_it_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Refused(Exception):
        pass

    def answer(rate_hz: int, reference: np.ndarray, estimate: np.ndarray, mode: str) -> float:
        seen.append((rate_hz, reference, estimate, mode))
        if len(reference) < RATE // 4:
            raise Refused
        return 3.0 + len(seen)

    library = types.SimpleNamespace(pesq=answer, PesqError=Refused)
    monkeypatch.setitem(sys.modules, "pesq", library)  # type: ignore[arg-type]
    wave, other = babble().expand(2, -1), babble(seed=1).expand(2, -1)
    assert score(wave, other, RATE, ["pesq_wb"])["pesq_wb"] == 4.5
    assert [entry[0] for entry in seen] == [16000, 16000]
    assert np.array_equal(seen[0][1], wave[0].numpy())
    assert np.array_equal(seen[0][2], other[0].numpy())
    assert seen[0][3] == "wb"
    assert math.isnan(score(wave[:, :1000], other[:, :1000], RATE, ["pesq_wb"])["pesq_wb"])
    assert math.isnan(score(wave, other * 0, RATE, ["pesq_wb"])["pesq_wb"])
    score(wave, other, 32000, ["pesq_wb"])
    assert len(seen[-1][1]) == wave.shape[1] // 2  # what was called 32 kHz is brought to 16 kHz


def test_pesq_itself() -> None:
    library = pytest.importorskip("pesq")
    wave, other = babble(), babble(seed=1)
    wanted = library.pesq(RATE, wave[0].numpy(), other[0].numpy(), "wb")
    assert speech.pesq_wb(wave, other, RATE) == pytest.approx(wanted)
    assert speech.pesq_wb(wave, wave, RATE) == pytest.approx(4.644, abs=0.001)
    assert math.isnan(speech.pesq_wb(wave[:, :1000], wave[:, :1000], RATE))


@pytest.mark.parametrize(
    ("name", "library", "hint"),
    [("pesq_wb", "pesq", "pip install pesq"), ("stoi", "pystoi", r"pip install 'polyres\[speech\]'")],
)
def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, name: str, library: str, hint: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=f"metric '{name}' needs the library '{library}', .*{hint}"):
        score(babble(), babble(), RATE, [name])
