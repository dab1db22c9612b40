from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.core.errors import InputError
from polyres.synth.loops import (
    SAMPLE_RATE_HZ,
    STEPS_PER_BAR,
    LoopBank,
    bass_track,
    draw_pattern,
    drum_track,
    loop_track,
    resampled,
)

NAMES = (
    "drum_heavy_kick",
    "drum_bass_hard",
    "drum_snare_soft",
    "drum_cymbal_closed",
    "drum_splash_hard",
    "drum_tom_hi_hard",
    "bass_hit_c",
    "bass_voxy_c",
    "bass_odd",
    "loop_breakbeat",
    "loop_drone_g_97",
    "loop_weirdo",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("loops")
    for index, name in enumerate(NAMES):
        time_s = np.arange(4000) / 22_050
        wave = 0.3 * np.sin(2 * np.pi * (100 + 10 * index) * time_s) * np.exp(-20 * time_s)
        soundfile.write(base / f"{name}.wav", wave, 22_050)
    (base / "notes.txt").write_text("no audio")
    return base


def test_sounds_are_sorted_by_name(folder: Path) -> None:
    bank = LoopBank.open(folder)
    assert {voice: len(sounds) for voice, sounds in bank.kit.items()} == {
        "kick": 2,
        "snare": 1,
        "hat": 1,
        "crash": 1,
        "tom": 1,
    }
    assert [pitch_class for pitch_class, _ in bank.basses] == [0]
    assert (len(bank.drum_loops), len(bank.tonal_loops)) == (1, 1)
    kick = bank.kit["kick"][0]
    assert kick.shape == (2, 8000)
    assert np.abs(kick).max() == pytest.approx(1.0)


def test_folders_without_drums_are_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"no kick and snare in '.*'; it needs files such as kick\.wav"):
            LoopBank.open(path)


def test_resampling_changes_length_and_pitch() -> None:
    wave = np.tile(np.sin(np.arange(8000) * 0.05), (2, 1))
    assert resampled(wave, 1.0) is wave
    fast = resampled(wave, 2.0)
    assert fast.shape == (2, 4000)
    assert fast == pytest.approx(wave[:, ::2], abs=1e-6)


def test_patterns_have_one_bar_and_only_known_voices() -> None:
    for seed in range(20):
        pattern = draw_pattern(np.random.default_rng(seed), ["kick", "snare", "hat"])
        assert {"kick", "snare"} <= set(pattern) <= {"kick", "snare", "hat"}
        assert all(len(steps) == STEPS_PER_BAR for steps in pattern.values())


def test_drums_fall_on_the_grid(folder: Path) -> None:
    bank = LoopBank.open(folder)
    click = np.zeros((2, 50), np.float32)
    click[:, 0] = 1.0
    clicks = LoopBank({voice: [click] for voice in bank.kit}, [], [], [])
    track = drum_track(clicks, np.random.default_rng(0), 16.0, 120.0)
    strong = np.flatnonzero(np.abs(track).max(axis=0) > 0.5) / SAMPLE_RATE_HZ
    beats = strong / 0.5
    on_beat = np.abs(beats - np.round(beats)) < 0.04
    assert len(strong) > 20
    assert on_beat.sum() >= 15


def test_bass_lines_play_and_empty_banks_are_silent(folder: Path) -> None:
    line = bass_track(LoopBank.open(folder), np.random.default_rng(0), 8.0, 120.0)
    assert line.shape == (2, 8 * SAMPLE_RATE_HZ)
    seconds = np.abs(line).reshape(2, 8, -1).max(axis=(0, 2))
    assert (seconds > 0.1).all()
    assert bass_track(LoopBank({}, [], [], []), np.random.default_rng(0), 1.0, 120.0).max() == 0.0


def test_tracks_depend_on_the_seed_alone(folder: Path) -> None:
    bank = LoopBank.open(folder)
    tracks = [loop_track(bank, seed, 6.0) for seed in (1, 1, 2)]
    assert {"drums", "bass"} <= set(tracks[0]) <= {"drums", "bass", "other"}
    assert all(np.array_equal(tracks[0][stem], tracks[1][stem]) for stem in tracks[0])
    assert not np.array_equal(tracks[0]["drums"], tracks[2]["drums"])
    for wave in tracks[0].values():
        assert wave.shape == (2, 6 * SAMPLE_RATE_HZ)
        assert np.abs(wave).max() == pytest.approx(0.7, rel=1e-3)
