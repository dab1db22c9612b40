"""What the pages of the project say: their code blocks, commands, tables and links; and a place to follow them in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = ("drums", "bass", "other", "vocals")
RATE_HZ = 44_100

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: what is written behind the fence, or "".
        text: all lines of it.
        before: the page up to the block.
    """

    language: str
    text: str
    before: str

    @property
    def heading(self) -> str:
        return re.findall(r"^#+ (.+)$", self.before, flags=re.MULTILINE)[-1]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    text = text_of(page)
    return [Block(found[1], found[2], text[: found.start()]) for found in _FENCE.finditer(text)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", text_of(page))


def commands(block: Block) -> list[str]:
    """The commands of a block, without comments; lines that end in a backslash go on."""
    lines = (re.sub(r"(^|\s+)#.*$", "", line).strip() for line in re.sub(r"\\\n\s*", "", block.text).splitlines())
    return [line for line in lines if line]


def inline_commands(page: Path) -> list[str]:
    """Commands in the running text: `polyres models`."""
    return re.findall(r"`((?:make|polyres|python benchmarks/)[^`]+)`", prose(page))


def shell_commands(page: Path, languages: Iterable[str] = ("",)) -> list[str]:
    """The commands of all blocks, in order: lines that begin with a program."""
    return [
        line
        for block in blocks(page)
        if block.language in languages
        for line in commands(block)
        if re.match(r"(make|polyres|python\d?) ", line)
    ]


def words_of(command: str) -> list[str]:
    """The words behind the name of the program."""
    return shlex.split(command)[1:]


def tables(page: Path) -> list[list[list[str]]]:
    """The cells of all tables, row by row, without the rule below the heads."""
    found: list[list[list[str]]] = []
    previous = ""
    for line in prose(page).splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                found.append([])
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                found[-1].append(cells)
        previous = line
    return found


def links(page: Path) -> Iterator[str]:
    """Targets of links and pictures."""
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """What `#…` may name on a page."""
    heads = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


# -- sounds that commands ask for -------------------------------------------------------------------------------------


def stems(seconds: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Four sounds `[T, 2]` that a separator could tell apart: clicks, a low tone, a chord, a gliding tone."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    hit = np.exp(-40 * (time_s % 0.25)) * generator.normal(size=len(time_s))
    bass = np.sin(2 * np.pi * 55 * (1 + seed % 5) ** 0.2 * time_s)
    chord = sum(np.sin(2 * np.pi * pitch * time_s) for pitch in (330, 415, 495))
    glide = np.sin(2 * np.pi * 440 * time_s + 3 * np.sin(2 * np.pi * 5 * time_s))
    mono = dict(zip(SOURCES, (hit, bass, chord / 3, glide), strict=True))
    return {name: (0.15 * wave[:, None] * [1.0, 0.9]).astype(np.float32) for name, wave in mono.items()}


def write_song(path: Path, seconds: float, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sum(stems(seconds, seed).values()), RATE_HZ)
    return path


def write_track(folder: Path, seconds: float, seed: int = 0, names: Iterable[str] = SOURCES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in stems(seconds, seed).items():
        if name in names:
            soundfile.write(folder / f"{name}.wav", wave, RATE_HZ)
    return folder
