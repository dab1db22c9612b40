"""Weight files of polyres_wave: what goes in comes out, anything else is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from polyres.core.errors import OutputError, WeightsError
from polyres.models.wave_codec import EMBEDDED, NAME, WaveCodec, WaveCodecConfig, load_wave_codec, save_wave_codec
from polyres.models.wave_weights import read_codec_facts
from polyres.models.weights import METADATA_KEY


def rewritten(path: Path, about: object) -> Path:
    save_file(load_file(EMBEDDED), path, {METADATA_KEY: json.dumps(about)})
    return path


def test_a_codec_comes_back(tmp_path: Path) -> None:
    codec = load_wave_codec(EMBEDDED)
    again = load_wave_codec(save_wave_codec(codec, tmp_path / "z.safetensors", {"by": "test"}))
    assert again.config == codec.config
    assert all(torch.equal(value, codec.state_dict()[name]) for name, value in again.state_dict().items())
    assert read_codec_facts(tmp_path / "z.safetensors", NAME)["card"] == {"by": "test"}
    assert EMBEDDED.stat().st_size < 20e6


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"kind": "separator"}, "holds 'separator' None; a codec 'polyres_wave' is needed"),
        ({"kind": "codec", "codec": NAME, "format": 9}, "has format 9; this version reads format 1; update polyres"),
        ({"kind": "codec", "codec": NAME, "format": 1}, "its metadata lacks the config or the card"),
        ({"kind": "codec", "codec": NAME, "format": 1, "config": {"fill": 7}, "card": {}}, "its config is not usable"),
        ([], "its metadata is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, about: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_wave_codec(rewritten(tmp_path / "other.safetensors", about))


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    codec = WaveCodec(WaveCodecConfig())
    with pytest.raises(WeightsError, match="cannot be written as JSON"):
        save_wave_codec(codec, tmp_path / "z.safetensors", {"score": float("nan")})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_wave_codec(codec, tmp_path / "file" / "z.safetensors")
