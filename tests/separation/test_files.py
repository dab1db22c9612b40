"""From file to file: the same samples as in memory, nothing lost, nothing left behind."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from polyres.audio.files import probe, read_audio
from polyres.audio.sources import MemorySource
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.batch.jobs import OutputOptions, plan_jobs
from polyres.core.errors import InputError, OutputError, PolyresError, UnknownNameError
from polyres.separation.engine import separate_blocks
from polyres.separation.ensemble import Ensemble
from polyres.separation.files import TrackResult, separate_track
from polyres.separation.options import SeparateOptions

FLOAT = OutputOptions("wav", "float")


def write(path: Path, wave: Tensor, rate_hz: int = 44100, depth: Any = "float", **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with AudioWriter(path, WriteSpec(rate_hz, wave.shape[0], path.suffix[1:], depth, tags)) as writer:
        writer.write(wave.numpy())
    return path


def run(ensemble: Ensemble, path: Path, output: OutputOptions = FLOAT, **options: Any) -> TrackResult:
    job = plan_jobs([path], path.parent / "out", "m")[0]
    return separate_track(ensemble, ("m", "w1"), job, SeparateOptions(**options), output)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("rate_hz", [8000, 44100, 48000, 192_000])
@pytest.mark.parametrize("options", [{}, {"shifts": 2, "mixture_consistent": True}, {"two_stems": "bass", "batch": 3}])
def test_bit_equal_to_memory(fakes: ModuleType, tmp_path: Path, rate_hz: int, options: dict[str, Any]) -> None:
    ensemble = fakes.ensemble_of(fakes.ConvModel())
    wave = fakes.noise(2, 12_345)
    result = run(ensemble, write(tmp_path / "song.wav", wave, rate_hz), block_samples=1000, **options)
    chosen = SeparateOptions(block_samples=1000, **options)
    memory = np.concatenate(list(separate_blocks(MemorySource(wave, rate_hz), ensemble, chosen)), axis=-1)
    assert result.status == "done"
    for path, expected in zip(result.stems.values(), memory, strict=True):
        samples, found_hz = read_audio(path)
        assert found_hz == rate_hz
        assert np.array_equal(samples, expected)


def test_the_layout_and_what_is_told(fakes: ModuleType, tmp_path: Path) -> None:
    tags = {"title": "Ein Lied", "artist": "Jemand"}
    path = write(tmp_path / "Ein Lied.flac", fakes.noise(2, 4410), depth=16, **tags)
    result = run(fakes.ensemble_of(fakes.ConvModel()), path, OutputOptions("flac", 24))
    folder = tmp_path / "out" / "m" / "Ein Lied"
    assert result.folder == folder
    assert left_behind(folder) == ["bass.flac", "drums.flac", "other.flac", "separation.json", "vocals.flac"]
    info = probe(result.stems["drums"])
    assert (info.sample_rate_hz, info.channels, info.length_samples, info.codec) == (44100, 2, 4410, "flac")
    assert {key: info.tags.get(key) for key in tags} == tags
    assert result.audio_s == pytest.approx(0.1)
    assert result.real_time_factor == pytest.approx(result.seconds / 0.1)
    assert json.loads(json.dumps(result.to_dict()))["stems"]["bass"] == str(folder / "bass.flac")
    assert json.loads((folder / "separation.json").read_text())["audio"]["length_samples"] == 4410


@pytest.mark.parametrize("name", ["mp3", "m4a", "ogg", "opus", "flac", "wav"])
def test_every_format(fakes: ModuleType, tmp_path: Path, name: str) -> None:
    time_s = torch.arange(22050) / 44100
    path = write(tmp_path / "song.wav", 0.4 * torch.sin(2 * torch.pi * 440 * time_s).repeat(2, 1))
    result = run(fakes.ensemble_of(fakes.GainModel([1, 0.5, 0, -1])), path, OutputOptions(name))
    for stem, gain in zip(("drums", "bass", "other"), (1, 0.5, 0), strict=True):
        samples, _ = read_audio(result.stems[stem])
        level = float(np.sqrt((samples[:, 4410:-4410] ** 2).mean()))
        assert level == pytest.approx(0.4 * gain / math.sqrt(2), rel=0.05, abs=1e-3)


def test_one_gain_for_all_stems_where_one_would_clip(fakes: ModuleType, tmp_path: Path) -> None:
    wave = 0.9 * torch.sin(torch.arange(9000) * torch.pi / 50)[None].repeat(2, 1)
    path = write(tmp_path / "song.wav", wave)
    ensemble = fakes.ensemble_of(fakes.GainModel([2.0, 1.0, 0.5, -1.5]))
    result = run(ensemble, path, OutputOptions("wav", 24))
    assert result.gain == pytest.approx(1 / 1.8, rel=1e-3)
    assert result.warnings == (
        f"all stems were turned down by one gain of {result.gain:.4f} so that none clips; "
        "--bit-depth float keeps the level",
    )
    for stem, gain in zip(result.stems, (2.0, 1.0, 0.5, -1.5), strict=True):
        samples, _ = read_audio(result.stems[stem])
        np.testing.assert_allclose(samples, result.gain * gain * wave.numpy(), atol=1e-5)
    kept = run(ensemble, path, OutputOptions("wav", "float", overwrite=True))
    assert (kept.gain, kept.warnings) == (1.0, ())
    np.testing.assert_allclose(read_audio(kept.stems["drums"])[0], 2 * wave.numpy(), atol=1e-5)


def test_a_second_run_skips(fakes: ModuleType, tmp_path: Path) -> None:
    model = fakes.ConvModel()
    ensemble = fakes.ensemble_of(model)
    path = write(tmp_path / "song.wav", fakes.noise(2, 3000))
    run(ensemble, path)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    again = run(ensemble, path)
    assert (again.status, again.warnings, set(again.stems)) == ("skipped", (), set(fakes.SOURCES))
    assert again.real_time_factor is None
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == times
    assert run(ensemble, path, OutputOptions("wav", "float", overwrite=True)).status == "done"


def test_missing_stems_are_made_and_the_others_stay(fakes: ModuleType, tmp_path: Path) -> None:
    models = [fakes.GainModel([1.0] * 4) for _ in range(4)]
    ensemble = fakes.ensemble_of(*models, weights=torch.eye(4).tolist())
    path = write(tmp_path / "song.wav", fakes.noise(2, 3000))
    first = run(ensemble, path, stems=("vocals",))
    made = first.stems["vocals"].stat().st_mtime_ns
    models[3].lengths.clear()
    second = run(ensemble, path)
    assert second.status == "done"
    assert second.warnings == ()
    assert second.stems["vocals"].stat().st_mtime_ns == made
    assert [bool(model.lengths) for model in models] == [True, True, True, False]
    assert run(ensemble, path).status == "skipped"


def test_stems_made_later_get_the_gain_of_the_earlier_ones(fakes: ModuleType, tmp_path: Path) -> None:
    path = write(tmp_path / "song.wav", 0.9 * torch.sin(torch.arange(9000) * torch.pi / 50)[None])
    ensemble = fakes.ensemble_of(fakes.GainModel([2.0, 1.0, 0.5, 4.0]))
    gain = run(ensemble, path, OutputOptions("wav", 24), stems=("drums",)).gain
    later = run(ensemble, path, OutputOptions("wav", 24), stems=("drums", "bass", "other"))
    assert later.gain == gain
    assert len(later.warnings) == 1
    louder = run(ensemble, path, OutputOptions("wav", 24))
    assert louder.gain == pytest.approx(gain / 2, rel=1e-3)
    assert "stems that were there before have another gain, --overwrite makes all again" in louder.warnings[0]


def test_other_settings_do_not_replace_what_is_there(fakes: ModuleType, tmp_path: Path) -> None:
    ensemble = fakes.ensemble_of(fakes.ConvModel())
    path = write(tmp_path / "song.wav", fakes.noise(2, 3000))
    before = run(ensemble, path).stems["drums"].read_bytes()
    other = run(ensemble, path, shifts=1)
    assert other.status == "skipped"
    assert len(other.warnings) == 4
    assert "drums.wav: kept, but it was made otherwise (shifts 0, now 1; seed None, now 0)" in other.warnings[0]
    assert other.stems["drums"].read_bytes() == before
    again = run(ensemble, path, OutputOptions("wav", "float", overwrite=True), shifts=1)
    assert again.stems["drums"].read_bytes() != before
    assert run(ensemble, path, shifts=1).warnings == ()
    write(path, fakes.noise(2, 4000))
    assert "(the input file has changed since); --overwrite makes it again" in run(ensemble, path, shifts=1).warnings[0]


def test_a_strange_file_in_the_way_is_kept(fakes: ModuleType, tmp_path: Path) -> None:
    path = write(tmp_path / "song.wav", fakes.noise(2, 3000))
    mine = tmp_path / "out" / "m" / "song" / "drums.wav"
    mine.parent.mkdir(parents=True)
    mine.write_text("my notes")
    result = run(fakes.ensemble_of(fakes.ConvModel()), path)
    assert result.status == "done"
    assert mine.read_text() == "my notes"
    assert "drums.wav: kept, but it is not known how it was made; --overwrite makes it again" in result.warnings[0]


@pytest.mark.parametrize("depth", [24, "float"])
@pytest.mark.parametrize("first", [False, True])
def test_an_interruption_leaves_everything_as_it_was(
    fakes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: Any, first: bool
) -> None:
    model = fakes.ConvModel()
    ensemble = fakes.ensemble_of(model)
    path = write(tmp_path / "song.wav", fakes.noise(2, 9000))
    if not first:
        run(ensemble, path, OutputOptions("wav", depth))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    calls = 0
    forward = model.forward

    def interrupted(mix: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            assert len(left_behind(tmp_path)) > len(before)
            raise KeyboardInterrupt
        return forward(mix)

    monkeypatch.setattr(model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(ensemble, path, OutputOptions("wav", depth, overwrite=True))
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert (tmp_path / "out").exists() == (not first)


def test_the_result_appears_all_at_once(fakes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fakes.ConvModel()
    seen: list[bool] = []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda mix: (seen.append((tmp_path / "out/m/song").exists()), forward(mix))[1]
    )
    run(fakes.ensemble_of(model), write(tmp_path / "song.wav", fakes.noise(2, 9000)))
    assert seen
    assert not any(seen)
    assert [file.name for file in (tmp_path / "out" / "m").iterdir()] == ["song"]


def bad_inputs(folder: Path) -> dict[str, Path]:
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("these are words, not sounds")
    whole = write(folder / "whole.wav", torch.zeros(2, 1000), depth=16).read_bytes()
    (folder / "cut.wav").write_bytes(whole[:30])
    soundfile.write(folder / "none.wav", np.zeros((0, 2)), 44100)
    samples = np.zeros((5000, 2), np.float32)
    samples[3000, 1] = np.nan
    soundfile.write(folder / "nan.wav", samples, 44100, subtype="FLOAT")
    names = ("empty", "text", "cut", "none", "nan", "missing")
    return {name: folder / f"{name}.wav" for name in names}


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "none", "nan", "missing"])
def test_a_bad_input_is_one_line_and_leaves_nothing(fakes: ModuleType, tmp_path: Path, kind: str) -> None:
    path = bad_inputs(tmp_path)[kind]
    with pytest.raises(InputError, match=rf"{kind}\.wav") as caught:
        run(fakes.ensemble_of(fakes.ConvModel()), path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("channels", "rate_hz", "length"),
    [(1, 44100, 1), (2, 8000, 1), (1, 8000, 8000), (2, 192_000, 9600), (6, 44100, 4410)],
)
def test_unusual_inputs_succeed(fakes: ModuleType, tmp_path: Path, channels: int, rate_hz: int, length: int) -> None:
    path = write(tmp_path / "song.wav", fakes.noise(channels, length), rate_hz)
    result = run(fakes.ensemble_of(fakes.ConvModel()), path, OutputOptions("wav", 24))
    for stem in result.stems.values():
        info = probe(stem)
        assert (info.channels, info.sample_rate_hz, info.length_samples) == (channels, rate_hz, length)


def test_silence_stays_silence(fakes: ModuleType, tmp_path: Path) -> None:
    path = write(tmp_path / "song.wav", torch.zeros(2, 5000))
    result = run(fakes.ensemble_of(fakes.ConvModel()), path, OutputOptions("flac", 16), mixture_consistent=True)
    assert all(not read_audio(stem)[0].any() for stem in result.stems.values())


@pytest.mark.parametrize(
    "stem", ["Žluťoučký kůň 🎶 – 日本語", "x" * 250, "ü" * 125, " spaces  ", "a.b.c", "100% [live]"]
)
def test_any_name(fakes: ModuleType, tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.wav"
    soundfile.write(os.fsencode(path), fakes.noise(1, 2000).numpy().T, 44100)
    result = run(fakes.ensemble_of(fakes.ConvModel()), path, OutputOptions("flac", 16))
    assert result.folder is not None
    assert all(file.is_file() and file.parent == result.folder for file in result.stems.values())


def test_a_file_cut_in_mid_stream_is_separated_up_to_the_cut(fakes: ModuleType, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.wav", fakes.noise(2, 20_000), depth=16).read_bytes()
    path = tmp_path / "cut.wav"
    path.write_bytes(whole[: len(whole) // 2])
    result = run(fakes.ensemble_of(fakes.ConvModel()), path)
    assert len(result.warnings) == 1
    assert "ends early" in result.warnings[0]
    samples, _ = read_audio(result.stems["bass"])
    assert samples.shape[1] == pytest.approx(10_000, abs=100)


def test_what_a_format_cannot_hold_is_mixed_down_and_told(fakes: ModuleType, tmp_path: Path) -> None:
    path = write(tmp_path / "song.wav", fakes.noise(6, 20_000), rate_hz=192_000)
    result = run(fakes.ensemble_of(fakes.GainModel([1.0, 0.5, 0.25, 0.0])), path, OutputOptions("mp3"))
    assert result.warnings == (
        f"{path}: 192000 Hz resampled to 48000 Hz and 6 channels mixed down to 2, which mp3 can hold; wav keeps all",
    )
    read, rate_hz = read_audio(result.stems["drums"])
    assert (rate_hz, read.shape) == (48_000, (2, 5000))


def test_an_unknown_stem_is_refused_before_the_work(fakes: ModuleType, tmp_path: Path) -> None:
    model = fakes.ConvModel()
    model.forward = None  # type: ignore[assignment]
    path = write(tmp_path / "song.wav", fakes.noise(2, 2000))
    with pytest.raises(UnknownNameError, match="unknown stem 'drum'; did you mean 'drums'"):
        run(fakes.ensemble_of(model), path, stems=("drum",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["out", "out/m", "out/m/song"])
def test_a_file_where_a_folder_is_needed(fakes: ModuleType, tmp_path: Path, where: str) -> None:
    path = write(tmp_path / "song.wav", fakes.noise(2, 2000))
    (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / where).write_text("in the way")
    before = left_behind(tmp_path)
    with pytest.raises(
        OutputError, match=r"song: cannot be written \(.*\); choose another --out or make room"
    ) as caught:
        run(fakes.ensemble_of(fakes.ConvModel()), path)
    assert "\n" not in str(caught.value)
    assert left_behind(tmp_path) == before


@pytest.mark.parametrize("depth", [24, "float"])
def test_a_full_disk_leaves_nothing(
    fakes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: Any
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("polyres.separation.files.manifest_text", full)
    path = write(tmp_path / "song.wav", fakes.noise(2, 2000))
    with pytest.raises(PolyresError, match=r"cannot be written \(No space left on device\)"):
        run(fakes.ensemble_of(fakes.ConvModel()), path, OutputOptions("wav", depth))
    assert left_behind(tmp_path) == ["song.wav"]


def test_stems_of_other_weights_are_not_passed_off(fakes: ModuleType, tmp_path: Path) -> None:
    path = write(tmp_path / "song.wav", fakes.noise(2, 2000))
    job = plan_jobs([path], tmp_path / "out", "m")[0]
    ensemble = fakes.ensemble_of(fakes.ConvModel())
    separate_track(ensemble, ("m", "1" * 16), job, SeparateOptions(), FLOAT)
    kept = (job.folder / "bass.wav").read_bytes()
    with pytest.raises(OutputError, match=r"drums\.wav was made by other weights \(m, now n\); choose another --out"):
        separate_track(ensemble, ("n", "2" * 16), job, SeparateOptions(), FLOAT)
    assert (job.folder / "bass.wav").read_bytes() == kept
    over = separate_track(ensemble, ("n", "2" * 16), job, SeparateOptions(), replace(FLOAT, overwrite=True))
    assert over.status == "done"


def test_a_known_error_is_raised_where_the_job_runs(fakes: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.wav does not exist; check the path"):
        run(fakes.ensemble_of(fakes.ConvModel()), tmp_path / "gone.wav")
