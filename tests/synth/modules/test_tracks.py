from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.audio.track_files import Part
from polyres.core.errors import InputError
from polyres.datasets.layouts import find_tracks
from polyres.datasets.stems import RootConfig, SegmentSampler, StemsConfig
from polyres.datasets.tracks import index_tracks, load_layout_track, read_stem
from polyres.synth.modules import tracks as modules
from polyres.synth.modules.tracks import (
    AS_WRITTEN,
    ModulePartReader,
    ModuleStems,
    Variation,
    draw_variation,
    judge,
    judge_folder,
    list_modules,
    render,
)
from tests.synth.modules.module_files import LENGTH_S, needs_openmpt, write_module

pytestmark = needs_openmpt


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module that all tests read."""
    return write_module(tmp_path_factory.mktemp("modules") / "tune.mod")


def test_instruments_are_given_to_their_stems(module: Path) -> None:
    verdicts = judge(module)
    assert verdicts.stems == {"drums": (0,), "bass": (1,), "other": (2,)}
    assert verdicts.is_usable
    assert verdicts.length_s == pytest.approx(LENGTH_S, abs=0.01)
    assert sum(one.share for one in verdicts.instruments) == pytest.approx(1.0)
    assert ModuleStems.from_dict(module, verdicts.to_dict()) == verdicts


def test_labels_by_hand_come_first(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_hand_labels", lambda: {"tune.mod": {"2": "unusable", "0": "other"}})
    verdicts = judge(module)
    assert verdicts.stems == {"bass": (1,), "other": (0,)}
    assert not verdicts.is_usable  # the chords have more than the share that may be left out


def test_stems_sum_to_the_whole(module: Path) -> None:
    length = 5 * 44_100
    stems = [render(module, (number,), length) for number in range(3)]
    whole = render(module, (0, 1, 2), length)
    error = np.abs(sum(stems) - whole).max() / np.abs(whole).max()
    assert error < 1e-5


@given(start_s=st.floats(0.0, LENGTH_S + 2), length=st.integers(0, 20_000), rate_hz=st.sampled_from([22_050, 48_000]))
@settings(max_examples=20)
def test_any_part_can_be_rendered(module: Path, start_s: float, length: int, rate_hz: int) -> None:
    wave = render(module, (0, 1, 2), length, rate_hz, start_s)
    assert wave.shape == (2, length)
    assert np.isfinite(wave).all()


def test_tempo_and_pitch_are_changed_apart(module: Path) -> None:
    rate_hz = 44_100

    def pitch_hz(variation: Variation) -> float:
        wave = render(module, (2,), 16_384, rate_hz, 0.1, variation).mean(0)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 18))
        return float(np.argmax(spectrum) * rate_hz / (1 << 18))

    written = pitch_hz(AS_WRITTEN)
    assert pitch_hz(Variation(pitch=1.5)) == pytest.approx(1.5 * written, rel=0.01)
    assert pitch_hz(Variation(tempo=1.5)) == pytest.approx(written, rel=0.01)
    fast = render(module, (0,), round(30 * rate_hz), rate_hz, variation=Variation(tempo=2.0))
    sounding = np.flatnonzero(np.abs(fast).max(0) > 1e-3)
    assert sounding[-1] / rate_hz == pytest.approx(LENGTH_S / 2, abs=0.5)


def test_width_scales_the_difference_of_the_channels(module: Path) -> None:
    def width(factor: float) -> float:
        left, right = render(module, (0,), 20_000, variation=Variation(width=factor))
        return float(np.abs(left - right).max() / np.abs(left + right).max())

    assert width(0.0) < 1e-4
    assert width(0.5) == pytest.approx(0.5 * width(1.0), rel=0.03)


def test_dropped_instruments_never_empty_a_stem() -> None:
    kept = [Variation(dropped=0.5, seed=seed).kept((3, 4, 5)) for seed in range(200)]
    assert all(kept)
    assert 0.4 < np.mean([4 in numbers for numbers in kept]) < 0.7
    assert AS_WRITTEN.kept((1, 2)) == (1, 2)
    assert Variation(dropped=1.0).kept((1, 2)) == (1, 2)


def test_variations_depend_on_the_generator_alone() -> None:
    first, second, other = (draw_variation(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second != other
    assert 0.8 < first.tempo < 1.2


def test_a_part_is_read_as_it_is_rendered(module: Path) -> None:
    reader = ModulePartReader(Part(module, None, (1,)))
    blocks = list(reader.blocks(10_000))
    assert {block.shape[1] for block in blocks[:-1]} == {10_000}
    wave = np.concatenate(blocks, axis=1)
    assert wave.shape[1] == pytest.approx(LENGTH_S * 44_100, abs=2)
    np.testing.assert_array_equal(wave, render(module, (1,), wave.shape[1]))


def test_what_was_judged_is_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path / "a" / "tune.mod")
    (tmp_path / "broken.xm").write_bytes(b"no module")
    calls = []
    monkeypatch.setattr(modules, "judge", lambda path: calls.append(path.name) or judge(path))
    first = judge_folder(tmp_path)
    assert (calls, [one.path.name for one in first]) == (["tune.mod", "broken.xm"], ["tune.mod"])
    assert judge_folder(tmp_path) == first
    assert len(calls) == 2
    (tmp_path / "broken.xm").write_bytes(b"still no module")
    judge_folder(tmp_path)
    assert calls[2:] == ["broken.xm"]


def test_packed_modules_are_found_and_played(tmp_path: Path, module: Path) -> None:
    packed = tmp_path / "tune.mod.gz"
    packed.write_bytes(gzip.compress(module.read_bytes()))
    assert list_modules(tmp_path) == [packed]
    np.testing.assert_array_equal(render(packed, (0,), 1000), render(module, (0,), 1000))


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8bno gzip"])
def test_what_is_no_module_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mod"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"'.*a\.mod'"):
        render(path, (0,), 10)


@pytest.fixture
def judged_once(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares judging equal modules again."""
    verdicts = judge(module)
    monkeypatch.setattr(modules, "judge", lambda path: replace(verdicts, path=path))


@pytest.mark.usefixtures("judged_once")
def test_artists_come_from_the_table_of_licences(tmp_path: Path) -> None:
    for folder, name in (("free", "one.mod"), ("free", "two.mod"), ("someone", "three.mod")):
        write_module(tmp_path / folder / name)
    (tmp_path / "LICENCES.tsv").write_text("file\tartist\nfree/one.mod\tAda\nfree/two.mod\tBen\n")
    tracks = find_tracks(tmp_path, "modules")
    assert [(track.name, track.artist) for track in tracks] == [("one", "Ada"), ("two", "Ben"), ("three", "someone")]
    assert [track.artist for track in find_tracks(tmp_path / "free", "modules")] == ["Ada", "Ben"]


@pytest.mark.usefixtures("judged_once")
def test_artists_are_drawn_alike_however_many_tracks_they_have(tmp_path: Path) -> None:
    for name in ("one.mod", "two.mod", "three.mod", "four.mod"):
        write_module(tmp_path / name)
    table = "file\tartist\none.mod\tAda\ntwo.mod\tBen\nthree.mod\tBen\nfour.mod\tBen\n"
    (tmp_path / "LICENCES.tsv").write_text(table)
    sources = ("drums", "bass", "other")
    shares = {}
    for draw_by in ("artist", "track"):
        root = RootConfig(path=str(tmp_path), layout="modules", draw_by=draw_by)
        sampler = SegmentSampler(StemsConfig(roots=(root,), sources=sources, segment_samples=1000))
        plans = [sampler.plan(np.random.default_rng(seed)) for seed in range(300)]
        stems = [draw.stem for plan in plans for draw in plan.values() if draw.stem is not None]
        shares[draw_by] = np.mean([stem.path.name == "one.mod" for stem in stems])
    assert shares["artist"] == pytest.approx(0.5, abs=0.06)
    assert shares["track"] == pytest.approx(0.25, abs=0.06)


def test_items_are_rendered_afresh_and_stems_of_a_module_share_the_variation(tmp_path: Path) -> None:
    write_module(tmp_path / "tune.mod")
    root = RootConfig(path=str(tmp_path), layout="modules")
    config = StemsConfig(
        roots=(root,), sources=("drums", "bass"), segment_samples=20_000, coherent_probability=1, silence_probability=0
    )
    sampler = SegmentSampler(config)
    plan = sampler.plan(np.random.default_rng(0))
    assert plan["drums"].variation == plan["bass"].variation != AS_WRITTEN
    first, again, later = sampler.draw(0, 0), sampler.draw(0, 0), sampler.draw(1, 0)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, later)


def test_speed_and_channels_hold_for_modules(tmp_path: Path) -> None:
    path = write_module(tmp_path / "tune.mod")
    (track,) = index_tracks(tmp_path, layout="modules")
    wave = read_stem(track.stems["other"], 1.0, 5000, 44_100, speed=1.25, channels=1)
    expected = render(path, (2,), 5000, 44_100, 1.0, Variation(tempo=1.25, pitch=1.25))
    np.testing.assert_array_equal(wave, expected[:1])


def test_whole_modules_are_tracks(tmp_path: Path) -> None:
    path = write_module(tmp_path / "tune.mod")
    (files,) = find_tracks(tmp_path, "modules")
    wave = load_layout_track(files)
    assert wave.shape[:2] == (4, 2)
    np.testing.assert_array_equal(wave[1].numpy(), render(path, (1,), wave.shape[2]))
    assert wave[3].abs().max() == 0.0
