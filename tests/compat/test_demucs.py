from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import demucs.separate
import numpy as np
import pytest
import soundfile
import torch

from polyres.compat.demucs import api
from polyres.compat.demucs.separate import main
from polyres.separation.load import load_separator
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.options import SeparateOptions
from polyres.separation.weights import save_separator

STEMS = ("drums", "bass", "other", "vocals")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small model in a folder of models."""
    torch.manual_seed(0)
    config = SeparatorConfig(n_fft=(512,), channels=4, depth=2, wave_branch=False, segment_samples=22050)
    path = tmp_path_factory.mktemp("repo") / "tiny.safetensors"
    save_separator(Separator(config), path, {})
    return path


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "a song.one.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (40_000, 2)), 44100, subtype="FLOAT")
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--two-stems", "vocals", "--int24"),
        ("--two-stems", "drums", "--other-method", "minus", "--flac"),
        ("--two-stems", "bass", "--other-method", "none", "--float32", "--clip-mode", "clamp"),
        ("--filename", "{stem}/{track}_{trackext}.{ext}", "--shifts", "0", "--overlap", "0.1"),
    ],
)
def test_the_command_of_demucs_itself_writes_the_same_tree_with_our_parts(
    flags: tuple[str, ...], tiny: Path, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--repo", str(tiny.parent), "-n", "tiny", "-d", "cpu", *flags, str(song)]
    for name in ("Separator", "save_audio", "list_models"):
        monkeypatch.setattr(demucs.separate, name, getattr(api, name))
    demucs.separate.main([*words, "-o", str(tmp_path / "theirs")])
    main([*words, "-o", str(tmp_path / "ours")])
    theirs, ours = files_of(tmp_path / "theirs"), files_of(tmp_path / "ours")
    assert len(ours) == len(STEMS) if "--two-stems" not in flags else len(ours) <= 2
    assert ours == theirs


def test_stems_are_those_of_our_engine_at_the_rate_of_the_model(tiny: Path) -> None:
    wave = torch.from_numpy(np.random.default_rng(1).uniform(-0.5, 0.5, (2, 30_000)).astype(np.float32))
    calls: list[dict[str, object]] = []
    separator = api.Separator(
        "tiny", tiny.parent, "cpu", shifts=0, callback=calls.append, callback_arg={"song": "mine"}
    )
    mixture, stems = separator.separate_tensor(wave)
    options = SeparateOptions(offset="every")
    expected = load_separator(tiny, "cpu", "fp32").separate(wave, 44100, options)
    assert tuple(stems) == separator.sources == STEMS
    assert all(torch.equal(stems[name], expected[name]) for name in STEMS)
    assert torch.equal(mixture, wave)
    assert calls[0] == {
        "song": "mine",
        "model_idx_in_bag": 0,
        "shift_idx": 0,
        "segment_offset": 0,
        "models": 1,
        "audio_length": 30_000,
        "state": "start",
    }
    mixture, _ = separator.separate_tensor(wave[:1], 22050)
    assert mixture.shape == (2, 60_000)


def test_settings_are_changed_and_wrong_ones_refused(tiny: Path, tmp_path: Path) -> None:
    separator = api.Separator(str(tiny), device="cpu", shifts=0)
    wave = torch.rand(2, 30_000, generator=torch.Generator().manual_seed(0)) - 0.5
    _, before = separator.separate_tensor(wave)
    separator.update_parameter(overlap=0.6, progress=False)
    _, after = separator.separate_tensor(wave)
    assert not torch.equal(before["drums"], after["drums"])
    with pytest.raises(TypeError, match="overlapp"):
        separator.update_parameter(overlapp=0.5)
    with pytest.raises(api.PolyresError, match="overlap 1"):
        separator.update_parameter(overlap=1.0, shifts=2)
    _, same = separator.separate_tensor(wave)
    assert torch.equal(same["drums"], after["drums"])  # what is refused changes nothing
    with pytest.raises(api.LoadModelError, match="htdemuks"):
        api.Separator("htdemuks")
    with pytest.raises(api.LoadModelError, match="no model 'big' in"):
        api.Separator("big", tiny.parent)
    with pytest.raises(api.LoadAudioError, match=r"missing\.wav"):
        separator.separate_audio_file(tmp_path / "missing.wav")


@pytest.mark.parametrize(("clip", "peak"), [("rescale", 2 / 2.02), ("clamp", 0.99), ("tanh", np.tanh(2)), ("none", 2)])
def test_levels_above_full_scale(clip: api.ClipMode, peak: float, tmp_path: Path) -> None:
    api.save_audio(torch.tensor([[2.0, -0.5]]), tmp_path / "a.wav", 44100, clip=clip, as_float=True)
    assert soundfile.read(tmp_path / "a.wav")[0][0] == pytest.approx(peak, rel=1e-6)


def test_models_are_listed_and_what_cannot_be_done_is_told(
    tiny: Path, song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--list-models", "--repo", str(tiny.parent)])
    assert capsys.readouterr().out.split("Single models:")[1].split() == ["tiny"]
    assert "htdemucs_ft" in api.list_models()["bag"]
    words = ["--repo", str(tiny.parent), "-d", "cpu", "-o", str(tmp_path)]
    for given, status in (
        ([], 1),
        (["-n", "none", str(song)], 2),
        (["-n", "tiny", "--two-stems", "drum", str(song)], 2),
        (["-n", "tiny", str(tmp_path / "missing.wav"), str(song)], 2),
        (["-n", "tiny", "--filename", "{song}.wav", str(song)], 2),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, *given])
        assert ended.value.code == status
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert len(files_of(tmp_path)) == len(STEMS)  # the song beside the missing one is done


@pytest.mark.slow
def test_it_runs_as_a_module(tiny: Path, song: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polyres.compat.demucs", "--repo", str(tiny.parent), "-n", "tiny", str(song)]
    subprocess.run([*command, "-o", str(tmp_path)], check=True, capture_output=True)
    assert len(files_of(tmp_path / "tiny" / "a song.one")) == len(STEMS)
