"""Recipe of `polyres listen new`: results to compare, excerpts, levels and test design."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from polyres.core.config import Config
from polyres.listen.design.files import HIDDEN_REFERENCE_KINDS, REFERENCE_KINDS, StudyTerms

Anchor = Literal["low", "mid", "interference"]


class ExcerptOptions(Config):
    """Which parts of the songs are heard."""

    per_track: int = Field(1, ge=1)  # excerpts of each song, at most
    length_s: float = Field(10.0, ge=1.0, le=60.0)  # of each; BS.1534 advises about 10 s and no more than 12 s
    seed: int = Field(0, ge=0)  # of the draw
    min_active_share: float = Field(0.8, ge=0.0, le=1.0)  # share of seconds in which all sources have to sound
    sources: tuple[str, ...] = ()  # stems that have to sound; empty for all that the reference has
    tracks: tuple[str, ...] = ()  # names of the songs; empty for all
    max_tracks: int | None = Field(None, ge=1)  # so many of them, drawn by the seed; None for all
    split: str = "all"  # of the reference data set
    layout: str = "stems"  # of the reference data set


class LevelOptions(Config):
    """Loudness of the sounds."""

    match: bool = True  # whether all sounds of a page are made equally loud (BS.1770); else they keep their levels
    target_lufs: float = Field(-23.0, ge=-60.0, le=-5.0)  # loudness of every sound
    limit_db: float = Field(20.0, ge=0.0)  # most that one sound is raised above another
    # no true peak exceeds it, in dB of full scale; a page that would is made softer as a whole
    peak_db: float = Field(-1.0, ge=-30.0, le=0.0)
    fade_s: float = Field(0.01, ge=0.0, le=1.0)  # fade at both ends
    bit_depth: Literal[16, 24] = 16  # of the files


class StudyRecipe(StudyTerms):
    """Recipe of a study built from folders of results."""

    references: str  # folder of songs with their true stems, relative to the recipe
    # label -> folder that holds TRACK/STEM.EXT, as `polyres separate` writes them (OUT/MODEL)
    systems: dict[str, str] = Field(min_length=1)
    stems: tuple[str, ...] = Field(("vocals",), min_length=1)  # which stems are judged
    # low (3.5 kHz), mid (7 kHz) and interference (the mixture); none means none
    anchors: tuple[Anchor, ...] | None = None
    hidden_reference: bool | None = None  # whether the reference is among the conditions; None: for mushra and bs1116
    training_pages: int = Field(0, ge=0)  # so many excerpts are for training and do not count
    excerpts: ExcerptOptions = ExcerptOptions()  # which parts of the songs
    levels: LevelOptions = LevelOptions()  # how loud

    @model_validator(mode="after")
    def _is_a_test(self) -> Self:
        conditions = len(self.systems) + len(self.used_anchors) + self.has_hidden_reference
        if conditions > 12 and self.kind in ("mushra", "bs2132"):
            raise ValueError(f"{conditions} sounds on a page are too many to compare; BS.1534 allows 12")
        if self.kind == "bs1116" and not self.has_hidden_reference:
            raise ValueError("bs1116 grades every system beside the hidden reference; leave hidden_reference out")
        if conditions < 2:
            raise ValueError("one system alone cannot be compared; add systems, anchors or hidden_reference: true")
        return self

    @property
    def used_anchors(self) -> tuple[Anchor, ...]:
        """The anchors: low and mid for mushra unless said otherwise."""
        if self.anchors is not None:
            return self.anchors
        return ("low", "mid") if self.kind == "mushra" else ()

    @property
    def has_hidden_reference(self) -> bool:
        """Whether the reference is among the conditions."""
        return self.kind in HIDDEN_REFERENCE_KINDS if self.hidden_reference is None else self.hidden_reference

    @property
    def shows_reference(self) -> bool:
        """Whether listeners can play the true stem."""
        return self.kind in REFERENCE_KINDS

    def resolved(self, folder: Path) -> StudyRecipe:
        """Return the recipe with its folders relative to the working folder instead of its own.

        Args:
            folder: of the recipe.
        """
        systems = {label: str(folder / name) for label, name in self.systems.items()}
        return self.with_values({"references": str(folder / self.references), "systems": systems})
