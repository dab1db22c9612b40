from __future__ import annotations

import sys
from pathlib import Path

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.synth.scores.midi import Control, Note, read_score, stem_of, write_score

TICKS = 480


def write_midi(path: Path, messages: list[tuple[int, mido.Message | mido.MetaMessage]]) -> Path:
    """A file from messages at absolute ticks; 120 beats per minute unless a message says otherwise."""
    track = mido.MidiTrack()
    last = 0
    for tick, message in sorted(messages, key=lambda pair: pair[0]):
        track.append(message.copy(time=tick - last))
        last = tick
    midi_file = mido.MidiFile(ticks_per_beat=TICKS)
    midi_file.tracks.append(track)
    midi_file.save(path)
    return path


def note(channel: int, pitch: int, start: int, end: int, velocity: int = 90) -> list[tuple[int, mido.Message]]:
    on = mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)
    return [(start, on), (end, mido.Message("note_off", channel=channel, note=pitch))]


def program(channel: int, number: int, tick: int = 0) -> tuple[int, mido.Message]:
    return tick, mido.Message("program_change", channel=channel, program=number)


@pytest.mark.parametrize(
    ("channel", "number", "stem"),
    [
        (9, 0, "drums"),
        (9, 33, "drums"),
        (0, 32, "bass"),
        (15, 39, "bass"),
        (0, 31, "other"),
        (0, 40, "other"),
        (0, 117, "drums"),
        (0, 51, "other"),
        (0, 52, None),
        (0, 54, None),
        (0, 55, "other"),
    ],
)
def test_stems_follow_channel_and_program(channel: int, number: int, stem: str | None) -> None:
    assert stem_of(channel, number) == stem


def test_notes_are_split_by_stem_with_times_in_seconds(tmp_path: Path) -> None:
    messages = [program(0, 33), program(1, 0), *note(0, 40, 0, 480), *note(1, 60, 480, 960), *note(9, 36, 240, 250)]
    messages.append((480, mido.MetaMessage("set_tempo", tempo=1_000_000)))
    score = read_score(write_midi(tmp_path / "song.mid", messages))
    assert list(score.stems) == ["drums", "bass", "other"]
    assert score.stems["bass"] == (Note(0.0, 0.5, 0, 33, 40, 90),)
    assert score.stems["other"] == (Note(0.5, 1.5, 1, 0, 60, 90),)
    assert score.stems["drums"][0].start_s == 0.25
    assert (score.name, score.length_s) == ("song", 1.5)


def test_a_program_change_moves_the_channel_to_another_stem(tmp_path: Path) -> None:
    messages = [program(0, 33), *note(0, 40, 0, 480), program(0, 30, 480), *note(0, 52, 480, 960)]
    score = read_score(write_midi(tmp_path / "a.mid", messages))
    assert [n.pitch for n in score.stems["bass"]] == [40]
    assert [n.pitch for n in score.stems["other"]] == [52]


def test_odd_notes_are_closed(tmp_path: Path) -> None:
    twice = [*note(0, 60, 0, 960), (480, mido.Message("note_on", note=60, velocity=70))]  # starts again while it sounds
    silent_off = [
        (0, mido.Message("note_on", note=62, velocity=50)),
        (240, mido.Message("note_on", note=62, velocity=0)),
    ]
    hanging = [(0, mido.Message("note_on", note=64, velocity=50))]
    score = read_score(write_midi(tmp_path / "a.mid", [*twice, *silent_off, *hanging]))
    times = {(n.pitch, n.start_s): n.end_s for n in score.stems["other"]}
    assert times == {(60, 0.0): 0.5, (60, 0.5): 1.0, (62, 0.0): 0.25, (64, 0.0): 1.0}


def test_wheel_and_controllers_are_kept_but_not_effect_sends(tmp_path: Path) -> None:
    controls = [
        (240, mido.Message("pitchwheel", channel=2, pitch=-300)),
        (240, mido.Message("control_change", channel=2, control=7, value=100)),
        (240, mido.Message("control_change", channel=2, control=91, value=100)),
    ]
    score = read_score(write_midi(tmp_path / "a.mid", [*note(2, 60, 0, 480), *controls]))
    assert score.controls == (Control(0.25, 2, -1, -300), Control(0.25, 2, 7, 100))


def test_unusable_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "text.mid").write_text("no MIDI")
    for name in ("text.mid", "missing.mid"):
        with pytest.raises(InputError, match=rf"cannot read '.*{name}' as MIDI .*; give a standard \.mid file"):
            read_score(tmp_path / name)
    with pytest.raises(InputError, match=r"holds no note to play; give a MIDI file with notes"):
        read_score(write_midi(tmp_path / "empty.mid", [program(0, 1)]))
    with pytest.raises(InputError, match="holds no note to play"):
        read_score(write_midi(tmp_path / "choir.mid", [program(0, 52), *note(0, 60, 0, 10)]))


notes = st.builds(
    lambda start, length, channel, program, pitch, velocity: Note(
        start, start + length, channel, program, pitch, velocity
    ),
    st.integers(0, 90).map(lambda tenth: tenth / 10),
    st.integers(1, 20).map(lambda tenth: tenth / 10),
    st.integers(0, 15),
    st.just(33),
    st.integers(0, 127),
    st.integers(1, 127),
)


@given(st.lists(notes, min_size=1, max_size=20, unique_by=lambda n: (n.channel, n.pitch, n.start_s)))
def test_writing_and_reading_gives_the_same_notes(
    tmp_path_factory: pytest.TempPathFactory, written: list[Note]
) -> None:
    path = tmp_path_factory.mktemp("midi") / "a.mid"
    write_score(written, (), 12.0, path)
    read = [n for part in read_score(path).stems.values() for n in part]

    def key(n: Note) -> tuple[int, int, float]:
        return n.channel, n.pitch, round(n.start_s, 3)

    by_key = {key(n): n for n in read}
    assert set(by_key) == {key(n) for n in written}
    for n in written:
        later = [m.start_s for m in written if key(m)[:2] == key(n)[:2] and m.start_s > n.start_s]
        assert by_key[key(n)].velocity == n.velocity
        assert by_key[key(n)].end_s == pytest.approx(min([n.end_s, *later]), abs=2e-4)
    assert mido.MidiFile(path).length == pytest.approx(12.0, abs=1e-3)


def test_programs_are_written_in_front_of_their_notes(tmp_path: Path) -> None:
    written = [Note(0.0, 0.5, 0, 33, 40, 90), Note(0.5, 1.0, 0, 35, 40, 90)]
    write_score(written, [Control(0.2, 0, 7, 50), Control(0.2, 5, 7, 50)], 2.0, tmp_path / "a.mid")
    score = read_score(tmp_path / "a.mid")
    assert [(n.start_s, n.program) for n in score.stems["bass"]] == [(0.0, 33), (0.5, 35)]
    assert Control(0.2, 0, 7, 50) in score.controls
    assert all(control.channel == 0 for control in score.controls)


def test_a_note_ends_before_its_pitch_starts_again(tmp_path: Path) -> None:
    write_score([Note(0.0, 2.0, 0, 33, 40, 90), Note(1.0, 3.0, 0, 33, 40, 91)], (), 4.0, tmp_path / "a.mid")
    keys = [message for message in mido.MidiFile(tmp_path / "a.mid") if message.type in ("note_on", "note_off")]
    assert [(message.type, round(message.time, 3)) for message in keys] == [
        ("note_on", 0.0),
        ("note_off", 1.0),
        ("note_on", 0.0),
        ("note_off", 2.0),
    ]


def test_nothing_sounds_past_the_end(tmp_path: Path) -> None:
    write_score([Note(0.0, 9.0, 0, 33, 40, 90), Note(3.0, 4.0, 0, 33, 41, 90)], (), 2.0, tmp_path / "a.mid")
    assert [n.end_s for n in read_score(tmp_path / "a.mid").stems["bass"]] == [2.0]


def test_a_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mido", None)
    with pytest.raises(InputError, match=r"MIDI needs the package 'mido'; install it with: pip install"):
        read_score(tmp_path / "a.mid")
