from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.datasets.augment import codec as augment_codec
from polyres.datasets.augment.codec import CODINGS, round_trip
from tests.audio.sound_files import lag, snr_db, sound
from tests.datasets.augment.cases import batch, only, run

codecs = pytest.mark.parametrize("name", list(CODINGS))


@codecs
@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 32_000, 44_100, 48_000, 88_200])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_sample_stays_where_it_was(name: str, rate_hz: int, channels: int) -> None:
    wave = sound(rate_hz // 2, channels, rate_hz)
    coded = round_trip(wave, name, 256_000, rate_hz)
    assert coded.shape == wave.shape
    assert coded.dtype == np.float32
    assert lag(wave, coded) == 0
    assert snr_db(wave, coded) > 15.0


@settings(max_examples=40)
@given(
    name=st.sampled_from(list(CODINGS)),
    length=st.integers(1, 4000),
    channels=st.integers(1, 2),
    rate_hz=st.sampled_from([8000, 16_000, 44_100]),
    bit_rate=st.integers(1, 2_000_000),
    seed=st.integers(0, 1000),
)
def test_any_length_and_bit_rate_keeps_the_shape_and_gives_equal_bits(
    name: str, length: int, channels: int, rate_hz: int, bit_rate: int, seed: int
) -> None:
    wave = sound(length, channels, rate_hz, seed)
    before = wave.copy()
    coded = round_trip(wave, name, bit_rate, rate_hz)
    assert coded.shape == wave.shape
    assert np.isfinite(coded).all()
    assert np.array_equal(wave, before)
    assert np.array_equal(round_trip(wave, name, bit_rate, rate_hz), coded)
    assert length < 2000 or abs(lag(wave, coded)) <= 1


@codecs
def test_start_and_end_are_coded_too(name: str) -> None:
    wave = sound(30_000)
    coded = round_trip(wave, name, 256_000, 44_100)
    for part in (slice(0, 3000), slice(-3000, None)):
        assert snr_db(wave[:, part], coded[:, part]) > 12.0


@codecs
def test_fewer_bits_lose_more(name: str) -> None:
    wave = sound(44_100)
    few, many = (snr_db(wave, round_trip(wave, name, bit_rate, 44_100)) for bit_rate in (48_000, 256_000))
    assert few < many - 1.0


@codecs
def test_channels_and_signs_keep_their_places(name: str) -> None:
    wave = sound(20_000)
    wave[1] *= -0.1
    coded = round_trip(wave, name, 256_000, 44_100)
    assert np.corrcoef(wave[0], coded[0])[0, 1] > 0.95
    assert np.corrcoef(wave[1], coded[1])[0, 1] > 0.7
    assert 0.08 < coded[1].std() / coded[0].std() < 0.13


@codecs
@pytest.mark.parametrize("factor", [10.0, 0.01])
def test_levels_far_from_full_scale_are_kept(name: str, factor: float) -> None:
    wave = np.float32(factor) * sound(20_000)
    coded = round_trip(wave, name, 256_000, 44_100)
    assert coded.std() == pytest.approx(wave.std(), rel=0.1)
    assert snr_db(wave, coded) > 12.0


def test_stems_draw_codec_and_bit_rate_of_their_own() -> None:
    stems = torch.from_numpy(sound(12_000)).expand(2, 4, 2, -1)
    after = run(stems, only("codec", rate_hz=44_100)).flatten(0, 1)
    assert len({tuple(stem[0, :200].tolist()) for stem in after}) == len(after)
    alone = run(stems, only("codec", rate_hz=44_100, codecs=["opus"], bit_rate_kbps=(96.0, 96.0)))
    expected = torch.from_numpy(round_trip(stems[0, 0].numpy(), "opus", 96_000, 44_100))
    assert torch.equal(alone, expected.expand_as(alone))


def test_only_chosen_stems_are_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    coded: list[int] = []

    def counted(wave: np.ndarray, name: str, bit_rate: int, rate_hz: int) -> np.ndarray:
        coded.append(len(wave))
        return -wave

    monkeypatch.setattr(augment_codec, "round_trip", counted)
    stems = batch(6, 4, 3, 50)
    stems[0] = 0.0
    after = run(stems, only("codec", 0.4), 1)
    changed = (after != stems).flatten(2).any(-1)
    assert coded == [2, 1] * int(changed.sum())
    assert 3 <= changed.sum() <= 15
    assert torch.equal(after[changed], -stems[changed])


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown codec 'mp4'; did you mean 'mp3'\? known: mp3, opus, aac"):
        round_trip(sound(100), "mp4", 128_000, 44_100)


def test_a_codec_that_ffmpeg_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODINGS, "mp3", replace(CODINGS["mp3"], encoder="libnowhere"))
    with pytest.raises(ConfigError, match="codec 'mp3' needs FFmpeg's libnowhere and mp3float, which this PyAV lacks"):
        round_trip(sound(100), "mp3", 128_000, 44_100)
