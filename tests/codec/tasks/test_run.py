from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from polyres.cli.main import main
from polyres.codec.mel.codec import MelCodec, MelCodecConfig, save_mel_codec
from polyres.codec.networks import load_network
from polyres.codec.registry import build_codec
from polyres.codec.tasks.config import ReconstructConfig, write_codec
from polyres.codec.tasks.enhance import Trainee, tilted
from polyres.codec.tasks.run import build_task
from polyres.core.errors import ConfigError, OutputError, TrainingError, UnknownNameError
from polyres.study.run.train import run_training

RECIPES = Path(__file__).resolve().parents[3] / "recipes" / "reconstruct"
NAMES = ("debug", "base", "learned_enhancer", "refiner", "refiner_informed", "autoencoder", "bandwidth")
RATE_HZ = 16000

TINY = """\
task: {task}
codec: audioldm2_tiny
network: {{width: 8, depth: 2, informed: {informed}}}
bandwidth: {{sample_rate_hz: 16000, cutoff_hz: 3500, n_fft: 256, width: 16, depth: 2}}
data:
  roots: [{{path: train}}]
  sample_rate_hz: 16000
  audio_channels: 1
  segment_samples: 5120
  items_per_epoch: 8
valid: {{roots: [valid], max_seconds: 0.32}}
batch_size: 4
epochs: 3
optimiser: {{lr: 3.0e-3}}
num_workers: 0
device: cpu
data_dir: {data}
"""


def recipe(tmp_path: Path, songs: Path, task: str, informed: bool = False) -> Path:
    path = tmp_path / f"{task}.yaml"
    text = TINY.format(task=task, informed=str(informed).lower(), data=songs)
    path.write_text(text + ("stft_n_fft: [256, 512]\n" if task == "bandwidth" else ""), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("task", "informed", "kind"),
    [
        pytest.param("learned_enhancer", False, "latent_enhancer", marks=pytest.mark.slow),
        ("refiner", False, "mel_refiner"),
        pytest.param("refiner", True, "mel_refiner", marks=pytest.mark.slow),
        ("bandwidth", False, "bandwidth"),
    ],
)
def test_a_run_learns_and_leaves_weights(tmp_path: Path, songs: Path, task: str, informed: bool, kind: str) -> None:
    path = recipe(tmp_path, songs, task, informed)
    result = run_training(path, tmp_path / "run", ["epochs=3"])
    assert result.step == 6
    found = load_network(tmp_path / "run", (kind,))
    assert found.card["epoch"] >= 1
    before = build_task(ReconstructConfig.from_yaml(path)).validate(untrained(path))
    assert result.best is not None
    assert result.best["score"] > before["score"]
    if informed:
        assert found.module.config.to_dict()["informed"]


def untrained(path: Path):
    return build_task(ReconstructConfig.from_yaml(path)).build_model().eval()


@pytest.mark.slow
def test_an_autoencoder_is_fine_tuned_and_is_a_codec_again(tmp_path: Path, songs: Path) -> None:
    path = recipe(tmp_path, songs, "autoencoder")
    result = run_training(path, tmp_path / "run", ["epochs=4", "optimiser.lr=0.002"])
    task = build_task(ReconstructConfig.from_yaml(path))
    before = task.validate(untrained(path))
    assert result.best is not None
    assert result.best["score"] > before["score"] + 0.1
    tuned = build_codec(tmp_path / "run" / "codec")
    wave = torch.zeros(1, 1, 6400)
    wave[..., 1000] = 0.5
    first = build_codec("audioldm2_tiny")
    with torch.no_grad():
        assert not torch.equal(tuned.encode(wave)["z"], first.encode(wave)["z"])
        spoken = [codec.from_features({"mel": first.mel(wave)}, 6400) for codec in (tuned, first)]  # type: ignore[operator]
    assert torch.equal(*spoken)  # the vocoder is as it was
    scored = task.validate(Trainee(tuned.autoencoder).eval())  # type: ignore[arg-type]
    assert scored["score"] == pytest.approx(result.best["score"], abs=1e-4)


def test_a_mel_codec_of_ours_is_fine_tuned_in_one_file(tmp_path: Path, songs: Path) -> None:
    mel = {"sample_rate_hz": 16000, "n_fft": 512, "win_length": 512, "hop_length": 160, "mel_bins": 16, "max_hz": 8000}
    network = {"widths": [4, 4, 8], "latent_channels": 2, "middle_blocks": 0}
    config = {"mel": mel, "network": network, "vocoder": {"width": 8, "depth": 1}}
    first = save_mel_codec(MelCodec(MelCodecConfig.from_dict(config)), tmp_path / "mel.safetensors")
    path = recipe(tmp_path, songs, "autoencoder")
    run_training(path, tmp_path / "run", ["epochs=1", "steps_per_epoch=2", f"codec={first}", "optimiser.lr=0.01"])
    tuned, before = build_codec(tmp_path / "run"), build_codec(first)
    changed = {key for key, value in tuned.state_dict().items() if not torch.equal(value, before.state_dict()[key])}
    assert changed
    assert all(key.startswith("autoencoder.") for key in changed)


def test_terms_are_what_they_say(tmp_path: Path, songs: Path) -> None:
    path = recipe(tmp_path, songs, "autoencoder")
    task = build_task(ReconstructConfig.from_yaml(path, ["perceptual_weight=0.5", "kl_weight=0.01", "high_weight=2"]))
    model = task.build_model().eval()
    stems = 0.1 * torch.randn(2, 4, 1, 5120, generator=torch.Generator().manual_seed(0))
    total, terms = task.losses(model, stems)
    wanted = terms["log_mel_l1"] + 2 * terms["log_mel_l1_high"] + 0.01 * terms["kl"] + 0.5 * terms["perceptual"]
    assert float(total.detach()) == pytest.approx(float(wanted), rel=1e-5)
    assert all(float(value) > 0 for value in terms.values())
    total.backward()
    assert task.gradient_norms(model)["all"] > 0
    assert task.describe(model) == {}
    assert task.gradient_norms(torch.nn.Linear(1, 1)) == {}


def test_gradients_reach_an_enhancer_through_the_frozen_decoder(tmp_path: Path, songs: Path) -> None:
    task = build_task(ReconstructConfig.from_yaml(recipe(tmp_path, songs, "learned_enhancer")))
    model = task.build_model()
    stems = 0.1 * torch.randn(1, 4, 1, 5120, generator=torch.Generator().manual_seed(0))
    total, _ = task.losses(model, stems)
    total.backward()
    assert task.gradient_norms(model)["all"] > 0
    assert not any(parameter.requires_grad for parameter in task.codec.parameters())  # type: ignore[union-attr]


@pytest.mark.slow
def test_runs_go_on_where_they_were(tmp_path: Path, songs: Path) -> None:
    path = recipe(tmp_path, songs, "refiner")
    whole = run_training(path, tmp_path / "whole")
    run_training(path, tmp_path / "parts", ["epochs=2"])
    parts = run_training(None, tmp_path / "parts", ["epochs=3"], resume=True)
    assert parts.step == whole.step
    one, other = (load_network(tmp_path / name).module.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_command_trains_by_the_task_of_the_recipe_and_what_it_leaves_can_be_used(
    tmp_path: Path, songs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, run = recipe(tmp_path, songs, "refiner"), tmp_path / "run"
    assert main(["train", str(path), "--out", str(run), "--set", "epochs=1"]) == 0
    assert f"use it with: polyres enhance AUDIO --codec audioldm2_tiny --network refine={run}" in capfd.readouterr().err
    song = str(songs / "valid" / "three" / "bass.wav")
    names = ["--enhancer", "refine", "--network", f"refine={run}", "--seconds", "0.64", "--json"]
    assert main(["enhance", song, "--codec", "audioldm2_tiny", *names]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert rows[1]["mel_l1"] < rows[0]["mel_l1"]


def test_weights_to_start_from(tmp_path: Path, songs: Path) -> None:
    run_training(recipe(tmp_path, songs, "refiner"), tmp_path / "run", ["epochs=1"])
    config = ReconstructConfig.from_yaml(recipe(tmp_path, songs, "refiner"), [f"init='{tmp_path / 'run'}'"])
    model, started = load_network(tmp_path / "run").module, build_task(config).build_model()
    assert all(torch.equal(value, started.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(TrainingError, match=r"init is .*holds mel_refiner, not a network of kind latent_enhancer"):
        build_task(config.with_values({"task": "learned_enhancer"})).build_model()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (["data.sample_rate_hz=8000"], TrainingError, "data.sample_rate_hz is 8000 but audioldm2_tiny takes 16000"),
        (["data.segment_samples=10000"], TrainingError, "takes multiples of 640 up to 163840"),
        (["codec=audioldm3"], ConfigError, "unknown codec 'audioldm3'"),
        (["codec=/nowhere/codec.safetensors"], TrainingError, "codec is '/nowhere/codec.safetensors': there is no"),
        (["codec=polyres_wave"], TrainingError, "which decodes to no mel spectrogram; name one that does"),
        (["devices=2"], TrainingError, "devices is 2, but tasks of reconstruction train on one"),
        (["tilt_db_per_octave=3"], ConfigError, "tilt_db_per_octave is for bandwidth alone"),
        (["task=bandwidth", "bandwidth.sample_rate_hz=22050"], ConfigError, "bandwidth.sample_rate_hz is 22050"),
        (["task=learned_enhancer", "network.informed=true"], ConfigError, "network.informed is for refiner alone"),
        (["perceptual_weight=0.5"], ConfigError, "perceptual_weight is for autoencoder alone and would change nothing"),
        (["stft_n_fft=[512]"], ConfigError, "stft_n_fft is for bandwidth alone"),
        (["task=autoencoder", "init=x"], ConfigError, "an autoencoder starts from the weights of its codec"),
        (["task=vae"], ConfigError, "task"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, songs: Path, changes: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_training(recipe(tmp_path, songs, "refiner"), tmp_path / "run", changes)
    assert not (tmp_path / "run").exists()


def test_a_task_that_nobody_knows_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("task: refinery\n", encoding="utf-8")
    with pytest.raises(UnknownNameError, match="unknown task 'refinery'"):
        run_training(tmp_path / "odd.yaml", tmp_path / "run")


def test_codecs_without_an_autoencoder_cannot_be_fine_tuned(tmp_path: Path, songs: Path, monkeypatch) -> None:
    codec = build_codec("audioldm2_tiny")
    codec.autoencoder = torch.nn.Identity()
    monkeypatch.setattr("polyres.codec.tasks.enhance.build_codec", lambda name: codec)
    with pytest.raises(TrainingError, match="has no autoencoder of mel spectra to fine-tune"):
        build_task(ReconstructConfig.from_yaml(recipe(tmp_path, songs, "autoencoder")))


def test_a_codec_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    codec = build_codec("audioldm2_tiny")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_codec(codec.autoencoder, codec.vocoder, tmp_path / "file" / "best.safetensors", {})
    write_codec(codec.autoencoder, codec.vocoder, tmp_path / "best.safetensors", {"epoch": 1})
    write_codec(codec.autoencoder, codec.vocoder, tmp_path / "best.safetensors", {"epoch": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "codec", "file"]
    assert '"epoch": 2' in (tmp_path / "codec" / "card.json").read_text()


@pytest.mark.parametrize("path", [RECIPES / f"{name}.yaml" for name in NAMES], ids=NAMES)
def test_every_recipe_is_valid_and_says_how_to_run_it(path: Path) -> None:
    config = ReconstructConfig.from_yaml(path)
    assert ReconstructConfig.from_dict(config.to_dict()) == config
    assert f"polyres train recipes/reconstruct/{path.name} " in path.read_text(encoding="utf-8")
    assert config.valid.roots
    if config.task != "bandwidth":
        assert config.data.segment_samples % 640 == 0


def test_slopes_are_drawn_for_each_item_and_begin_at_1_khz() -> None:
    generator = torch.Generator().manual_seed(3)
    impulse = torch.zeros(3, 2, 1, 8000)
    impulse[..., 4000] = 1.0
    found = torch.fft.rfft(tilted(6.0, 8000, impulse, generator)).abs().log10().mul(20)
    assert float(found[..., :1000].abs().max()) < 1e-3
    slopes = found[:, 0, 0, 2000]
    assert torch.allclose(found[:, 1, 0, 3999], slopes * 1.9996, atol=0.01)
    assert float(slopes.abs().max()) <= 6
    assert len({round(float(slope), 3) for slope in slopes}) == 3
    assert torch.allclose(tilted(0.0, 8000, impulse, generator), impulse, atol=1e-6)
