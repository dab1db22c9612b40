"""Weight files of polyres_wave: what goes in comes out, anything else is refused with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from polyres.codec.load import load_codec
from polyres.codec.networks import read_codec_facts
from polyres.codec.registry import build_codec, codec_names
from polyres.codec.wave.codec import EMBEDDED, NAME, WaveCodec, WaveCodecConfig, load_wave_codec, save_wave_codec
from polyres.core.errors import OutputError, WeightsError
from polyres.weights.files import METADATA_KEY


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


@pytest.mark.parametrize("name", ["polyres_wave", "polyres_wave_44k", "polyres_wave_live"])
def test_codecs_of_the_package_say_what_they_are(name: str) -> None:
    assert name in codec_names()
    path = EMBEDDED.with_stem(name.replace("_", "-"))
    assert path.stat().st_size < 1e6
    card = read_codec_facts(path, NAME)["card"]
    assert card["model"] == path.stem
    assert card["licence"] == "MIT"
    assert card["recipe"] == f"recipes/reconstruct/{name}.yaml"
    assert card["steps"] > 0
    codec = build_codec(name)
    assert codec.name == name


@pytest.mark.slow
def test_latents_say_which_codec_decodes_them(tmp_path: Path) -> None:
    """Another process gets the file and nothing else."""
    wave = 0.1 * torch.randn(2, 30_000, generator=torch.Generator().manual_seed(0))
    codec = load_codec("polyres_wave_44k:half", "cpu")
    path = codec.encode(wave, 44_100).save(tmp_path / "z.safetensors")
    script = (
        "import sys, numpy, polyres; from polyres.codec.latent import Latent; z = Latent.load(sys.argv[1]);"
        "numpy.save(sys.argv[2], polyres.load_codec(z.codec, device='cpu').decode(z).numpy())"
    )
    subprocess.run([sys.executable, "-c", script, str(path), str(tmp_path / "y.npy")], check=True)
    found = torch.from_numpy(np.load(tmp_path / "y.npy"))
    assert torch.allclose(found, codec.reconstruct(wave, 44_100), atol=1e-6)


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
