"""Enhancers on pieces of any length: as on one window, without seams, at one level."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from polyres.audio.sources import MemorySource, PieceSource
from polyres.codec.enhance.long_files import ORIGINAL, enhance_long, sound_name
from polyres.codec.enhance.sweep import Chain, EnhanceOptions, Excerpt, run_enhancers
from polyres.codec.load import load_codec

RATE_HZ, HOP = 16000, 640
OPTIONS = EnhanceOptions(names=("gain_match", "contrast"), strengths=(1.0,))


def song(steps: int, channels: int = 1) -> Tensor:
    t = torch.arange(steps * HOP) / RATE_HZ
    noise = torch.randn(channels, len(t), generator=torch.Generator().manual_seed(3))
    return (0.4 * torch.sin(2 * torch.pi * 300 * t) * (1.2 + torch.sin(7 * t)) + 0.05 * noise).float()


def chain(window_steps: int) -> Chain:
    codec = load_codec("audioldm2_tiny", "cpu").model
    codec.window_samples = window_steps * HOP
    return Chain(codec)


def test_one_window_is_as_an_excerpt(tmp_path: Path) -> None:
    one, wave = chain(256), song(20, channels=2)
    rows = enhance_long(one, MemorySource(wave, RATE_HZ), OPTIONS, tmp_path)
    levelled = one.levelled(wave)
    excerpt = Excerpt("wave", levelled[:, None], wave.shape[-1] / RATE_HZ)
    wanted = list(run_enhancers(one, excerpt, OPTIONS))
    assert [row.enhancer for row in rows] == ["codec", "gain_match", "contrast"]
    for row, other in zip(rows, wanted, strict=True):
        # The level is stored in 16 bits where the whole source is levelled.
        assert row.scores == pytest.approx(other.row.scores, rel=0.02, abs=0.02)
        assert row.gain_db == pytest.approx(other.row.gain_db, abs=0.05)
        sound, rate_hz = soundfile.read(tmp_path / f"{sound_name(row)}.wav", dtype="float32", always_2d=True)
        assert rate_hz == RATE_HZ
        assert torch.allclose(torch.from_numpy(sound.T), other.wave, atol=0.02)
    assert {path.name for path in tmp_path.iterdir()} == {
        "original.wav", "codec.wav", "gain_match_1.wav", "contrast_1.wav"
    }  # fmt: skip


def test_many_windows_are_whole_at_one_level(tmp_path: Path) -> None:
    wave = song(150)
    shares: list[float] = []
    rows = enhance_long(chain(80), MemorySource(wave, RATE_HZ), OPTIONS, tmp_path, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    original, _ = soundfile.read(tmp_path / f"{ORIGINAL}.wav", dtype="float32")
    assert len(original) == wave.shape[-1]
    scale = float(original.std() / wave.std(unbiased=False))
    assert torch.allclose(torch.from_numpy(original), scale * (wave[0] - wave.mean()), atol=1e-3)
    for row in rows:
        sound, _ = soundfile.read(tmp_path / f"{sound_name(row)}.wav", dtype="float32")
        assert len(sound) == len(original)
        assert 10 * math.log10((sound**2).mean() / (original**2).mean()) == pytest.approx(0, abs=0.01)
        assert row.file == "wave"
    assert len(rows) == 3


def test_windows_are_no_longer_than_the_codec_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    one, lengths = chain(80), list[int]()
    encode = one.encode
    monkeypatch.setattr(one, "encode", lambda wave: (lengths.append(wave.shape[-1]), encode(wave))[1])
    enhance_long(one, MemorySource(song(200), RATE_HZ), replace(OPTIONS, names=()))
    assert len(lengths) > 3
    assert max(lengths) == 80 * HOP


def test_silence_keeps_its_level(tmp_path: Path) -> None:
    rows = enhance_long(
        chain(80), MemorySource(torch.zeros(1, 100 * HOP), RATE_HZ), replace(OPTIONS, names=()), tmp_path
    )
    assert math.isnan(rows[0].gain_db)
    assert soundfile.info(tmp_path / "codec.wav").frames == 100 * HOP


@pytest.mark.parametrize(
    ("start_s", "seconds", "first", "last"), [(0, math.inf, 0, 999), (0.5, 0.2, 500, 700), (0.9, 5, 900, 999)]
)
def test_a_piece_of_a_file(tmp_path: Path, start_s: float, seconds: float, first: int, last: int) -> None:
    ramp = torch.arange(999) / 1000
    soundfile.write(tmp_path / "a.wav", ramp.numpy(), 1000, subtype="FLOAT")
    piece = np.concatenate(list(PieceSource(tmp_path / "a.wav", start_s, seconds).blocks(64)), axis=1)
    assert np.array_equal(piece[0], ramp[first:last].numpy())
