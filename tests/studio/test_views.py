"""Waveforms and spectrograms of files whose pictures are known in closed form."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from polyres.core.errors import InputError
from polyres.studio.views import BANDS, COLUMNS, FLOOR_DB, HIGH_HZ, LOW_HZ, view_of

RATE_HZ = 44_100


def written(path: Path, wave: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    soundfile.write(path, wave, rate_hz, subtype="FLOAT")
    return path


def levels_db(view: dict[str, Any]) -> np.ndarray:
    """Levels `[BANDS, columns]` in dB, as the page reads them."""
    bytes_ = np.frombuffer(base64.b64decode(view["levels"]), np.uint8).reshape(view["bands"], view["columns"])
    return (bytes_ / 255 - 1) * -FLOOR_DB


def sine(pitch_hz: float, seconds: float, level: float = 1.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    return level * np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def band_of(pitch_hz: float) -> int:
    return int(BANDS * np.log(pitch_hz / LOW_HZ) / np.log(HIGH_HZ / LOW_HZ))


def test_peaks_are_those_of_a_slow_search(tmp_path: Path) -> None:
    length = 131_072 + 70_001  # more than one block
    wave = np.random.default_rng(1).uniform(-1, 1, (length, 2)) * np.linspace(0.1, 0.9, length)[:, None]
    view = view_of(written(tmp_path / "a.wav", wave), length)
    assert view["columns"] == COLUMNS
    wave = wave.astype(np.float32)
    for column in range(COLUMNS):
        # Column c holds the samples n with floor(n * COLUMNS / length) = c.
        first, last = -(-column * length // COLUMNS), -(-(column + 1) * length // COLUMNS)
        assert view["low"][column] == round(float(wave[first:last].min()) * 127)
        assert view["high"][column] == round(float(wave[first:last].max()) * 127)
    assert view["peak"] == pytest.approx(np.abs(wave).max(), abs=1e-5)


@pytest.mark.parametrize("bin_number", [20, 100, 400])
def test_a_tone_is_as_loud_as_it_is_and_in_its_band_alone(tmp_path: Path, bin_number: int) -> None:
    pitch_hz = bin_number * RATE_HZ / 2048
    view = view_of(written(tmp_path / "a.wav", sine(pitch_hz, 2, 0.1)), 2 * RATE_HZ)
    middle = levels_db(view)[:, 100:-100]
    band = band_of(pitch_hz)
    # -20 dB, and of the window's main lobe at least the middle, at most all three bins: 0 to +1.8 dB.
    assert (middle[band] >= -20.5).all()
    assert (middle[band] <= -17.8).all()
    far = [each for each in range(BANDS) if abs(each - band) > 12]
    assert (middle[far] < -80).all()


def test_full_scale_is_the_top_and_silence_the_bottom(tmp_path: Path) -> None:
    wave = np.concatenate([sine(1000, 1), np.zeros(RATE_HZ), sine(1000, 1)])
    shown = levels_db(view_of(written(tmp_path / "a.wav", wave), len(wave)))
    assert shown[band_of(1000), 10:290].min() > -1
    # Silence in the middle is dark all through, but for one window beside the tones.
    assert (shown[:, 320:580] == FLOOR_DB).all()
    assert shown[band_of(1000), 610:890].min() > -1


def test_a_file_shorter_than_a_window_has_no_empty_columns(tmp_path: Path) -> None:
    view = view_of(written(tmp_path / "a.wav", sine(1000, 0.02)), round(0.02 * RATE_HZ))
    assert view["columns"] == 14
    assert levels_db(view)[band_of(1000)].min() > -40
    assert min(view["high"]) > 0


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65])
def test_a_handful_of_samples_has_a_picture(tmp_path: Path, length: int) -> None:
    view = view_of(written(tmp_path / "a.wav", np.full(length, 0.5)), length)
    assert view["columns"] == -(-length // 64)
    assert view["high"] == [64] * view["columns"]  # 0.5 * 127 to the even side
    assert view["low"] == [0] * view["columns"]  # the line in the middle belongs to every column
    assert len(base64.b64decode(view["levels"])) == BANDS * view["columns"]


def test_the_loudest_channel_is_shown(tmp_path: Path) -> None:
    quiet, loud = sine(500, 1, 0.01), sine(5000, 1, 0.5)
    view = view_of(written(tmp_path / "a.wav", np.stack([quiet, loud, 0 * quiet], axis=1)), RATE_HZ)
    shown = levels_db(view)[:, 450]
    assert shown[band_of(500)] == pytest.approx(-39, abs=2)
    assert shown[band_of(5000)] == pytest.approx(-5, abs=2)


@pytest.mark.parametrize("rate_hz", [8_000, 96_000])
def test_bands_mean_the_same_at_every_rate(tmp_path: Path, rate_hz: int) -> None:
    view = view_of(written(tmp_path / "a.wav", sine(1000, 1, rate_hz=rate_hz), rate_hz), rate_hz)
    shown = levels_db(view)
    assert abs(int(shown[:, shown.shape[1] // 2].argmax()) - band_of(1000)) <= 1
    if rate_hz == 8_000:
        assert (shown[band_of(4000) + 1 :] == FLOOR_DB).all()


def test_what_is_no_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"a\.wav"):
        view_of(tmp_path / "a.wav", 10)
