from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.synth.instruments.bank import Preset
from polyres.synth.scores.midi import Control, Note, Score
from polyres.synth.scores.variations import DRUM_KITS, FAMILIES, TakeConfig, draw_take, perform

PRESETS = [Preset(0, program, "") for program in range(128)] + [Preset(128, kit, "") for kit in DRUM_KITS]
SCORE = Score(
    "piece",
    {
        "drums": tuple(Note(t / 4, t / 4 + 0.1, 9, 0, 36, 100) for t in range(40)),
        "bass": tuple(Note(t / 2, t / 2 + 0.4, 0, 33, 40 + t % 12, 80) for t in range(20)),
        "other": tuple(Note(t / 2, t / 2 + 0.4, 1, 29, 60 + t % 12, 80) for t in range(20)),
    },
    (Control(1.0, 0, 10, 20), Control(1.0, 0, 7, 90)),
    10.0,
)
STILL = TakeConfig(
    tempo_range=(1.0, 1.0),
    transpose_semitones=0,
    swap_probability=0.0,
    kit_swap_probability=0.0,
    velocity_jitter=0.0,
    part_gain_range=(1.0, 1.0),
    timing_jitter_ms=0.0,
    pan_probability=0.0,
)


def test_takes_depend_on_seed_piece_and_number() -> None:
    take = draw_take(SCORE, PRESETS, 1, 0, TakeConfig())
    assert draw_take(SCORE, PRESETS, 1, 0, TakeConfig()) == take
    renamed = Score("other piece", SCORE.stems, SCORE.controls, SCORE.length_s)
    others = [draw_take(SCORE, PRESETS, 2, 0, TakeConfig()), draw_take(SCORE, PRESETS, 1, 1, TakeConfig())]
    others.append(draw_take(renamed, PRESETS, 1, 0, TakeConfig()))
    assert len({other.tempo_factor for other in others} | {take.tempo_factor}) == 4


def test_no_program_is_in_two_families() -> None:
    members = [program for family in FAMILIES for program in family]
    assert len(members) == len(set(members))


@given(st.integers(0, 500))
def test_takes_stay_in_their_ranges_and_families(number: int) -> None:
    take = draw_take(SCORE, PRESETS, 0, number, TakeConfig())
    assert 0.85 <= take.tempo_factor <= 1.15
    assert -3 <= take.transpose_semitones <= 3
    assert take.programs[33] in range(32, 40)
    assert take.programs[29] in (29, 30)
    assert take.drum_kit in DRUM_KITS


def test_swaps_stay_inside_the_bank() -> None:
    presets = [Preset(0, 29, ""), Preset(0, 33, ""), Preset(0, 36, "")]
    takes = [draw_take(SCORE, presets, 0, number, TakeConfig(swap_probability=1.0)) for number in range(30)]
    assert {take.programs[33] for take in takes} == {33, 36}
    assert {take.programs[29] for take in takes} == {29}
    assert {take.drum_kit for take in takes} == {0}


def test_a_take_without_changes_plays_the_score() -> None:
    take = draw_take(SCORE, PRESETS, 0, 0, STILL)
    for stem, part in SCORE.stems.items():
        notes, _ = perform(SCORE, stem, take, 100.0)
        assert tuple(notes) == part


@pytest.mark.parametrize("number", range(5))
def test_transposition_spares_the_drums_and_tempo_moves_all(number: int) -> None:
    config = STILL.with_values({"tempo_range": (0.85, 1.15), "transpose_semitones": 3})
    take = draw_take(SCORE, PRESETS, 0, number, config)
    for stem, part in SCORE.stems.items():
        shift = 0 if stem == "drums" else take.transpose_semitones
        notes, controls = perform(SCORE, stem, take, 100.0)
        assert [n.pitch for n in notes] == [n.pitch + shift for n in part]
        assert [n.start_s for n in notes] == pytest.approx([n.start_s / take.tempo_factor for n in part])
        assert [c.time_s for c in controls if c.number == 7] == pytest.approx([1.0 / take.tempo_factor])


def test_jitter_is_small_and_stays_in_range() -> None:
    take = draw_take(SCORE, PRESETS, 0, 0, STILL.with_values({"timing_jitter_ms": 4.0, "velocity_jitter": 8.0}))
    notes, _ = perform(SCORE, "drums", take, 100.0)
    shifts = [abs(played.start_s - n.start_s) for played, n in zip(notes, SCORE.stems["drums"], strict=True)]
    assert 0.0 < max(shifts) < 0.025
    assert len({n.velocity for n in notes}) > 1
    assert all(1 <= n.velocity <= 127 and n.start_s >= 0.0 for n in notes)


def test_late_notes_are_left_out_and_drawn_pans_replace_those_of_the_score() -> None:
    take = draw_take(SCORE, PRESETS, 0, 0, STILL.with_values({"pan_probability": 1.0}))
    notes, controls = perform(SCORE, "bass", take, 2.0)
    assert [n.start_s for n in notes] == [0.0, 0.5, 1.0, 1.5]
    assert [c for c in controls if c.number == 10] == [Control(0.0, 0, 10, take.pans["0"])]
