"""Choices that make no sense are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from polyres.audio.writer import FORMATS
from polyres.batch.jobs import BIT_DEPTHS, OutputOptions
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.separation.options import SeparateOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stems": ("drums",), "two_stems": "drums"}, "stems and two_stems exclude each other"),
        ({"stems": "vocals"}, r"stems 'vocals' is one text; give a tuple of names, such as \('vocals',\)"),
        ({"stems": ()}, "stems is empty; name at least one stem"),
        ({"shifts": -1}, r"shifts -1 is not possible; choose 0 \(off\) or more"),
        ({"seed": -5}, "seed -5 is not possible; choose 0 or more"),
        ({"overlap": 1.0}, "overlap 1.0 is not possible; choose 0 <= overlap < 1"),
        ({"overlap": -0.1}, "overlap -0.1 is not possible"),
        ({"overlap": float("nan")}, "overlap nan is not possible"),
        ({"batch": 0}, "batch 0 is not possible; choose 1 or more segments"),
        ({"block_samples": 0}, "block_samples 0 is not possible; choose 1 or more"),
        ({"offset": "twice"}, "offset 'twice' is unknown; choose 'once' or 'every'"),
    ],
)
def test_a_wrong_choice_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SeparateOptions(**wrong)


def test_names_are_suggested() -> None:
    with pytest.raises(UnknownNameError, match="unknown format 'wave'; did you mean 'wav'"):
        OutputOptions("wave")
    with pytest.raises(UnknownNameError, match="unknown bit depth 'floats'; did you mean 'float'"):
        OutputOptions("wav", "floats")


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "wav"])
def test_float_is_for_wav_alone(name: str) -> None:
    with pytest.raises(ConfigError, match=f"bit depth float is not possible in {name}; use --format wav"):
        OutputOptions(name, "float")


def test_what_can_hold_samples_above_full_scale() -> None:
    held = [(f, b) for f in FORMATS for b in BIT_DEPTHS[:2] if OutputOptions(f, b).is_float]
    assert held == []
    assert OutputOptions("wav", "float").is_float
    assert [name for name in FORMATS if OutputOptions(name).is_lossy] == ["mp3", "m4a", "ogg", "opus"]
