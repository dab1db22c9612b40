"""A folder in which the commands of a page are followed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from polyres.cli.listen import new as listen_new
from polyres.cli.main import main
from tests.documents import ROOT, words_of, write_song, write_track


class Place:
    """A folder in which the commands of the page are given, each as written but with less work, and once."""

    def __init__(self, folder: Path, less: Mapping[str, str], needs: Mapping[str, Sequence[str]]) -> None:
        """Prepare songs and recipes.

        Args:
            folder: where commands are given.
            less: what makes a command smaller than it is written; later options win over earlier ones.
            needs: commands that must have been given before one.
        """
        self.folder, self.less, self.needs = folder, less, needs
        self.said: dict[str, str] = {}
        self.status: dict[str, int] = {}
        for name in ("song.mp3", "song.wav", "album/one.wav", "album/two.flac"):
            write_song(folder / name, 1.0, seed=len(name))
        (folder / "recipes").symlink_to(ROOT / "recipes")

    def listening(self) -> None:
        """What the study of `polyres listen new --help` compares, and that study."""
        for number, name in enumerate(("data/test", "separated/htdemucs", "separated/polyres-small")):
            for track in ("a", "b"):
                write_track(self.folder / name / track, 3.0, seed=number)
        shown = re.search(r"^ {8}name: .*?(?=\n\n)", listen_new.__doc__ or "", flags=re.MULTILINE | re.DOTALL)
        assert shown is not None
        text = re.sub(r"^ {8}", "", shown[0], flags=re.MULTILINE)
        (self.folder / "STUDY.yaml").write_text(text.replace("length_s: 10", "length_s: 2"), encoding="utf-8")

    def give(self, command: str, capsys: pytest.CaptureFixture[str]) -> int:
        """Give a command, and before it those that it needs; returns its exit status."""
        if command not in self.status:
            for needed in self.needs.get(command, []):
                assert self.give(needed, capsys) == 0, self.said[needed]
            if command == "polyres listen new STUDY.yaml":
                self.listening()
            capsys.readouterr()
            self.status[command] = main(words_of(f"{command} {self.less.get(command, '')}"))
            self.said[command] = "".join(capsys.readouterr())
        return self.status[command]
