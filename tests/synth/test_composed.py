from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.core.errors import ConfigError
from polyres.synth import composed
from polyres.synth.composed import ComposedConfig, make_composed, make_song
from polyres.synth.instruments.render import SAMPLE_RATE_HZ
from polyres.synth.scores.midi import STEMS

SHORT = ComposedConfig(
    length_s=6.0, tail_s=1.0, styles=("house", "funk"), always=("drums", "bass", "comping", "vocals")
)


def test_songs_have_their_stems_and_stay_below_full_scale() -> None:
    waves, manifest = make_song(SHORT, 0)
    assert list(waves) == list(STEMS)
    for wave in [*waves.values(), sum(waves.values())]:
        assert wave.shape == (2, 6 * SAMPLE_RATE_HZ)
        assert wave.dtype == np.float32
        assert np.abs(wave).max() < 0.999
        assert np.abs(wave[:, -20:]).max() < 0.01  # the end is faded out, not cut
    assert manifest["piece"] == "composed_house"
    assert manifest["players"] == dict.fromkeys(("drums", "bass", "other"), "electronic") | {"vocals": "formant voice"}
    assert 116.0 <= float(str(manifest["tempo_bpm"])) <= 134.0


def test_songs_depend_on_seed_and_number_alone() -> None:
    first, again = (make_song(SHORT, 1)[0] for _ in range(2))
    for other in (make_song(SHORT, 3)[0], make_song(SHORT.with_values({"seed": 1}), 1)[0]):
        assert all(not np.array_equal(first[stem], other[stem]) for stem in ("drums", "bass"))
    assert all(np.array_equal(first[stem], again[stem]) for stem in STEMS)


def test_styles_take_turns_and_unknown_ones_are_told() -> None:
    pieces = [make_song(SHORT.with_values({"length_s": 2.0}), number)[1]["piece"] for number in range(3)]
    assert pieces == ["composed_house", "composed_funk", "composed_house"]
    with pytest.raises(ConfigError, match=r"unknown style 'huose'; did you mean 'house'"):
        ComposedConfig(styles=("huose",))
    with pytest.raises(ConfigError, match=r"instruments is 'both' but there are no banks; name an .sf2 or .sf3 file"):
        ComposedConfig(instruments="both")


def test_effects_can_be_left_out() -> None:
    _, manifest = make_song(SHORT.with_values({"effects": False, "length_s": 2.0}), 0)
    assert manifest["effects"] == {}


def test_banks_play_what_the_synthesisers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def render(score: object, stem: str, take: object, bank: Path, length_s: float) -> np.ndarray:
        asked.append((stem, bank.name))
        return np.full((2, round(length_s * SAMPLE_RATE_HZ)), 0.1, np.float32)

    monkeypatch.setattr(composed, "render_stem", render)
    monkeypatch.setattr(composed, "read_presets", lambda bank: [])
    config = SHORT.with_values({"length_s": 2.0, "banks": ["one.sf2", "two.sf2"], "instruments": "sampled"})
    _, manifest = make_song(config, 0)
    assert [stem for stem, _ in asked] == ["drums", "bass", "other"]
    assert len({bank for _, bank in asked}) == 1
    assert manifest["players"] == {stem: asked[0][1] for stem, _ in asked} | {"vocals": "formant voice"}
    players = [make_song(config.with_values({"instruments": "both"}), number)[1]["players"] for number in range(6)]
    drums = {str(names["drums"]) for names in players if isinstance(names, dict)}
    assert "electronic" in drums
    assert drums & {"one.sf2", "two.sf2"}


def test_a_singer_takes_the_vocals(tmp_path: Path) -> None:
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = sum(np.sin(2 * np.pi * 220 * n * time_s) / n for n in range(1, 9))
    (tmp_path / "choir").mkdir()
    soundfile.write(tmp_path / "choir" / "la_A3.wav", 0.2 * wave, SAMPLE_RATE_HZ)
    config = SHORT.with_values({"singer": str(tmp_path / "choir")})
    waves, manifest = make_song(config, 0)
    assert "vocals" in waves
    players = manifest["players"]
    assert isinstance(players, dict)
    assert players["vocals"] == "choir"
    # Moving the folder makes no other song.
    assert config.identity() == config.with_values({"singer": "/elsewhere/choir"}).identity() != SHORT.identity()


def test_making_and_making_more(tmp_path: Path) -> None:
    config = SHORT.with_values({"length_s": 2.0})
    assert [made.name for made in make_composed(tmp_path, 1, config)] == ["song_00000"]
    assert [made.skipped for made in make_composed(tmp_path, 2, config)] == [True, False]
    parts = [soundfile.read(tmp_path / "song_00001" / f"{stem}.wav", dtype="int16")[0].astype(int) for stem in STEMS]
    assert np.abs(sum(parts)).max() < 32768
