"""Levels, places, sums and differences of files, against what they are by definition."""

from __future__ import annotations

import base64
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.core.errors import ConfigError, InputError
from polyres.studio.mixing import (
    BANDS,
    BLOCK_SAMPLES,
    COLUMNS,
    FLOOR_DB,
    HIGH_HZ,
    LOW_HZ,
    Strip,
    copy_to_play,
    difference,
    mix,
    played_rate_hz,
    view_of,
)

RATE_HZ = 44_100


def noise(length: int, channels: int = 2, seed: int = 0, level: float = 0.2) -> np.ndarray:
    return (level * np.random.default_rng(seed).uniform(-1, 1, (length, channels))).astype(np.float32)


def written(path: Path, wave: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, wave, rate_hz, subtype=subtype)
    return path


def read(path: Path) -> np.ndarray:
    wave, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(wave)


# -- strips -----------------------------------------------------------------------------------------------------------


@given(level_db=st.floats(-120, 12), channels=st.integers(1, 2))
def test_a_level_is_a_factor(level_db: float, channels: int) -> None:
    wave = noise(50, channels).T
    pair = np.stack([wave[0], wave[-1]])
    assert np.allclose(Strip(level_db).apply(wave), pair * 10 ** (level_db / 20), rtol=1e-6, atol=0)


@given(pan=st.floats(-1, 1))
def test_one_channel_keeps_its_power_wherever_it_is_put(pan: float) -> None:
    wave = np.ones((1, 8), np.float32)
    # A single channel comes as two equal ones, as in the page's panner: in the middle as loud as it was.
    left, right = Strip(0, pan).apply(wave)[:, 0]
    assert (left >= right) == (pan <= 0) or left == pytest.approx(right, abs=1e-6)
    if pan in (-1, 1):
        assert {round(float(left), 5), round(float(right), 5)} == {0.0, 2.0}


@given(pan=st.floats(-1, 1), seed=st.integers(0, 5))
def test_panning_two_channels_follows_the_web_audio_standard(pan: float, seed: int) -> None:
    # Source: Web Audio API 1.1, stereo panner, written as there.
    in_l, in_r = noise(20, seed=seed).T.astype(np.float64)
    x = pan + 1 if pan <= 0 else pan
    gain_l, gain_r = np.cos(x * np.pi / 2), np.sin(x * np.pi / 2)
    if pan <= 0:
        out_l, out_r = in_l + in_r * gain_l, in_r * gain_r
    else:
        out_l, out_r = in_l * gain_l, in_r + in_l * gain_r
    assert np.allclose(Strip(0, pan).apply(np.stack([in_l, in_r]).astype(np.float32)), [out_l, out_r], atol=1e-7)


def test_a_strip_in_the_middle_at_no_gain_changes_no_bit() -> None:
    wave = noise(1000).T.copy()
    wave[0, 10:20] = 0  # what is silent on one side stays silent there
    assert np.array_equal(Strip().apply(wave), wave)


@pytest.mark.parametrize(
    ("level_db", "pan", "text"),
    [(12.1, 0, "choose -120 to 12"), (np.nan, 0, "level nan dB"), (0, -1.01, "choose -1"), (0, np.nan, "pan nan")],
)
def test_what_no_fader_can_do_is_refused(level_db: float, pan: float, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Strip(level_db, pan)


# -- mixes ------------------------------------------------------------------------------------------------------------


def test_stems_on_the_grid_of_24_bits_add_up_to_the_mixture_to_the_last_bit(tmp_path: Path) -> None:
    length = BLOCK_SAMPLES + 777
    steps = np.random.default_rng(2).integers(-(1 << 20), 1 << 20, (4, length, 2))
    stems = [
        written(tmp_path / f"{n}.wav", (each / 2**23).astype(np.float32), subtype="PCM_24")
        for n, each in enumerate(steps)
    ]
    assert mix(dict.fromkeys(stems, Strip()), tmp_path / "mix.wav") == 1
    mixed, _ = soundfile.read(tmp_path / "mix.wav", dtype="int32")
    assert np.array_equal(mixed >> 8, steps.sum(axis=0))


@settings(max_examples=20, deadline=None)
@given(
    levels=st.lists(st.tuples(st.floats(-60, 12), st.floats(-1, 1)), min_size=1, max_size=4),
    channels=st.sampled_from([1, 2, 6]),
    length=st.integers(1, 3000),
)
def test_a_mix_is_the_sum_of_its_strips(
    levels: list[tuple[float, float]], channels: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mix")
    strips, expected = {}, np.zeros((2, length))
    for number, (level_db, pan) in enumerate(levels):
        wave = noise(length, channels, number)
        strips[written(folder / f"{number}.wav", wave)] = strip = Strip(level_db, pan)
        expected += strip.apply(wave.T if channels <= 2 else wave.mean(axis=1)[None])
    assert mix(strips, folder / "out.wav", bit_depth="float") == 1
    assert np.allclose(read(folder / "out.wav").T, expected, atol=2e-6)


def test_a_mix_that_would_clip_is_turned_down_as_a_whole(tmp_path: Path) -> None:
    wave = noise(5000, level=0.9)
    one = written(tmp_path / "a.wav", wave)
    gain = mix({one: Strip(6.0206)}, tmp_path / "mix.wav")
    assert gain == pytest.approx((1 - 2**-15) / (2 * np.abs(wave).max()), rel=1e-4)
    assert np.allclose(read(tmp_path / "mix.wav"), 2 * wave * gain, atol=1e-6)


@pytest.mark.parametrize("span_s", [(0.1, 0.2), (2.9, 3.1), (2.0, 99.0), (0.0, 2e-5)])
def test_a_part_of_a_mix_is_that_part_to_the_sample(tmp_path: Path, span_s: tuple[float, float]) -> None:
    wave = noise(BLOCK_SAMPLES + 4000)  # 3.06 s
    mix({written(tmp_path / "a.wav", wave): Strip()}, tmp_path / "mix.wav", span_s, "float")
    part = wave[round(span_s[0] * RATE_HZ) : round(span_s[1] * RATE_HZ)]
    assert np.array_equal(read(tmp_path / "mix.wav"), part)


def test_what_does_not_run_together_is_no_mix(tmp_path: Path) -> None:
    one = written(tmp_path / "a.wav", noise(500))
    out = tmp_path / "out" / "mix.wav"
    with pytest.raises(InputError, match=r"different rates \(8000, 44100 Hz\)"):
        mix({one: Strip(), written(tmp_path / "b.wav", noise(500), 8000): Strip()}, out)
    for length in (499, 501, BLOCK_SAMPLES + 500):
        with pytest.raises(InputError, match="are not equally long"):
            mix({one: Strip(), written(tmp_path / "c.wav", noise(length)): Strip()}, out)
    with pytest.raises(InputError, match="switch a stem on"):
        mix({}, out)
    with pytest.raises(InputError, match="holds no samples"):
        mix({one: Strip()}, tmp_path / "mix.wav", (1, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav", "c.wav"]


# -- differences ------------------------------------------------------------------------------------------------------


def test_a_difference_is_sample_by_sample_and_may_exceed_full_scale(tmp_path: Path) -> None:
    first, second = noise(BLOCK_SAMPLES + 5, level=0.99), noise(BLOCK_SAMPLES + 5, seed=1, level=0.99)
    difference(written(tmp_path / "a.wav", first), written(tmp_path / "b.wav", second), tmp_path / "d.wav")
    found = read(tmp_path / "d.wav")
    assert np.array_equal(found, first - second)
    assert np.abs(found).max() > 1


def test_files_that_differ_in_shape_have_no_difference(tmp_path: Path) -> None:
    one = written(tmp_path / "a.wav", noise(500))
    for length in (499, 501, BLOCK_SAMPLES + 500):
        with pytest.raises(InputError, match=r"a\.wav and b\.wav are not equally long"):
            difference(one, written(tmp_path / "b.wav", noise(length)), tmp_path / "d.wav")
    for wave, rate_hz in ((noise(500, 1), RATE_HZ), (noise(500), 48_000)):
        with pytest.raises(InputError, match="differ in rate or channels"):
            difference(one, written(tmp_path / "b.wav", wave, rate_hz), tmp_path / "d.wav")
    assert not (tmp_path / "d.wav").exists()


# -- copies to play ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_copy_to_play_has_the_samples_in_16_bits(tmp_path: Path, channels: int) -> None:
    wave = noise(7000, channels)
    length = copy_to_play(written(tmp_path / "a.wav", wave), tmp_path / "b.flac", 0.5)
    assert length == 7000
    expected = wave if channels <= 2 else wave.mean(axis=1, keepdims=True)
    assert np.abs(read(tmp_path / "b.flac") - 0.5 * expected).max() <= 2**-16 + 1e-7


def test_a_copy_of_a_part_is_that_part(tmp_path: Path) -> None:
    wave = noise(BLOCK_SAMPLES + 9000)
    one = written(tmp_path / "a.wav", wave)
    assert copy_to_play(one, tmp_path / "b.flac", start_s=2.9, length_s=0.2) == 8820
    assert np.abs(read(tmp_path / "b.flac") - wave[127_890:136_710]).max() <= 2**-16 + 1e-7
    with pytest.raises(InputError, match=r"a\.wav ends before 99 s"):
        copy_to_play(one, tmp_path / "c.flac", start_s=99)
    assert not (tmp_path / "c.flac").exists()


@pytest.mark.parametrize(("rate_hz", "played_hz"), [(4000, 44_100), (8000, 8000), (96_000, 96_000), (192_000, 44_100)])
def test_rates_that_no_browser_takes_are_changed(tmp_path: Path, rate_hz: int, played_hz: int) -> None:
    assert played_rate_hz(rate_hz) == played_hz
    source = written(tmp_path / "a.wav", noise(rate_hz // 10), rate_hz)
    assert copy_to_play(source, tmp_path / "b.flac") == played_hz // 10
    assert soundfile.info(tmp_path / "b.flac").samplerate == played_hz


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    def peak(seconds: int) -> int:
        one = written(tmp_path / "a.wav", noise(seconds * RATE_HZ), subtype="PCM_16")
        tracemalloc.start()
        mix({one: Strip(-6, 0.3)}, tmp_path / "mix.wav")
        copy_to_play(one, tmp_path / "b.flac")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # what is loaded once
    assert peak(40) < 1.3 * peak(10)


def written_view(path: Path, wave: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
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
    view = view_of(written_view(tmp_path / "a.wav", wave), length)
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
    view = view_of(written_view(tmp_path / "a.wav", sine(pitch_hz, 2, 0.1)), 2 * RATE_HZ)
    middle = levels_db(view)[:, 100:-100]
    band = band_of(pitch_hz)
    # -20 dB, and of the window's main lobe at least the middle, at most all three bins: 0 to +1.8 dB.
    assert (middle[band] >= -20.5).all()
    assert (middle[band] <= -17.8).all()
    far = [each for each in range(BANDS) if abs(each - band) > 12]
    assert (middle[far] < -80).all()


def test_full_scale_is_the_top_and_silence_the_bottom(tmp_path: Path) -> None:
    wave = np.concatenate([sine(1000, 1), np.zeros(RATE_HZ), sine(1000, 1)])
    shown = levels_db(view_of(written_view(tmp_path / "a.wav", wave), len(wave)))
    assert shown[band_of(1000), 10:290].min() > -1
    # Silence in the middle is dark all through, but for one window beside the tones.
    assert (shown[:, 320:580] == FLOOR_DB).all()
    assert shown[band_of(1000), 610:890].min() > -1


def test_a_file_shorter_than_a_window_has_no_empty_columns(tmp_path: Path) -> None:
    view = view_of(written_view(tmp_path / "a.wav", sine(1000, 0.02)), round(0.02 * RATE_HZ))
    assert view["columns"] == 14
    assert levels_db(view)[band_of(1000)].min() > -40
    assert min(view["high"]) > 0


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65])
def test_a_handful_of_samples_has_a_picture(tmp_path: Path, length: int) -> None:
    view = view_of(written_view(tmp_path / "a.wav", np.full(length, 0.5)), length)
    assert view["columns"] == -(-length // 64)
    assert view["high"] == [64] * view["columns"]  # 0.5 * 127 to the even side
    assert view["low"] == [0] * view["columns"]  # the line in the middle belongs to every column
    assert len(base64.b64decode(view["levels"])) == BANDS * view["columns"]


def test_the_loudest_channel_is_shown(tmp_path: Path) -> None:
    quiet, loud = sine(500, 1, 0.01), sine(5000, 1, 0.5)
    view = view_of(written_view(tmp_path / "a.wav", np.stack([quiet, loud, 0 * quiet], axis=1)), RATE_HZ)
    shown = levels_db(view)[:, 450]
    assert shown[band_of(500)] == pytest.approx(-39, abs=2)
    assert shown[band_of(5000)] == pytest.approx(-5, abs=2)


@pytest.mark.parametrize("rate_hz", [8_000, 96_000])
def test_bands_mean_the_same_at_every_rate(tmp_path: Path, rate_hz: int) -> None:
    view = view_of(written_view(tmp_path / "a.wav", sine(1000, 1, rate_hz=rate_hz), rate_hz), rate_hz)
    shown = levels_db(view)
    assert abs(int(shown[:, shown.shape[1] // 2].argmax()) - band_of(1000)) <= 1
    if rate_hz == 8_000:
        assert (shown[band_of(4000) + 1 :] == FLOOR_DB).all()


def test_what_is_no_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"a\.wav"):
        view_of(tmp_path / "a.wav", 10)
