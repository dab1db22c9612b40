from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from polyres.audio.track_files import SOURCES
from polyres.core.errors import InputError
from polyres.datasets.check import RESIDUAL_LIMIT_DB, TrackCheck, check_data, check_track
from polyres.datasets.layouts import stems_track
from tests.datasets.stem_folders import (
    RATE_HZ,
    noise,
    write_moises_track,
    write_stem_mp4,
    write_track,
    write_wave,
)


def check(folder: Path) -> TrackCheck:
    return check_track(stems_track(folder))


def test_a_clean_track_has_no_problems(tmp_path: Path) -> None:
    found = check(write_track(tmp_path, SOURCES, RATE_HZ, with_mixture=True))
    assert (found.problems, found.notes, found.missing, found.silent, found.clipped_samples) == ((), (), (), (), 0)
    assert (found.length_s, found.sample_rates_hz, found.channels) == (1.0, (RATE_HZ,), (2,))
    assert found.residual_db is not None
    assert found.residual_db < -120.0
    # Four independent noises of -20 dB in two channels; K-weighting lifts white noise by 3 dB or so.
    assert found.loudness_lufs == pytest.approx(-20 + 6 + 3 + 3 - 0.7, abs=1.0)


@pytest.mark.parametrize("error_db", [-60.0, -30.0, -10.0])
def test_the_residual_is_that_of_the_mixture(tmp_path: Path, error_db: float) -> None:
    write_track(tmp_path, ("drums", "bass"), 3 * RATE_HZ + 7)
    total = noise(3 * RATE_HZ + 7, 0) + noise(3 * RATE_HZ + 7, 1)
    mixture = total / (1 - 10 ** (error_db / 20))  # the sum is the mixture less a share of it
    write_wave(tmp_path / "mixture.wav", mixture)
    found = check(tmp_path)
    assert found.residual_db == pytest.approx(error_db, abs=0.05)
    wanted = (f"its mixture differs from the sum of its stems by {error_db:.1f} dB",)
    assert found.problems == (wanted if error_db > RESIDUAL_LIMIT_DB else ())


def test_a_stem_left_out_shows_in_the_residual(tmp_path: Path) -> None:
    write_track(tmp_path, SOURCES, RATE_HZ, with_mixture=True)
    (tmp_path / "bass.wav").unlink()
    found = check(tmp_path)
    assert found.missing == ("bass",)
    assert "lacks bass" in found.notes
    assert found.residual_db == pytest.approx(-6.0, abs=0.1)


def test_clipped_and_silent_stems_are_counted(tmp_path: Path) -> None:
    write_track(tmp_path, ("drums", "other", "vocals"))
    wave = noise(2000, 1)
    wave[0, 100:103] = [1.0, -1.0, 32767 / 32768]
    write_wave(tmp_path / "bass.wav", wave)
    write_wave(tmp_path / "vocals.wav", np.full((2, 2000), 5e-5, np.float32))
    found = check(tmp_path)
    assert found.clipped_samples == 3
    assert found.silent == ("vocals",)
    assert found.notes == ("silent: vocals", "3 clipped samples")
    assert found.problems == ()
    assert found.residual_db is None


def test_unequal_lengths_and_rates_are_problems(tmp_path: Path) -> None:
    write_track(tmp_path, SOURCES, RATE_HZ, with_mixture=True)
    write_wave(tmp_path / "bass.wav", noise(RATE_HZ // 2, 1))
    assert any("padded with silence: bass.wav (bass) by 0.500 s" in line for line in check(tmp_path).problems)
    write_wave(tmp_path / "bass.wav", noise(48_000, 1), 48_000)
    found = check(tmp_path)
    assert found.problems == ("its files have different sample rates (44100 Hz, 48000 Hz); bring them to one",)
    assert found.sample_rates_hz == (44_100, 48_000)
    assert found.residual_db is None
    write_wave(tmp_path / "bass.wav", noise(RATE_HZ, 1))
    write_wave(tmp_path / "mixture.wav", noise(RATE_HZ + 4410, 1))
    assert "its mixture is 0.100 s longer than its stems" in check(tmp_path).problems


def test_bad_files_are_problems_and_the_rest_is_read(tmp_path: Path) -> None:
    write_track(tmp_path, SOURCES, RATE_HZ, with_mixture=True)
    (tmp_path / "drums.wav").write_text("no audio")
    wave = noise(RATE_HZ, 1)
    wave[0, 20_000] = np.nan
    write_wave(tmp_path / "bass.wav", wave)
    content = (tmp_path / "other.wav").read_bytes()
    (tmp_path / "other.wav").write_bytes(content[: len(content) // 2])
    found = check(tmp_path)
    text = "\n".join(found.problems)
    assert "drums.wav cannot be read as audio" in text
    assert "bass.wav holds a NaN sample at 0.454 s" in text
    assert "other.wav ends early: 0.50 s of 1.00 s could be read" in text
    assert found.residual_db is None
    assert found.length_s == 1.0


def test_stem_files_are_compared_with_their_mixture(tmp_path: Path) -> None:
    t = np.arange(RATE_HZ) / RATE_HZ
    waves = [np.tile(0.1 * np.sin(2 * np.pi * hz * t), (2, 1)).astype(np.float32) for hz in (200, 400, 900, 2000)]
    write_stem_mp4(tmp_path / "train" / "A - a.stem.mp4", [np.sum(waves, axis=0), *waves])
    found = check_data(tmp_path)
    assert (found.layout, found.problems) == ("musdb18", 0)
    assert found.tracks[0].residual_db is not None
    assert -90.0 < found.tracks[0].residual_db < -30.0


def test_totals_and_json(tmp_path: Path) -> None:
    write_track(tmp_path / "a", SOURCES, RATE_HZ, with_mixture=True)
    write_track(tmp_path / "b", ("drums",), 2 * RATE_HZ)
    (tmp_path / "a" / "bass.wav").write_text("no audio")
    steps: list[tuple[int, int]] = []
    found = check_data(tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 2), (1, 2), (2, 2)]
    content = json.loads(json.dumps(found.to_dict()))
    assert (content["layout"], content["split"]) == ("stems", "all")
    assert content["total"] == {
        "tracks": 2,
        "length_s": 3.0,
        "sample_rates_hz": [RATE_HZ],
        "channels": [2],
        "missing_stems": 3,
        "silent_stems": 0,
        "clipped_samples": 0,
        "worst_residual_db": None,
        "tracks_with_problems": 1,
        "problems": 1,
    }


def test_a_track_that_cannot_be_understood_is_a_problem(tmp_path: Path) -> None:
    folder = write_moises_track(tmp_path / "song", {"vocals": ["v"]})
    (folder / "data.json").write_text("{")
    (found,) = check_data(tmp_path, "moisesdb").tracks
    assert len(found.problems) == 1
    assert (found.length_s, found.stems, found.loudness_lufs) == (0.0, (), None)


def test_no_track_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tracks in"):
        check_data(tmp_path)


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    write_wave(tmp_path / "long" / "drums.wav", np.full((2, 60 * RATE_HZ), 0.1, np.float32), subtype="PCM_16")
    tracemalloc.start()
    try:
        check(tmp_path / "long")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6  # the file is 21 MB as float32
