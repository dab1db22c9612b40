from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.core.errors import InputError, OutputError
from polyres.synth.instruments.bank import find_bank, read_presets
from polyres.synth.instruments.render import (
    SAMPLE_RATE_HZ,
    is_finished,
    on_grid,
    read_manifest,
    render_stem,
    render_take,
    write_track,
)
from polyres.synth.scores.midi import Note, Score
from polyres.synth.scores.variations import Take, TakeConfig, draw_take

SCORE = Score(
    "piece",
    {
        "drums": tuple(Note(t / 4, t / 4 + 0.1, 9, 0, 38, 100) for t in range(8)),
        "bass": (Note(0.5, 1.5, 0, 33, 45, 100),),
        "other": (Note(0.0, 2.0, 1, 0, 69, 90),),
    },
    (),
    2.0,
)
STILL = TakeConfig(
    tempo_range=(1.0, 1.0),
    transpose_semitones=0,
    swap_probability=0.0,
    timing_jitter_ms=0.0,
    pan_probability=0.0,
    stem_gain_db=0.0,
    reverb_probability=0.0,
    chorus_probability=0.0,
)
needs_bank = pytest.mark.skipif(
    find_bank() is None or shutil.which("fluidsynth") is None, reason="needs fluidsynth and a General MIDI bank"
)


def still_take(score: Score = SCORE) -> Take:
    bank = find_bank()
    return draw_take(score, [] if bank is None else read_presets(bank), 0, 0, STILL)


@needs_bank
def test_notes_sound_in_time_and_tune() -> None:
    bank = find_bank()
    assert bank is not None
    wave = render_stem(SCORE, "bass", still_take(), bank, 3.0)
    assert wave.shape == (2, 3 * SAMPLE_RATE_HZ)
    assert wave.dtype == np.float32
    assert np.abs(wave[:, : round(0.48 * SAMPLE_RATE_HZ)]).max() < 1e-4
    sounding = wave[0, round(0.6 * SAMPLE_RATE_HZ) : round(1.4 * SAMPLE_RATE_HZ)]
    spectrum = np.abs(np.fft.rfft(sounding * np.hanning(len(sounding)), 1 << 18))
    strongest_hz = np.argmax(spectrum) * SAMPLE_RATE_HZ / (1 << 18)
    harmonic = strongest_hz / 110.0
    assert round(harmonic) >= 1
    assert harmonic == pytest.approx(round(harmonic), abs=0.02 * round(harmonic))


@needs_bank
def test_takes_come_back_bit_for_bit_and_leave_out_silent_stems() -> None:
    bank = find_bank()
    assert bank is not None
    waves, again = (render_take(SCORE, still_take(), bank) for _ in range(2))
    assert list(waves) == ["drums", "bass", "other"]
    assert all(np.array_equal(waves[stem], again[stem]) for stem in waves)
    short = render_take(SCORE, still_take(), bank, max_length_s=0.4)
    assert "bass" not in short


def test_a_missing_program_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    take = draw_take(SCORE, [], 0, 0, STILL)
    with pytest.raises(InputError, match=r"the program 'fluidsynth' is not installed; install it"):
        render_stem(SCORE, "bass", take, Path("bank.sf2"), 1.0)


def test_a_failing_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "fluidsynth"
    fake.write_text("#!/bin/sh\necho 'out of order' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(fake))
    take = draw_take(SCORE, [], 0, 0, STILL)
    with pytest.raises(InputError, match=r"fluidsynth could not play 'piece' with the bank 'bank.sf2': out of order"):
        render_stem(SCORE, "bass", take, Path("bank.sf2"), 1.0)


def test_track_folders_appear_whole(tmp_path: Path) -> None:
    folder = tmp_path / "songs" / "a"
    wave = np.linspace(-0.5, 0.5, 200, dtype=np.float32).reshape(2, 100)
    assert not is_finished(folder)
    write_track(folder, {"drums": wave}, {"seed": 1})
    assert is_finished(folder)
    stored, rate_hz = soundfile.read(folder / "drums.wav")
    assert np.array_equal(stored.T, on_grid(wave) / 32768)
    np.testing.assert_allclose(stored.T, wave, atol=0.5 / 32768)
    assert rate_hz == SAMPLE_RATE_HZ
    assert soundfile.info(folder / "drums.wav").subtype == "PCM_16"
    assert json.loads((folder / "manifest.json").read_text()) == {"seed": 1}
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


def test_unwritable_places_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write '.*file/a' \(.*\); make room or choose a writable"):
        write_track(tmp_path / "file" / "a", {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot write '.*a' \(No space left on device\); make room"):
        write_track(tmp_path / "a", {"drums": np.zeros((2, 4), np.float32)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_track_that_another_process_finished_first_stays(tmp_path: Path) -> None:
    write_track(tmp_path / "a", {"drums": np.zeros((2, 4), np.float32)}, {"first": True})
    write_track(tmp_path / "a", {"drums": np.ones((2, 4), np.float32)}, {"first": False})
    assert read_manifest(tmp_path / "a") == {"first": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_samples_are_rounded_to_the_grid_and_stay_in_range() -> None:
    wave = np.array([[0.0, 0.5, -1.0, 1.0, 2.0, 1.6 / 32768, -1.6 / 32768]], np.float32)
    assert on_grid(wave).tolist() == [[0, 16384, -32768, 32767, 32767, 2, -2]]


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot read '.*manifest.json'"), ("[]", "is no manifest; remove the folder")]
)
def test_broken_manifests_are_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path)
