from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polyres.codec.latent import HEADER_NUMBERS, Latent, to_half
from polyres.core.errors import InputError, OutputError


def a_latent() -> Latent:
    generator = torch.Generator().manual_seed(1)
    return Latent(
        tensors={"z": torch.randn(2, 8, 5, 16, generator=generator).half()},
        codec="audioldm2_tiny",
        fingerprint="0123456789abcdef",
        input_rate_hz=44100,
        channels=2,
        length_samples=8820,
        sample_rate_hz=16000,
        side={"log2_peak": torch.tensor([-1.5, -2.0]).half()},
        config={"front_end": "audioldm2"},
    )


def test_every_stored_number_counts() -> None:
    latent = a_latent()
    assert latent.num_scalars == 2 * 8 * 5 * 16 + 2 + len(HEADER_NUMBERS)
    assert latent.duration_s == 0.2
    assert latent.scalars_per_second == latent.num_scalars / 0.2


def test_a_saved_latent_comes_back_bit_for_bit(tmp_path: Path) -> None:
    latent = a_latent()
    path = latent.save(tmp_path / "new" / "z.safetensors")
    back = Latent.load(path)
    assert replace(back, tensors=latent.tensors, side=latent.side) == latent
    assert torch.equal(back.tensors["z"], latent.tensors["z"])
    assert torch.equal(back.side["log2_peak"], latent.side["log2_peak"])
    assert path.stat().st_size < 2 * latent.num_scalars + 1000  # float16 and a short header
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions of files are another thing on Windows")
def test_others_may_read_a_latent_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = a_latent().save(tmp_path / "z.safetensors")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_only_float16_is_kept() -> None:
    with pytest.raises(InputError, match=r"tensor 'z' of a latent is torch.float32; float16 is needed"):
        replace(a_latent(), tensors={"z": torch.zeros(1, 1, 1)})
    with pytest.raises(InputError, match=r"at least one tensor"):
        replace(a_latent(), tensors={})
    with pytest.raises(InputError, match=r"length_samples = 0 is not allowed; allowed: greater than or equal to 1"):
        replace(a_latent(), length_samples=0)


def test_rounding_refuses_what_float16_cannot_hold() -> None:
    assert to_half(torch.tensor([0.1]), "z").dtype == torch.float16
    with pytest.raises(InputError, match=r"z holds NaN or values beyond 65504"):
        to_half(torch.tensor([70000.0]), "z")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"cannot write .*z\.safetensors"):
        a_latent().save(tmp_path / "file" / "z.safetensors")


def test_files_that_are_no_latents_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no latent file .*none\.safetensors; check the path"):
        Latent.load(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(InputError, match=r"holds no latent; give a file written by 'polyres encode'"):
        Latent.load(other)
    save_file({"a": torch.zeros(1)}, other, {"polyres": "{"})
    with pytest.raises(InputError, match=r"is damaged: its header cannot be used"):
        Latent.load(other)
    save_file({"a": torch.zeros(1)}, other, {"polyres": json.dumps({"kind": "latent", "format": 2})})
    with pytest.raises(InputError, match=r"has format 2; this version reads format 1"):
        Latent.load(other)
    save_file({"a": torch.zeros(1)}, other, {"polyres": json.dumps({"kind": "latent", "format": 1})})
    with pytest.raises(InputError, match=r"damaged: its header cannot be used \(LatentHeader: key 'codec' is missing"):
        Latent.load(other)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = a_latent().save(tmp_path / "z.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut or damaged"):
        Latent.load(path)
