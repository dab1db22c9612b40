from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.image import imread

from polyres.separation.load import LoadedSeparator
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.stems import Stems


def contents(page: str, kind: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(rf'src="data:{kind};base64,([^"]+)"', page)]


@pytest.fixture(scope="module")
def tone() -> torch.Tensor:
    return 1.5 * torch.sin(2 * np.pi * 1000 / 44100 * torch.arange(44100)).repeat(2, 1)


def test_a_notebook_shows_a_player_and_a_spectrogram_per_stem(tone: torch.Tensor) -> None:
    page = Stems({"drums": tone, "<b>": torch.zeros(1, 4000)}, 44100)._repr_html_()
    sounds, pictures = contents(page, "audio/mpeg"), contents(page, "image/png")
    assert (len(sounds), len(pictures)) == (2, 2)
    assert "&lt;b&gt;" in page
    wave, rate_hz = soundfile.read(io.BytesIO(sounds[0]))
    assert rate_hz == 44100
    assert 0.9 < np.abs(wave).max() < 1.1  # turned down, not cut
    rows = imread(io.BytesIO(pictures[0]))[..., :3].sum(axis=(1, 2))
    expected = np.argmin(np.abs(np.logspace(0.5, 10 * np.log10(2), 96)[::-1] - 1000 * 2048 / 44100))
    assert abs(int(rows.argmax()) - int(expected)) <= 1


def test_without_matplotlib_there_are_players_alone(tone: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.image", None)
    page = Stems({"drums": tone}, 44100)._repr_html_()
    assert "<audio" in page
    assert "<img" not in page


def test_progress_is_a_bar_or_a_function(
    tmp_path: Path, tone: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = SeparatorConfig(n_fft=(512,), channels=4, depth=2, wave_branch=False, segment_samples=22050)
    separator = LoadedSeparator(Separator(config), "tiny", "cpu", "fp32")
    shares: list[float] = []
    stems = separator.separate(tone / 2, 44100, progress=shares.append)
    assert shares[-1] == 1.0
    assert isinstance(stems, Stems)
    assert stems.sample_rate_hz == 44100
    assert capsys.readouterr().out == ""
    again = separator.separate(tone / 2, 44100, progress=True)
    assert all(torch.equal(stems[name], again[name]) for name in stems)
    assert "tiny" in capsys.readouterr().out
    soundfile.write(tmp_path / "song.wav", (tone / 2).T.numpy(), 44100)
    separator.separate_file(tmp_path / "song.wav", tmp_path / "out", progress=True)
    assert "song.wav" in capsys.readouterr().out
