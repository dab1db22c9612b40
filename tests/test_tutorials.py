"""Tutorials: their commands work one after the other, and make the files that the text names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks, prose, shell_commands, write_song, write_track
from tests.following import Place
from tests.test_howto import TINY

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
LESS = {
    "polyres synth DATA/train --hours 2 --jobs 2": "--hours 0.004 --length 5 --jobs 1",
    "polyres synth DATA/valid --tracks 8 --seed 1000": "--tracks 1 --length 5",
    "polyres train recipes/cpu_small.yaml --data DATA --out runs/small": TINY,
    "polyres train recipes/cpu_small.yaml --data DATA --out runs/wider --set model.channels=12": (
        f"{TINY} --set model.channels=4"
    ),
    "polyres study recipes/studies/debug.yaml": "--seeds 1",
    "polyres enhance song.wav --codec polyres_mel --tune --out tuned": "--enhancer gain_match",
}
ELSEWHERE = ("polyres listen serve",)
"""What serves until it is stopped; tried in tests/test_readme.py."""
FILES = {
    "stems": ["separated/polyres-small/song/drums.wav", "karaoke/polyres-small/song/no_vocals.wav", "page.html"],
    "train": ["DATA/train", "runs/small/best.safetensors", "separated/small/song/vocals.wav"],
    "compare": ["scores/scores.jsonl", "paper"],
    "codec": ["reconstructed/polyres_wave/song/comparison.png", "again.wav", "ladder/ladder.html", "tuned"],
    "listening": ["STUDY/report/report.html"],
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_the_commands_of_a_tutorial_work_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "cache"))
    place = Place(tmp_path, LESS, {})
    write_song(tmp_path / "song.wav", 5.0 if page.stem == "codec" else 1.0)
    for folder in ("SONGS", "separated/htdemucs"):
        for number, track in enumerate(("one", "two")):
            write_track(tmp_path / folder / track, 2.0, seed=number)
    given = [line for line in shell_commands(page) if not line.startswith(ELSEWHERE)]
    for command in dict.fromkeys(given):
        assert place.give(command, capsys) == 0, f"{command}: {place.said[command]}"
    for file in FILES[page.stem]:
        assert (tmp_path / file).exists(), file


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_translation_has_the_same_commands_files_and_headings(page: Path) -> None:
    translated = page.parent / "zh" / page.name
    assert [block.text for block in blocks(translated)] == [block.text for block in blocks(page)]
    heads = [
        [len(mark) for mark in re.findall(r"^(#+) ", prose(one), flags=re.MULTILINE)] for one in (page, translated)
    ]
    assert heads[0] == heads[1]
    assert sorted(set(re.findall(r"`[^`]+`", prose(page)))) == sorted(set(re.findall(r"`[^`]+`", prose(translated))))
