from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import ConfigError, InputError
from polyres.datasets.augment.time import remix_groups, stretch
from tests.datasets.augment.cases import RATE_HZ, batch, only, pitch_hz, rows, run

SONG_RATE_HZ = 16_000


def tone(frequency_hz: float, seconds: float = 1.0, channels: int = 1) -> Tensor:
    time_s = torch.arange(round(seconds * SONG_RATE_HZ), dtype=torch.float64) / SONG_RATE_HZ
    return (0.3 * torch.sin(2 * torch.pi * frequency_hz * time_s)).float().expand(channels, -1)


def clicks(places: list[int], length: int) -> np.ndarray:
    wave = np.zeros((1, length), np.float32)
    wave[:, places] = 1.0
    return wave


@settings(max_examples=25)
@given(frequency_hz=st.floats(200, 3000), semitones=st.integers(-12, 12), speed=st.floats(0.88, 1.12))
def test_pitch_moves_by_the_right_ratio_at_any_tempo(frequency_hz: float, semitones: int, speed: float) -> None:
    wave = tone(frequency_hz, 1.5).numpy()
    moved = stretch(wave, semitones, speed, SONG_RATE_HZ)
    assert moved.shape == (1, round(wave.shape[1] / speed))
    expected_hz = frequency_hz * 2 ** (semitones / 12)
    # A spectrum of the shortest of these waves resolves about 1.5 Hz.
    assert pitch_hz(torch.from_numpy(moved[0, 4000:-4000]), SONG_RATE_HZ) == pytest.approx(
        expected_hz, rel=0.01, abs=1.5
    )
    assert moved[0, 4000:-4000].std() == pytest.approx(wave.std(), rel=0.15)


@settings(max_examples=25)
@given(speed=st.floats(0.85, 1.15), start=st.integers(4000, 6000))
def test_tempo_moves_events_to_their_new_times(speed: float, start: int) -> None:
    places = [start, start + 8000, start + 16_000]
    moved = np.abs(stretch(clicks(places, 32_000), 0.0, speed, SONG_RATE_HZ)[0])
    for place in places:
        around = slice(round(place / speed) - 2000, round(place / speed) + 2000)
        assert moved[around].argmax() - 2000 == pytest.approx(0, abs=0.005 * SONG_RATE_HZ)


@pytest.mark.parametrize("semitones", [-2, 0, 1, 2])
def test_pitch_alone_keeps_events_in_place(semitones: int) -> None:
    moved = np.abs(stretch(clicks([6000, 20_000], 32_000), semitones, 1.0, SONG_RATE_HZ)[0])
    for place in (6000, 20_000):
        assert moved[place - 1000 : place + 1000].argmax() - 1000 == pytest.approx(0, abs=2)


def test_the_end_does_not_fade() -> None:
    moved = stretch(tone(440.0).numpy(), 2.0, 1.0, SONG_RATE_HZ)[0]
    assert moved[-400:].std() > 0.8 * moved[4000:8000].std()


def test_channels_are_taken_in_pairs_and_keep_their_order() -> None:
    wave = np.concatenate([tone(400.0 * (channel + 1)).numpy() for channel in range(5)])
    moved = stretch(wave, 2.0, 1.1, SONG_RATE_HZ)
    found_hz = [pitch_hz(torch.from_numpy(channel[3000:-3000]), SONG_RATE_HZ) for channel in moved]
    assert found_hz == pytest.approx([400.0 * (channel + 1) * 2 ** (2 / 12) for channel in range(5)], rel=0.01)


def found_semitones(stems: Tensor, frequency_hz: float) -> list[list[float]]:
    return [
        [12 * float(np.log2(pitch_hz(stem[0, 3000:-4000], SONG_RATE_HZ) / frequency_hz)) for stem in item]
        for item in stems
    ]


def test_repitch_draws_whole_semitones_alike_for_the_stems_of_an_item() -> None:
    stems = tone(440.0).expand(12, 2, 1, -1)
    after = run(stems, only("repitch", rate_hz=SONG_RATE_HZ, max_semitones=3), 1)
    found = torch.tensor(found_semitones(after, 440.0))
    assert (found - found.round()).abs().max() < 0.15
    assert torch.equal(found[:, 0].round(), found[:, 1].round())
    assert found.abs().max() < 3.5
    assert len(set(found[:, 0].round().tolist())) >= 4
    own = torch.tensor(found_semitones(run(stems, only("repitch", rate_hz=SONG_RATE_HZ, same=False), 1), 440.0))
    assert not torch.equal(own[:, 0].round(), own[:, 1].round())


@settings(max_examples=20)
@given(frequency_hz=st.floats(200, 3000), seed=st.integers(0, 1000))
def test_tempo_keeps_the_pitch(frequency_hz: float, seed: int) -> None:
    stems = tone(frequency_hz).expand(1, 1, 1, -1)
    after = run(stems, only("tempo", rate_hz=SONG_RATE_HZ), seed)
    assert after.shape == stems.shape
    assert not torch.equal(after, stems)
    assert pitch_hz(after[0, 0, 0, 3000:-4000], SONG_RATE_HZ) == pytest.approx(frequency_hz, rel=0.01)


def test_tempo_is_normal_within_its_limits_and_zeros_fill_the_end() -> None:
    length = 2000
    stems = batch(150, 1, 1, length)
    config = only("tempo", max_tempo_percent=12.0, tempo_std_percent=8.0)
    heard = (run(stems, config)[:, 0, 0] != 0).flip(-1).int().argmax(dim=-1)
    ends = length - heard
    assert ends.min() == round(length / 1.12)
    speeds = length / ends[ends < length]
    assert 0.25 < (ends < length).float().mean() < 0.75  # the others are slower, and cut
    assert 1.03 < speeds.median() < 1.08


@given(max_percent=st.floats(0, 50), length=st.integers(2, 400), name=st.sampled_from(["repitch", "tempo"]))
def test_trimming_leaves_no_zeros_at_the_end(max_percent: float, length: int, name: str) -> None:
    stems = batch(3, 2, 1, length)
    config = only(name, max_tempo_percent=max_percent, tempo_std_percent=50.0, trim=True)
    after = run(stems, config)
    kept = int(length * (1 - max_percent / 100))
    assert after.shape[-1] == kept
    assert (after[..., -1:] != 0).all()
    assert torch.equal(run(stems, only(name, 0.0, max_tempo_percent=max_percent, trim=True)), stems[..., :kept])


@pytest.mark.parametrize("name", ["repitch", "tempo"])
def test_only_chosen_items_are_touched(name: str) -> None:
    stems = batch(12, 2, 1, 800)
    changed = (run(stems, only(name, 0.5), 1) != stems).flatten(2).any(-1)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert 2 <= changed[:, 0].sum() <= 10
    own = (run(stems, only(name, 0.5, same=False), 1) != stems).flatten(2).any(-1)
    assert not torch.equal(own[:, 0], own[:, 1])


def test_nothing_to_change_is_the_identity() -> None:
    stems = batch(3, 2, 2, 500)
    still = {"max_tempo_percent": 0.0, "tempo_std_percent": 5.0}
    assert torch.equal(run(stems, only("tempo", **still)), stems)
    assert torch.equal(run(stems, only("repitch", max_semitones=0, **still)), stems)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    with pytest.raises(
        ConfigError, match=r"repitch and tempo need python-stretch; install it with pip install 'polyres"
    ):
        run(batch(), only("tempo", 1e-9))
    run(batch(), only("tempo", 0.0))


def numbered(items: int, sources: int, channels: int = 2, length: int = 3) -> Tensor:
    """Stems whose every sample says which item and source it is from."""
    number = torch.arange(items)[:, None] * 100 + torch.arange(sources)
    return number[..., None, None].expand(-1, -1, channels, length).float().clone()


@given(
    items=st.integers(1, 13),
    sources=st.integers(1, 4),
    group_size=st.none() | st.integers(1, 15),
    seed=st.integers(0, 1000),
)
def test_remix_keeps_every_stem_under_its_source_and_in_its_group(
    items: int, sources: int, group_size: int | None, seed: int
) -> None:
    stems = numbered(items, sources)
    mixed = run(stems, only("remix", group_size=group_size), seed)
    assert (mixed == mixed[..., :1, :1]).all()
    for group in remix_groups(items, group_size):
        for source in range(sources):
            assert sorted(mixed[group, source, 0, 0].tolist()) == stems[group, source, 0, 0].tolist()


def test_remix_gives_every_source_an_order_of_its_own() -> None:
    mixed = run(numbered(6, 4), only("remix"))[:, :, 0, 0] - torch.arange(4)
    assert len({tuple(order) for order in mixed.T.tolist()}) > 1


def test_remix_reaches_every_order_in_a_group_equally_often() -> None:
    seen = torch.zeros(3, 3)
    for seed in range(600):
        items = (run(numbered(6, 1), only("remix", group_size=3), seed)[:3, 0, 0, 0] / 100).long()
        seen[torch.arange(3), items] += 1
    assert (seen / 600 - 1 / 3).abs().max() < 0.08


@given(batch_size=st.integers(1, 100), group_size=st.none() | st.integers(1, 110))
def test_groups_are_full_and_nearly_equal(batch_size: int, group_size: int | None) -> None:
    groups = [group.tolist() for group in remix_groups(batch_size, group_size)]
    sizes = [len(group) for group in groups]
    assert [item for group in groups for item in group] == list(range(batch_size))
    assert max(sizes) - min(sizes) <= 1
    if group_size is None or group_size >= batch_size:
        assert sizes == [batch_size]
    else:
        assert len(sizes) == batch_size // group_size
        assert min(sizes) >= group_size
        assert batch_size % group_size or set(sizes) == {group_size}


@given(length=st.integers(1, 60), limit=st.integers(1, 80), seed=st.integers(0, 100))
def test_shift_moves_and_fills_with_zeros(length: int, limit: int, seed: int) -> None:
    stems = batch(2, 2, 1, length)
    for before, after in zip(rows(stems), rows(run(stems, only("shift", max_samples=limit), seed)), strict=True):
        padded = torch.nn.functional.pad(before, (length, length))
        moved = [padded[:, start : start + length] for start in range(2 * length + 1)]
        offsets = [length - start for start, wave in enumerate(moved) if torch.equal(wave, after)]
        assert offsets
        assert min(abs(offset) for offset in offsets) <= limit


@given(
    spare=st.integers(1, 40),
    length=st.integers(1, 50),
    probability=st.floats(0, 1),
    same=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_crop_cuts_each_stem_from_one_place(spare: int, length: int, probability: float, same: bool, seed: int) -> None:
    stems = torch.arange(spare + length).float().expand(3, 4, 2, -1)
    after = run(stems, only("crop", probability, shift_s=spare / RATE_HZ, same=same), seed)
    starts = after[..., :1]
    assert torch.equal(after, starts + torch.arange(length))
    assert starts.min() >= 0
    assert starts.max() < spare
    assert (starts == starts[:, :, :1]).all()
    assert not same or (starts == starts[:, :1]).all()


def test_crop_uses_all_places_and_none_with_probability_0() -> None:
    stems = torch.arange(104).float().expand(40, 4, 1, -1)
    starts = run(stems, only("crop", shift_s=4 / RATE_HZ))[..., 0]
    assert torch.bincount(starts.flatten().long(), minlength=4).min() > 20
    assert (starts != starts[:, :1]).any()
    assert torch.equal(run(stems, only("crop", 0.0, shift_s=4 / RATE_HZ)), stems[..., :100])
    assert torch.equal(run(stems, only("crop", shift_s=0.0)), stems)


def test_crop_refuses_segments_that_are_too_short() -> None:
    with pytest.raises(
        InputError,
        match=r"segments of 8000 samples leave nothing after crop.shift_s = 1 s \(8000 samples\); read longer",
    ):
        run(batch(1, 1, 1, 8000), only("crop", shift_s=1.0))
