"""Codecs that are known, before any is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.codec import registry as codec_list
from polyres.codec.registry import build_codec, codec_names, known_codecs


def test_every_codec_is_listed_with_its_licence() -> None:
    infos = {info.name: info for info in known_codecs()}
    assert list(infos) == codec_names()
    assert "CC BY-NC-SA" in infos["audioldm2"].licence
    assert infos["audioldm2"].source == "https://huggingface.co/cvssp/audioldm2"
    assert infos["audioldm2_tiny"].present
    for name in ("polyres_wave", "polyres_wave_44k", "polyres_wave_live"):
        assert infos[name].present
        assert infos[name].licence == "MIT"
        assert infos[name].parameters == sum(value.numel() for value in build_codec(name).state_dict().values())


def test_a_missing_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_list, "EMBEDDED_FOLDER", tmp_path)
    info = next(info for info in known_codecs() if info.name == "polyres_wave")
    assert (info.present, info.source) == (False, "missing in this installation")


def test_a_download_is_seen_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--cvssp--audioldm2-music"
    files = ["vae/config.json", "vocoder/config.json", "vae/x.safetensors", "vocoder/model.safetensors"]
    for path, text in [("refs/main", "0" * 40), *((f"snapshots/{'0' * 40}/{file}", "{}") for file in files)]:
        assert not {info.name: info.present for info in known_codecs()}["audioldm2-music"]
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(text)
    assert {info.name: info.present for info in known_codecs()}["audioldm2-music"]
